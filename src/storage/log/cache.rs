//! Which entries stay in RAM: the latest so many bytes that were appended, of whatever group. The
//! log thread keeps the order; an entry's bytes lie in its group's slot.

use super::group::GroupCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// The entries in RAM, oldest first.
pub(super) struct Cache {
    limit: u64,
    bytes: u64,
    order: VecDeque<(Arc<GroupCell>, Range<u64>, u64)>,
}

impl Cache {
    pub(super) fn new(limit: u64) -> Cache {
        Cache { limit, bytes: 0, order: VecDeque::new() }
    }

    /// Notes entries that are now on disk too.
    pub(super) fn written(&mut self, cell: Arc<GroupCell>, entries: Range<u64>, bytes: u64) {
        self.bytes += bytes;
        self.order.push_back((cell, entries, bytes));
    }

    /// Drops the oldest from RAM until the rest fits. Entries that were cut or purged meanwhile
    /// count until their turn comes.
    pub(super) fn evict(&mut self) {
        while self.bytes > self.limit {
            let Some((cell, entries, bytes)) = self.order.pop_front() else { return };
            self.bytes -= bytes;
            let mut state = cell.lock();
            for index in entries {
                if let Some(slot) = state.slot(index)
                    && slot.place.is_some()
                {
                    slot.bytes = None;
                }
            }
        }
    }
}
