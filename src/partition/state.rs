//! A replica's state in one piece: rows, their indexes, the fence and the applied index, which
//! change together. In: committed entries. Out: verdicts. `apply` is put and delete, nothing
//! else. Pure: it takes no lock and reads no disk.

use super::cells::{RowKey, Table};
use super::checkpoint::Position;
use super::entry::{Change, PartitionEntry};
use super::indexes::Indexes;
use crate::raft::{LogId, term_of};
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct State {
    pub(super) position: Position,
    pub(super) rows: Table,
    pub(super) indexes: Indexes,
    /// Rows that changed since the last checkpoint, for backends that take changes.
    pub(super) dirty: BTreeSet<RowKey>,
    /// Log bytes applied since the last checkpoint.
    pub(super) log_bytes: u64,
}

impl State {
    pub(super) fn advance(&mut self, log_id: LogId) -> bool {
        self.position.applied = Some(log_id);
        true
    }

    pub(super) fn apply(&mut self, log_id: &LogId, entry: PartitionEntry, track: bool) -> bool {
        let batch = match entry {
            PartitionEntry::Marker(marker) => return self.position.fence.admit_marker(term_of(log_id), &marker),
            PartitionEntry::Batch(batch) => batch,
        };
        if !self.position.fence.admit_batch(term_of(log_id), &batch) {
            return false;
        }
        for write in batch.writes {
            if track {
                self.dirty.insert(RowKey::new(&write.row));
            }
            match write.change {
                Change::Put(value) => self.put(&write.row, &value),
                Change::Drop | Change::Remove { .. } => self.delete(&write.row),
            }
        }
        true
    }

    pub(super) fn put(&mut self, row: &[u8], value: &[u8]) {
        let expires_ms = Indexes::expiry_of(row, value);
        let before = self.rows.put(row, value, expires_ms);
        self.indexes.on_put(row, value, expires_ms, before);
    }

    fn delete(&mut self, row: &[u8]) {
        if let Some(before) = self.rows.delete(row) {
            self.indexes.on_delete(row, before);
        }
    }
}
