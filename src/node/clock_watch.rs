//! Compares this node's wall clock with the other members': an offset is reported, and at
//! [`MAX_AHEAD_MS`] the peer is unfit to lead (DESIGN section 3, "Time is a row").

use super::status::Status;
use crate::clock;
use crate::error::Code;
use crate::types::{MAX_AHEAD_MS, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Between two comparisons.
const PERIOD: Duration = Duration::from_secs(5);
/// From this offset on it is reported, in milliseconds.
const REPORT_MS: i64 = 500;

/// Watches the wall clock.
pub struct ClockWatch {
    status: Arc<Status>,
    offset_ms: AtomicI64,
}

impl ClockWatch {
    /// Has compared nothing yet.
    pub fn new(status: Arc<Status>) -> Self {
        ClockWatch { status, offset_ms: AtomicI64::new(0) }
    }

    /// How far the own clock was ahead of the members' median at the last comparison.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    /// Whether the clock is too far off to lead.
    pub fn is_unfit(&self) -> bool {
        self.offset_ms().unsigned_abs() >= MAX_AHEAD_MS
    }

    /// Whether another node says that it is fit to lead; one that says nothing is not.
    pub async fn says_fit(&self, node: NodeId) -> bool {
        self.status.report_of(node).await.is_some_and(|report| report.trouble.is_none())
    }

    /// Works until it is dropped.
    pub async fn work(&self) {
        let mut tick = clock::interval(PERIOD);
        loop {
            tick.tick().await;
            let offset = offset(self.status.clock_offsets().await);
            self.offset_ms.store(offset, Ordering::Relaxed);
            if offset.abs() >= REPORT_MS {
                let code = Code::ClockAhead;
                tracing::warn!(%code, offset_ms = offset, limit_ms = MAX_AHEAD_MS,
                    "this peer's clock differs from the members' median; set it: from the limit on it leads nothing");
            }
        }
    }
}

/// How far the own clock is ahead of the median of all, given how far each other clock is ahead of
/// the own one. With an even number the median that is nearer to the own clock counts.
fn offset(mut others_ahead: Vec<i64>) -> i64 {
    others_ahead.push(0);
    others_ahead.sort_unstable();
    let (low, high) = (others_ahead[(others_ahead.len() - 1) / 2], others_ahead[others_ahead.len() / 2]);
    if low.abs() <= high.abs() { -low } else { -high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_a_minority_of_wrong_clocks() {
        assert_eq!(offset(vec![]), 0);
        assert_eq!(offset(vec![5, 900_000]), -5);
        assert_eq!(offset(vec![-20_000, -20_010]), 20_000);
        assert_eq!(offset(vec![20_000]), 0, "of two clocks nobody knows which is right");
    }
}
