//! The tasks that somebody has cancelled, by their ids: what an executor asks before it runs one
//! and before it commits what one did. Bounded: the oldest cancellations are forgotten.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Cancellations that are remembered.
const REMEMBERED: usize = 4096;

#[derive(Default)]
struct Ids {
    known: BTreeSet<u64>,
    in_order: VecDeque<u64>,
}

/// Cancelled tasks.
#[derive(Default)]
pub struct Cancelled {
    ids: Mutex<Ids>,
    changes: watch::Sender<u64>,
}

impl Cancelled {
    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a cancellation. 0 names no task.
    pub fn insert(&self, id: u64) {
        let mut ids = self.ids();
        if id == 0 || !ids.known.insert(id) {
            return;
        }
        ids.in_order.push_back(id);
        if ids.in_order.len() > REMEMBERED
            && let Some(oldest) = ids.in_order.pop_front()
        {
            ids.known.remove(&oldest);
        }
        drop(ids);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Whether a task was cancelled.
    pub fn contains(&self, id: u64) -> bool {
        id != 0 && self.ids().known.contains(&id)
    }

    /// Cancellations so far.
    pub fn count(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Waits until a task is cancelled.
    pub async fn cancelled(&self, id: u64) {
        let mut changes = self.changes.subscribe();
        while !self.contains(id) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_cancellations_are_forgotten() {
        let cancelled = Cancelled::default();
        for id in 0..=REMEMBERED as u64 {
            cancelled.insert(id);
            cancelled.insert(id);
        }
        assert!(!cancelled.contains(0) && cancelled.contains(1));
        cancelled.insert(u64::MAX);
        assert!(!cancelled.contains(1) && cancelled.contains(2) && cancelled.contains(u64::MAX));
        cancelled.cancelled(2).await;
        assert_eq!(cancelled.count(), REMEMBERED as u64 + 1);
    }
}
