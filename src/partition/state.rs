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
    pub(super) changed: Changed,
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
            match write.change {
                Change::Put(value) => self.put(&write.row, &value, track),
                Change::Drop | Change::Remove { .. } => self.delete(&write.row, track),
            }
        }
        true
    }

    /// The newest revision that the rows tell of.
    pub(super) fn revision(&self) -> u64 {
        let row = self.rows.get(&rows::partition_row(rows::PartitionRow::Revision)).and_then(Cell::value);
        row.and_then(|row| rows::decode_number(&row)).unwrap_or(0)
    }

    fn put(&mut self, row: &[u8], value: &[u8], track: bool) {
        let expires_ms = Indexes::expiry_of(row, value);
        let before = self.rows.put(row, value, expires_ms, if track { self.changed.generation() } else { 0 });
        if track {
            self.changed.put(row, before.map(|before| before.changed_in));
        }
        self.indexes.on_put(row, value, expires_ms, before);
    }

    /// The rows that changed since this was last called, for a checkpoint that begins.
    pub(super) fn take_changed(&mut self) -> Changed {
        let (taken, next) = self.changed.take();
        if next.is_none() {
            self.rows.forget_generations();
        }
        taken
    }

    /// Bytes of RAM: (all, those of them that must be checkpointed before they can be given back).
    pub(super) fn held(&self) -> (usize, usize) {
        let changed = self.changed.held();
        (self.rows.held() + changed + self.indexes.held(), self.rows.dirty() + changed)
    }

    fn delete(&mut self, row: &[u8], track: bool) {
        if let Some(before) = self.rows.delete(row) {
            if track {
                self.changed.delete(row);
            }
            self.indexes.on_delete(row, before);
        }
    }
}

/// A state that is filled in row order from a checkpoint or a snapshot. As many values stay in RAM
/// as the node's limit has room for; the others are cold from the start, because the backend has
/// them. Several are filled at a time, so each tells the account as it grows.
pub(super) struct Filling<'a> {
    memory: &'a Memory,
    evictable: bool,
    rows: Vec<(RowKey, Cell)>,
    indexes: Indexes,
    held: usize,
    /// Of `held`, what the account knows.
    told: usize,
}

/// The account is told of a state that is filled whenever it has grown by so much.
const TELL_EVERY: usize = 64 << 10;

impl<'a> Filling<'a> {
    pub(super) fn new(memory: &'a Memory, evictable: bool) -> Self {
        Filling { memory, evictable, rows: Vec::new(), indexes: Indexes::default(), held: 0, told: 0 }
    }

    pub(super) fn add(&mut self, row: &[u8], value: &[u8]) {
        let expires_ms = Indexes::expiry_of(row, value);
        self.indexes.on_put(row, value, expires_ms, None);
        let untold = self.held - self.told;
        let resident = !self.evictable || self.memory.has_room_for(untold) || rows::is_partition_wide(row);
        self.held += Table::cost(row, value, resident);
        self.rows.push((RowKey::new(row), Table::clean_cell(value, expires_ms, resident)));
        if self.held - self.told >= TELL_EVERY {
            self.memory.account(self.told, self.held);
            self.told = self.held;
        }
    }

    /// The state, which has taken over what the account was told.
    pub(super) fn finish(mut self) -> State {
        State {
            rows: Table::from_sorted(std::mem::take(&mut self.rows)),
            indexes: std::mem::take(&mut self.indexes),
            reported: (std::mem::take(&mut self.told), 0),
            ..State::default()
        }
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        self.memory.account(self.told, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_are_filled_side_by_side_share_the_room() {
        let memory = Memory::new(Some(1 << 20));
        let mut fillings = [Filling::new(&memory, true), Filling::new(&memory, true)];
        for row in 0..1000u16 {
            fillings.iter_mut().for_each(|filling| filling.add(&rows_key(row), &[0; 1000]));
        }
        let [one, other] = fillings;
        let resident = |state: &State| state.rows.held();
        let (one, told) = (one.finish(), memory.used());
        // Keys stay whatever the room is; values stop at half of the limit.
        let keys = 2 * 1000 * Table::cost(&rows_key(0), &[], false);
        assert!((512 << 10..(512 << 10) + keys + 3 * TELL_EVERY).contains(&(told as usize)), "{told}");
        assert!(resident(&one) - keys / 2 < 256 << 10, "the other took its part: {}", resident(&one));
        drop(other);
        assert_eq!(memory.used(), one.reported.0 as u64, "what is not finished gives back what it took");
    }

    fn rows_key(row: u16) -> [u8; 12] {
        let mut key = [0; 12];
        key[10..].copy_from_slice(&row.to_be_bytes());
        key
    }
}
