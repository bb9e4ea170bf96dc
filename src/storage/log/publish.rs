//! After the sync: shows what is durable to the handles, then runs the callbacks.

use super::compose::Verdict;
use super::core::{LogCore, take_back};
use super::format::RECORD_HEAD;
use super::group::{GroupCell, GroupState};
use super::queue::Op;
use super::rebuild::Place;
use super::shared::to_io;
use bytes::Bytes;
use std::sync::Arc;

impl LogCore {
    /// Tells everybody about a batch that is durable.
    pub(super) fn settle(&mut self, ops: Vec<Op>, verdicts: Vec<Verdict>) {
        let base = self.segments.end().offset - self.last_batch_bytes();
        let mut callbacks = Vec::with_capacity(ops.len());
        let (mut entries, mut entry_bytes) = (0, 0);
        for (op, verdict) in ops.into_iter().zip(verdicts) {
            let result = match verdict {
                Verdict::Refused(error) => {
                    take_back(&op);
                    Err(to_io(&error))
                }
                Verdict::Put(at) => {
                    let (count, bytes) = self.publish(&op, base + at as u64);
                    entries += count;
                    entry_bytes += bytes;
                    Ok(())
                }
            };
            if let Op::Append { done, .. }
            | Op::Vote { done, .. }
            | Op::Register { done, .. }
            | Op::Tombstone { done, .. } = op
            {
                callbacks.push((done, result));
            }
        }
        {
            let mut stats = self.shared.stats();
            stats.entries += entries;
            stats.entry_bytes += entry_bytes;
        }
        for (done, result) in callbacks {
            done(result);
        }
    }

    fn last_batch_bytes(&self) -> u64 {
        if self.writer.is_empty() { 0 } else { self.writer.len() as u64 }
    }

    /// Shows a durable request to the handles; answers how many entries and bytes of them it had.
    fn publish(&mut self, op: &Op, at: u64) -> (u64, u64) {
        match op {
            Op::Append { cell, epoch, entries, .. } => return self.publish_entries(cell, *epoch, entries, at),
            Op::Vote { cell, vote, .. } => cell.lock().vote = Some(vote.clone()),
            Op::Truncate { .. } | Op::Purge { .. } => {}
            Op::Register { key, .. } => {
                let new = || Arc::new(GroupCell::new(*key, GroupState::default()));
                let mut roster = self.shared.roster();
                if !roster.damaged.contains(key) {
                    roster.cells.entry(*key).or_insert_with(new).lock().refused = false;
                }
            }
            Op::Tombstone { key, .. } => {
                let mut roster = self.shared.roster();
                roster.damaged.remove(key);
                roster.tombstones.insert(*key);
                if let Some(cell) = roster.cells.remove(key) {
                    *cell.lock() = GroupState { gone: true, ..GroupState::default() };
                }
            }
        }
        (0, 0)
    }

    fn publish_entries(&mut self, cell: &Arc<GroupCell>, epoch: u32, entries: &[(u64, Bytes)], at: u64) -> (u64, u64) {
        let segment = self.segments.current();
        let (mut offset, mut total) = (at as u32, 0);
        let mut state = cell.lock();
        for (index, bytes) in entries {
            let length = bytes.len() as u32;
            if let Some(slot) = state.slot(*index).filter(|slot| slot.epoch == epoch) {
                slot.place = Some(Place { segment, offset, length });
            }
            offset += RECORD_HEAD as u32 + length;
            total += u64::from(length);
        }
        drop(state);
        if let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) {
            self.cache.written(cell.clone(), *first..*last + 1, total);
        }
        (entries.len() as u64, total)
    }
}
