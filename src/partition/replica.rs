//! A replica's state, shared: the lock around it, reads, and the applying of committed entries.
//! In: entries from the log. Out: rows to whoever reads, verdicts to the group. Checkpoints and
//! snapshots are made beside it, a few rows at a time.

use super::cells::{Cell, RowKey};
use super::checkpoint::{Position, decode_meta, index_of};
use super::entry::PartitionEntry;
use super::feed::Feed;
use super::indexes::MapSize;
use super::memory::Memory;
use super::rows;
use super::sessions::KeptAnswer;
use super::snapshot::Holds;
use super::state::{Filling, State};
use crate::clock::Threads;
use crate::error::Result;
use crate::failpoint;
use crate::planted::{Bug, planted};
use crate::raft::{Committed, LogId, Outcome, StoredMembership};
use crate::storage::backend::{ReplicaKey, StateBackend};
use crate::types::{GroupId, MapId, SLOTS};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// Rows with their values, and where to go on.
type Scanned = (Vec<(Bytes, Bytes)>, Option<Bytes>);

/// One replica's state.
pub struct ReplicaState {
    pub(super) key: ReplicaKey,
    pub(super) backend: Arc<dyn StateBackend>,
    pub(super) threads: Arc<dyn Threads>,
    state: RwLock<State>,
    /// The position of the last durable checkpoint.
    checkpoint: Mutex<Option<Position>>,
    /// One checkpoint or installation at a time.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Snapshots that are being sent, or were a short while ago: the log from their start is kept.
    pub(super) holds: Holds,
    pub(super) applied: watch::Sender<u64>,
    pub(super) memory: Arc<Memory>,
    /// Whether values may be left to the backend.
    pub(super) evictable: bool,
    /// Values are loaded while this is held for reading; a snapshot takes the rows' place while it
    /// is held for writing.
    pub(super) installing: RwLock<()>,
    /// The replica has stopped: nothing is written to the backend any more.
    pub(super) closed: AtomicBool,
    /// The last changes, for those who follow them; none in the meta group.
    feed: OnceLock<Arc<Feed>>,
}

impl Drop for ReplicaState {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (held, dirty) = std::mem::take(&mut state.reported);
        self.memory.account(held, 0);
        self.memory.account_dirty(dirty, 0);
    }
}

impl ReplicaState {
    /// The state as its last checkpoint has it; empty if there is none. Blocks: reads the disk.
    ///
    /// # Errors
    /// Damage in the checkpoint.
    pub fn load(
        key: ReplicaKey,
        backend: Arc<dyn StateBackend>,
        threads: Arc<dyn Threads>,
        memory: Arc<Memory>,
    ) -> Result<Arc<Self>> {
        // The meta group's rows are read whole at every change: they stay in RAM.
        let evictable = backend.serves_rows() && memory.limit().is_some() && key.group != GroupId::META;
        let mut filling = Filling::new(&memory, evictable);
        let meta = backend.load(key, &mut |row, value| filling.add(&row, &value))?;
        let whole = meta.is_some();
        let mut position = meta.map_or_else(|| Ok(Position::default()), |meta| decode_meta(&meta))?;
        if let Some(ahead) = backend.ahead(key)? {
            position.serve_from = position.serve_from.max(decode_meta(&ahead)?.serve_from);
        }
        let checkpoint = whole.then(|| position.clone());
        let mut state = filling.finish();
        state.position = position.at_start();
        let applied = watch::Sender::new(index_of(&state.position.applied));
        let loaded = Arc::new(ReplicaState {
            key,
            backend,
            threads,
            state: RwLock::new(state),
            checkpoint: Mutex::new(checkpoint),
            writing: tokio::sync::Mutex::new(()),
            holds: Holds::default(),
            applied,
            memory,
            evictable,
            installing: RwLock::new(()),
            closed: AtomicBool::new(false),
            feed: OnceLock::new(),
        });
        loaded.report(&mut loaded.write());
        loaded.memory.register(key, &loaded);
        Ok(loaded)
    }

    /// Tells the node's account what the state holds now.
    pub(super) fn report(&self, state: &mut State) {
        let now = state.held();
        let before = std::mem::replace(&mut state.reported, now);
        self.memory.account(before.0, now.0);
        self.memory.account_dirty(before.1, now.1);
    }

    /// Waits for a checkpoint under way, and lets no other begin: the replica has stopped here.
    pub async fn close(&self) {
        let _one = self.writing.lock().await;
        self.closed.store(true, Relaxed);
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last_checkpoint(&self) -> MutexGuard<'_, Option<Position>> {
        self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the state a feed: what is applied from now on goes into it. Once, before the group
    /// starts.
    pub fn keep_feed(&self, feed: Arc<Feed>) {
        feed.reset(self.read().revision());
        // Set once; a second one would be a bug and is ignored.
        let _ = self.feed.set(feed);
    }

    /// The last changes, for those who follow them.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        self.feed.get()
    }

    /// Whether reads may wait for the backend.
    pub fn may_block(&self) -> bool {
        self.evictable
    }

    /// A row's value. Blocks when it is cold: see [`ReplicaState::warm`].
    ///
    /// # Errors
    /// When the value is not in RAM and cannot be read from the backend.
    pub fn get(&self, row: &[u8]) -> Result<Option<Bytes>> {
        match self.read().rows.get(row).map(Cell::value) {
            None => return Ok(None),
            Some(Some(value)) => return Ok(Some(value)),
            Some(None) => {}
        }
        self.get_cold(row)
    }

    /// When a row that is there expires (0: never); never reads the backend.
    pub fn expiry(&self, row: &[u8]) -> Option<u64> {
        self.read().rows.get(row).map(|cell| cell.expires_ms)
    }

    /// The length of a row's value; never reads the backend.
    pub(super) fn row_len(&self, row: &[u8]) -> Option<usize> {
        self.read().rows.get(row).map(Cell::len)
    }

    /// What there is of a map with these rows laid over it, at one moment.
    pub(super) fn map_size_with<'a>(
        &self,
        map: MapId,
        over: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>,
    ) -> MapSize {
        let state = self.read();
        let mut size = state.indexes.map_size(map);
        for (row, value) in over.filter(|(row, _)| rows::map_of(row) == Some(map)) {
            let before = state.rows.get(row).map(Cell::len);
            size = size.with(row.len(), before, value.map(Bytes::len));
        }
        size
    }

    /// Some rows of a map, at most `limit`: from a slot on that `chance` decides, then the others.
    pub(super) fn some_rows(&self, map: MapId, chance: u64, limit: usize) -> Vec<Bytes> {
        let state = self.read();
        let slot_from = |slot: u16| {
            let from = slot.to_be_bytes();
            state.rows.range(Bound::Included(&from[..])).next().and_then(|(row, _)| rows::slot_of_row(row.as_slice()))
        };
        let Some(first) = slot_from(0) else { return Vec::new() };
        let begin = first.0 + (chance % u64::from(SLOTS - first.0)) as u16;
        let begin = slot_from(begin).unwrap_or(first);
        let mut found = Vec::new();
        for from in [begin, first] {
            let mut slot = Some(from);
            while let Some(at) = slot {
                let prefix = rows::map_prefix(at, map, b"");
                let of_slot = state.rows.range(Bound::Included(&prefix)).map(|(row, _)| row.as_slice());
                let of_slot = of_slot.take_while(|row| row.starts_with(&prefix)).take(limit - found.len());
                found.extend(of_slot.map(Bytes::copy_from_slice));
                slot = slot_from(at.0 + 1).filter(|_| found.len() < limit);
            }
        }
        found
    }

    /// When the next row expires, by the partition's time.
    pub fn next_expiry(&self) -> Option<u64> {
        self.read().indexes.expiry.next()
    }

    /// Rows that have expired at a time, the oldest first, at most `limit`.
    pub(super) fn expired(&self, now_ms: u64, limit: usize) -> Vec<Bytes> {
        self.read().indexes.expiry.due(now_ms, limit)
    }

    /// The partition's time, as far as it is applied here; Unix milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.read().indexes.time_ms
    }

    /// The rows that start with `prefix`, from `after` (exclusive) on, at most `limit`.
    ///
    /// # Errors
    /// As [`ReplicaState::get`].
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut found = Vec::new();
        let mut from = after.map(RowKey::new);
        loop {
            let wanted = limit - found.len();
            let taken = self.take(prefix, from.as_ref(), wanted);
            let full = taken.len() == wanted;
            from = taken.last().map(|(row, _)| row.clone());
            found.extend(self.fill(taken)?);
            // Rows that were deleted while others were loaded leave room for more.
            if !full || found.len() == limit {
                return Ok(found);
            }
        }
    }

    fn take(&self, prefix: &[u8], after: Option<&RowKey>, limit: usize) -> Vec<(RowKey, Option<Bytes>)> {
        let from = match after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(prefix),
        };
        let state = self.read();
        let range = state.rows.range(from);
        let range = range.take_while(|(row, _)| row.as_slice().starts_with(prefix)).take(limit);
        range.map(|(row, cell)| (row.clone(), cell.value())).collect()
    }

    /// The first row at or behind `from`.
    pub fn first_from(&self, from: &[u8]) -> Option<Bytes> {
        self.read().rows.range(Bound::Included(from)).next().map(|(row, _)| row.to_bytes())
    }

    /// The rows that start with `prefix`, from `after` (exclusive) on, at most `limit`, with the
    /// lengths of their values; never reads the backend.
    pub(super) fn lengths(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, usize)> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let state = self.read();
        let range = state.rows.range(from).take_while(|(row, _)| row.as_slice().starts_with(prefix));
        range.take(limit).map(|(row, cell)| (row.to_bytes(), cell.len())).collect()
    }

    /// The kept answers.
    ///
    /// # Errors
    /// As [`ReplicaState::get`].
    pub fn answers(&self) -> Result<Vec<KeptAnswer>> {
        let found: Vec<(Bytes, usize, Option<Bytes>)> = {
            let state = self.read();
            let found = state.rows.answers().map(|(row, cell)| {
                // Only a lot's value is looked at.
                let value = rows::is_partition_wide(row.as_slice()).then(|| cell.value()).flatten();
                (row.to_bytes(), cell.len(), value)
            });
            found.collect()
        };
        let mut answers = Vec::with_capacity(found.len());
        for (row, len, value) in found {
            let value = match value {
                None if rows::is_partition_wide(&row) => self.get(&row)?,
                value => value,
            };
            answers.extend(KeptAnswer::of_row(&row, len, || value));
        }
        Ok(answers)
    }

    /// What there is of a map here; expired entries count until they are deleted.
    pub fn map_size(&self, map: MapId) -> MapSize {
        self.read().indexes.map_size(map)
    }

    /// The maps that have entries here, with their sizes.
    pub fn map_sizes(&self) -> Vec<(MapId, MapSize)> {
        self.read().indexes.map_sizes().collect()
    }

    /// The applied index, and every change of it.
    pub fn applied_index(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The applied index at this moment.
    pub fn applied_now(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Whether the applied index has passed the end of the scan that the rows came from.
    pub fn may_serve(&self) -> bool {
        let position = &self.read().position;
        index_of(&position.applied) >= position.serve_from || planted(Bug::ServeEarly)
    }

    /// The applied log id and the membership in force there.
    pub(super) fn position(&self) -> (Option<LogId>, StoredMembership) {
        let state = self.read();
        (state.position.applied, state.position.membership.clone())
    }

    /// Applies a committed entry: put and delete, nothing else.
    ///
    /// # Errors
    /// When the entry cannot be understood.
    pub(super) fn apply(&self, log_id: LogId, entry: Committed<'_>) -> Result<Outcome> {
        let took_effect = match entry {
            Committed::Blank => self.write().advance(log_id),
            Committed::Membership(membership) => {
                match membership.membership().get_joint_config().len() {
                    1 => failpoint::reach("apply-uniform"),
                    _ => failpoint::reach("apply-joint"),
                }
                let mut state = self.write();
                state.position.membership = membership;
                state.advance(log_id)
            }
            Committed::Payload(payload) => {
                failpoint::reach("apply-before");
                let entry = PartitionEntry::decode(payload)?;
                let mut state = self.write();
                let took_effect =
                    state.apply(&log_id, entry, self.backend.takes_changes(), self.feed().map(|feed| &**feed));
                state.log_bytes += payload.len() as u64;
                self.report(&mut state);
                state.advance(log_id);
                took_effect
            }
        };
        self.applied.send_if_modified(|applied| {
            *applied = log_id.index;
            // Waking costs even when nobody waits. Who begins to watch now sees the new index.
            self.applied.receiver_count() > 0
        });
        failpoint::reach("apply-after");
        Ok(Outcome { took_effect, answer: Bytes::new() })
    }

    /// Number of rows, their bytes, and the log bytes applied since the last checkpoint.
    pub fn size(&self) -> (usize, usize, u64) {
        let state = self.read();
        (state.rows.len(), state.rows.bytes(), state.log_bytes)
    }

    /// Bytes of RAM that the state takes, overheads included.
    pub fn held_bytes(&self) -> usize {
        self.read().held().0
    }

    /// The node's account of memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The index from which on the log is kept for replicas that are receiving a snapshot.
    pub fn held_from(&self) -> Option<u64> {
        self.holds.lowest()
    }

    /// The index up to which the last checkpoint makes the log unnecessary.
    pub fn checkpoint_index(&self) -> Option<u64> {
        self.last_checkpoint().as_ref().map(|position| index_of(&position.applied))
    }

    /// The rows after `cursor`, and where to go on; `None` after the last. Blocks for cold ones,
    /// and does not keep them in RAM.
    pub(super) fn scan_from(&self, cursor: Option<&[u8]>, max_rows: usize, max_bytes: usize) -> Result<Scanned> {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut taken, mut bytes, mut next) = (Vec::<(RowKey, _)>::new(), 0, None);
        {
            let state = self.read();
            for (row, cell) in state.rows.range(from) {
                if taken.len() >= max_rows || bytes >= max_bytes {
                    next = taken.last().map(|(row, _)| row.to_bytes());
                    break;
                }
                bytes += row.as_slice().len() + cell.len();
                taken.push((row.clone(), cell.peek()));
            }
        }
        Ok((self.fill(taken)?, next))
    }
}
