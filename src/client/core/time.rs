//! The grid's time, as the client knows it.

use crate::clock::Instant;
use crate::types::HybridTime;

/// The newest time that a reply named, carried on by the own monotonic clock; the client's wall
/// clock plays no part.
#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct GridTime {
    newest: HybridTime,
    seen_at: Instant,
}

impl GridTime {
    /// A first sight of the grid's time.
    pub(in crate::client) fn new(newest: HybridTime, seen_at: Instant) -> Self {
        GridTime { newest, seen_at }
    }

    /// Another sight; the newest counts.
    pub(super) fn observe(&mut self, time: HybridTime, now: Instant) {
        if time > self.newest {
            *self = GridTime::new(time, now);
        }
    }

    /// The grid's time now.
    pub(super) fn now(&self, now: Instant) -> HybridTime {
        let passed = now.saturating_duration_since(self.seen_at).as_millis() as u64;
        HybridTime(self.newest.0.saturating_add(passed << 16))
    }
}
