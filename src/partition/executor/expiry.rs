//! What a run does about time: it deletes what has expired, at the start of a turn and when
//! somebody looked for it, and wakes when the next entry's time comes although nobody asks.
//!
//! A deletion travels in a batch like any other, and each batch carries the time. So whoever was
//! not shown an expired entry is answered only when the time that hid it is committed.

use super::super::entry::{RemovalCause, RowWrite};
use super::super::expiry::is_expired;
use super::count;
use super::run::Run;
use super::turn::Turn;
use bytes::Bytes;
use std::time::Duration;

/// Expired entries that a turn looks through, at most.
const DUE_ROWS: usize = 1_024;

/// A run looks at the wall clock again after this time, however far the next expiry is: the
/// clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

impl Run {
    /// Deletes entries whose time has come, the oldest first. Rows of batches on their way are
    /// not in the index yet, so the next time waits for those that this one touched.
    pub(super) fn expire_due(&mut self, turn: &mut Turn) {
        if self.expiry_after > self.effective {
            return;
        }
        let due = self.replica.expired(self.view.now_ms(), DUE_ROWS);
        if due.is_empty() {
            return;
        }
        self.expiry_after = self.next - 1;
        for row in due {
            if turn.bytes >= self.config.max_batch_bytes / 2 {
                break;
            }
            if self.expire(turn, row) {
                self.expiry_after = self.next;
            }
        }
    }

    /// Deletes the expired entries that somebody looked for, and that nobody wrote meanwhile.
    pub(super) fn bury(&mut self, turn: &mut Turn) {
        for row in self.view.take_hidden() {
            self.expire(turn, row);
        }
    }

    /// Deletes an entry if it has expired.
    fn expire(&mut self, turn: &mut Turn, row: Bytes) -> bool {
        let expired = self.view.expiry(&row).is_some_and(|at| is_expired(at, self.view.now_ms()));
        if expired {
            self.revision += 1;
            count(&self.stats.expired);
            self.put(turn, RowWrite::remove(row, self.revision, RemovalCause::Expired));
        }
        expired
    }

    /// How long until an entry expires; `None` when there is nothing to wake for.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        if self.expiry_after > self.effective {
            // Verdicts are on their way; then there is more to know.
            return None;
        }
        let now_ms = self.time.ms().max(self.clock.unix_ms());
        let wait = self.replica.next_expiry()?.saturating_sub(now_ms);
        Some(Duration::from_millis(wait).min(LONGEST_SLEEP))
    }
}

/// Sleeps; for ever when there is nothing to wake for.
pub(super) async fn sleep_until_due(wait: Option<Duration>) {
    match wait {
        Some(wait) if wait.is_zero() => {}
        Some(wait) => crate::clock::sleep(wait).await,
        None => std::future::pending().await,
    }
}
