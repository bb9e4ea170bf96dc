//! Counters of what went over the network, by kind of frame. Answers count under the kind of
//! their call.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one kind of frame has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    /// The kind.
    pub kind: u8,
    /// Calls and answers sent.
    pub frames_out: u64,
    /// Their payloads' bytes.
    pub bytes_out: u64,
    /// Calls and answers received.
    pub frames_in: u64,
    /// Their payloads' bytes.
    pub bytes_in: u64,
}

#[derive(Default)]
struct Counters {
    frames_out: AtomicU64,
    bytes_out: AtomicU64,
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
}

/// Counters for every kind.
pub(super) struct Stats {
    kinds: Vec<Counters>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Stats { kinds: (0..=u8::MAX).map(|_| Counters::default()).collect() }
    }

    pub(super) fn sent(&self, kind: u8, bytes: usize) {
        let counters = &self.kinds[usize::from(kind)];
        counters.frames_out.fetch_add(1, Relaxed);
        counters.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn received(&self, kind: u8, bytes: usize) {
        let counters = &self.kinds[usize::from(kind)];
        counters.frames_in.fetch_add(1, Relaxed);
        counters.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    /// The kinds that were used at all, ascending.
    pub(super) fn read(&self) -> Vec<KindStats> {
        let kinds = (0..=u8::MAX).zip(&self.kinds).map(|(kind, counters)| KindStats {
            kind,
            frames_out: counters.frames_out.load(Relaxed),
            bytes_out: counters.bytes_out.load(Relaxed),
            frames_in: counters.frames_in.load(Relaxed),
            bytes_in: counters.bytes_in.load(Relaxed),
        });
        kinds.filter(|stats| stats.frames_out + stats.frames_in > 0).collect()
    }
}
