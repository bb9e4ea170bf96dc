//! One replica's log as its owner sees it: entries by index, readable as soon as they are
//! appended; vote, committed mark and purge mark. Requests are put into the queue under the
//! replica's lock, so that they are written in the order in which they took effect here.

use super::ReplicaKey;
use super::queue::Op;
use super::read::{self, Wanted};
use super::rebuild::Place;
use super::shared::{Handle, Shared};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// An entry in the index: in RAM, on disk, or both.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) bytes: Option<Bytes>,
    pub(super) place: Option<Place>,
    /// The group's epoch when it was appended: tells it from another at the same index.
    pub(super) epoch: u32,
}

#[derive(Debug, Default)]
pub(super) struct GroupState {
    /// Index of the first slot.
    pub(super) first: u64,
    pub(super) slots: VecDeque<Slot>,
    pub(super) purged: Option<(u64, Bytes)>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    /// Grows with each cut.
    pub(super) epoch: u32,
    /// Given up.
    pub(super) gone: bool,
    /// An append was not written.
    pub(super) refused: bool,
}

/// What a group's log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogExtent {
    /// The last purged index, with its owner's name for it.
    pub purged: Option<(u64, Bytes)>,
    /// The indexes of the entries that are present.
    pub entries: Range<u64>,
}

impl LogExtent {
    /// The last index, present or purged.
    pub fn last(&self) -> Option<u64> {
        if self.entries.is_empty() {
            return self.purged.as_ref().map(|(index, _)| *index);
        }
        Some(self.entries.end - 1)
    }
}

impl GroupState {
    /// The index behind the last slot.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The slot of an index.
    pub(super) fn slot(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn expects(&self, index: u64) -> bool {
        match (&self.purged, self.slots.is_empty()) {
            (_, false) => index == self.end(),
            (Some((purged, _)), true) => index == purged + 1,
            (None, true) => true,
        }
    }

    fn append(&mut self, entries: &[(u64, Bytes)]) {
        if self.slots.is_empty() {
            self.first = entries.first().map_or(self.first, |(index, _)| *index);
        }
        let epoch = self.epoch;
        let slots = entries.iter().map(|(_, bytes)| Slot { bytes: Some(bytes.clone()), place: None, epoch });
        self.slots.extend(slots);
    }

    fn truncate_after(&mut self, after: Option<u64>) {
        let keep = after.map_or(0, |after| (after + 1).saturating_sub(self.first));
        self.slots.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        self.epoch = self.epoch.wrapping_add(1);
    }

    fn purge(&mut self, index: u64, id: Bytes) -> bool {
        if self.purged.as_ref().is_some_and(|(purged, _)| *purged >= index) {
            return false;
        }
        let dead = (index + 1).saturating_sub(self.first).min(self.slots.len() as u64);
        drop(self.slots.drain(..dead as usize));
        self.first = if self.slots.is_empty() { index + 1 } else { self.first.max(index + 1) };
        self.purged = Some((index, id));
        true
    }

    /// Takes back an append that was not written, and all that was put on top of it.
    pub(super) fn take_back(&mut self, from: u64, epoch: u32) {
        self.refused = true;
        let from = from.max(self.first);
        if self.slot(from).is_some_and(|slot| slot.epoch == epoch && slot.place.is_none()) {
            self.slots.truncate((from - self.first) as usize);
        }
    }
}

/// A replica's state, shared by its handles and the log thread.
pub(super) struct GroupCell {
    pub(super) key: ReplicaKey,
    state: Mutex<GroupState>,
}

impl GroupCell {
    pub(super) fn new(key: ReplicaKey, state: GroupState) -> GroupCell {
        GroupCell { key, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log of one replica. A cheap handle. Writes of one replica must come one after another, as
/// Raft makes them; reads may come at any time.
#[derive(Clone)]
pub struct GroupLog {
    cell: Arc<GroupCell>,
    handle: Arc<Handle>,
}

impl GroupLog {
    pub(super) fn new(cell: Arc<GroupCell>, handle: Arc<Handle>) -> GroupLog {
        GroupLog { cell, handle }
    }

    fn shared(&self) -> &Shared {
        self.handle.shared()
    }

    fn lock(&self) -> Result<std::sync::MutexGuard<'_, GroupState>> {
        let state = self.cell.lock();
        match state.gone {
            true => Err(Error::new(Code::CorruptLog, "the replica was given up").at(place(self.cell.key))),
            false => Ok(state),
        }
    }

    /// Appends entries behind the last one. They are readable when this returns; `on_durable` runs
    /// on the log thread after the sync that covers them, or with the error that kept them out:
    /// [`is_disk_full`](super::is_disk_full) tells whether a later try may succeed. In that case
    /// the entries, and any put behind them meanwhile, are gone again. Waits while the queue is full.
    ///
    /// # Errors
    /// A hole between the last entry and the first of these, a log that has ended. `on_durable`
    /// is dropped without being run.
    pub async fn append(
        &self,
        entries: Vec<(u64, Bytes)>,
        on_durable: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<()> {
        let Some((first, _)) = entries.first() else {
            on_durable(Ok(()));
            return Ok(());
        };
        let first = *first;
        let bytes = entries.iter().map(|(_, bytes)| bytes.len() + super::format::RECORD_HEAD).sum();
        if bytes > MAX_APPEND {
            return Err(Error::new(Code::TooLarge, "too many bytes for one append").at(place(self.cell.key)));
        }
        let room = self.shared().reserve(bytes).await?;
        let mut state = match self.lock() {
            Ok(state) => state,
            Err(error) => return self.give_back(room, error),
        };
        let consecutive = entries.iter().zip(first..).all(|((index, _), expected)| *index == expected);
        if !consecutive || !state.expects(first) {
            let what = format!("an append at index {first} leaves a hole or overlaps");
            drop(state);
            return self.give_back(room, Error::internal(what).at(place(self.cell.key)));
        }
        state.append(&entries);
        let epoch = state.epoch;
        let op = Op::Append { cell: self.cell.clone(), epoch, entries, done: Box::new(on_durable) };
        self.shared().push(op, room).inspect_err(|_| state.take_back(first, epoch))
    }

    fn give_back<T>(&self, room: super::queue::Room, error: Error) -> Result<T> {
        self.shared().queue.release(room);
        Err(error)
    }

    /// Saves a vote. It is durable, and [`GroupLog::vote`] answers it, when this returns.
    ///
    /// # Errors
    /// `DiskFull`: the old vote stands. Else the log has ended, and either may be on disk.
    pub async fn save_vote(&self, vote: Bytes) -> Result<()> {
        let room = self.shared().reserve(vote.len()).await?;
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        if let Err(error) = self.lock().map(drop) {
            return self.give_back(room, error);
        }
        let op = Op::Vote { cell: self.cell.clone(), vote, done };
        self.shared().push(op, room)?;
        self.shared().settled(receiver).await
    }

    /// Notes the committed mark; it is written along with the next write of any group.
    pub fn save_committed(&self, committed: Bytes) {
        self.cell.lock().committed = Some(committed.clone());
        self.shared().queue.committed(self.cell.key, committed);
    }

    /// Drops the entries behind an index, or all. Durable before any later append is.
    ///
    /// # Errors
    /// The log has ended.
    pub async fn truncate_after(&self, after: Option<u64>) -> Result<()> {
        let room = self.shared().reserve(0).await?;
        let mut state = self.cell.lock();
        state.truncate_after(after);
        let op = Op::Truncate { key: self.cell.key, after };
        self.shared().push(op, room)
    }

    /// Drops the entries up to an index, which may lie behind the last; `id` is the owner's name
    /// for the entry there. Durable before any later append is.
    ///
    /// # Errors
    /// The log has ended.
    pub async fn purge(&self, index: u64, id: Bytes) -> Result<()> {
        let room = self.shared().reserve(id.len()).await?;
        let mut state = self.cell.lock();
        if !state.purge(index, id.clone()) {
            drop(state);
            self.shared().queue.release(room);
            return Ok(());
        }
        let op = Op::Purge { key: self.cell.key, index, id };
        self.shared().push(op, room)
    }

    /// The entries in a range that are present: at least one if there is one, then as many as
    /// stay within `max_bytes`.
    ///
    /// # Errors
    /// `CorruptLog` names the segment and offset of an entry whose bytes are damaged.
    pub async fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<(u64, Bytes)>> {
        let wanted = {
            let mut state = self.lock()?;
            let range = range.start.max(state.first)..range.end.min(state.end());
            let mut wanted = Vec::with_capacity(range.end.saturating_sub(range.start).min(1024) as usize);
            let mut total = 0usize;
            for index in range {
                let Some(slot) = state.slot(index) else { break };
                let length =
                    slot.bytes.as_ref().map_or(slot.place.map_or(0, |place| place.length as usize), Bytes::len);
                total = total.saturating_add(length);
                if total > max_bytes && !wanted.is_empty() {
                    break;
                }
                wanted.push(Wanted::of(index, slot, &self.shared().files));
            }
            wanted
        };
        read::fetch(self.cell.key, wanted, &self.shared().threads).await
    }

    /// What is there.
    pub fn extent(&self) -> LogExtent {
        let state = self.cell.lock();
        LogExtent { purged: state.purged.clone(), entries: state.first..state.end() }
    }

    /// The last vote that was saved.
    pub fn vote(&self) -> Option<Bytes> {
        self.cell.lock().vote.clone()
    }

    /// The last committed mark that was saved.
    pub fn committed(&self) -> Option<Bytes> {
        self.cell.lock().committed.clone()
    }

    /// Whether an append was not written since the replica was last registered: what its owner
    /// holds for appended may not be here.
    pub fn refused(&self) -> bool {
        self.cell.lock().refused
    }

    /// Whose log it is.
    pub fn key(&self) -> ReplicaKey {
        self.cell.key
    }
}

/// One append's bytes: a batch must stay below 4 GiB and a segment's offsets within 32 bits.
const MAX_APPEND: usize = 1 << 30;

/// How messages name a replica.
pub(super) fn place(key: ReplicaKey) -> String {
    format!("group {}, replica {}", key.0, key.1)
}
