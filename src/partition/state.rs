//! A replica's state in one piece: rows, their indexes, the fence and the applied index, which
//! change together. In: committed entries. Out: verdicts. `apply` is put and delete, nothing
//! else. Pure: it takes no lock and reads no disk.

use super::cells::{Cell, RowKey, Table};
use super::changed::Changed;
use super::checkpoint::Position;
use super::entry::{Change, PartitionEntry};
use super::feed::Feed;
use super::indexes::Indexes;
use super::memory::Memory;
use super::rows;
use crate::raft::{LogId, term_of};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct State {
    pub(super) position: Position,
    pub(super) rows: Table,
    pub(super) indexes: Indexes,
    /// Rows that changed since the last checkpoint, for backends that take changes.
    pub(super) dirty: Changed,
    /// Log bytes applied since the group last asked for a checkpoint.
    pub(super) log_bytes: u64,
    /// Rows whose values are being loaded or used: how many hold each. They do not become cold.
    pub(super) pins: BTreeMap<RowKey, u32>,
    /// The RAM that the node's account was last told of: (all, dirty).
    pub(super) reported: (usize, usize),
}

impl State {
    pub(super) fn advance(&mut self, log_id: LogId) -> bool {
        self.position.applied = Some(log_id);
        true
    }

    pub(super) fn apply(&mut self, log_id: &LogId, entry: PartitionEntry, track: bool, feed: Option<&Feed>) -> bool {
        let batch = match entry {
            PartitionEntry::Marker(marker) => return self.position.fence.admit_marker(term_of(log_id), &marker),
            PartitionEntry::Batch(batch) => batch,
        };
        if !self.position.fence.admit_batch(term_of(log_id), &batch) {
            return false;
        }
        if let Some(feed) = feed {
            feed.append(&batch);
        }
        for write in batch.writes {
            if track {
                self.dirty.insert(&write.row);
            }
            match write.change {
                Change::Put(value) => self.put(&write.row, &value, track),
                Change::Drop | Change::Remove { .. } => self.delete(&write.row),
            }
        }
        true
    }

    /// The newest revision that the rows tell of.
    pub(super) fn revision(&self) -> u64 {
        let row = self.rows.get(&rows::partition_row(rows::PartitionRow::Revision)).and_then(Cell::value);
        row.and_then(|row| rows::decode_number(&row)).unwrap_or(0)
    }

    fn put(&mut self, row: &[u8], value: &[u8], dirty: bool) {
        let expires_ms = Indexes::expiry_of(row, value);
        let before = self.rows.put(row, value, expires_ms, dirty);
        self.indexes.on_put(row, value, expires_ms, before);
    }

    /// Bytes of RAM: (all, those of them that must be checkpointed before they can be given back).
    pub(super) fn held(&self) -> (usize, usize) {
        let changed = self.dirty.held();
        (self.rows.held() + changed + self.indexes.held(), self.rows.dirty() + changed)
    }

    fn delete(&mut self, row: &[u8]) {
        if let Some(before) = self.rows.delete(row) {
            self.indexes.on_delete(row, before);
        }
    }
}

/// A state that is filled in row order from a checkpoint or a snapshot. As many values stay in RAM
/// as the node's limit has room for; the others are cold from the start, because the backend has
/// them.
pub(super) struct Filling<'a> {
    memory: &'a Memory,
    evictable: bool,
    rows: Vec<(RowKey, Cell)>,
    indexes: Indexes,
    held: usize,
}

impl<'a> Filling<'a> {
    pub(super) fn new(memory: &'a Memory, evictable: bool) -> Self {
        Filling { memory, evictable, rows: Vec::new(), indexes: Indexes::default(), held: 0 }
    }

    pub(super) fn add(&mut self, row: &[u8], value: &[u8]) {
        let expires_ms = Indexes::expiry_of(row, value);
        self.indexes.on_put(row, value, expires_ms, None);
        let resident = !self.evictable || self.memory.has_room_for(self.held) || rows::is_partition_wide(row);
        self.held += Table::cost(row, value, resident);
        self.rows.push((RowKey::new(row), Table::clean_cell(value, expires_ms, resident)));
    }

    pub(super) fn finish(self) -> State {
        State { rows: Table::from_sorted(self.rows), indexes: self.indexes, ..State::default() }
    }
}
