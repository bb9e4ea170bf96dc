//! A replica's state: rows in RAM, in row order, with the fence and the applied index in one
//! piece. `apply` is put and delete, nothing else. Checkpoints and snapshots are fuzzy scans:
//! what decides about entries is taken exactly at the start, rows may be newer (models S).

use super::entry::{Change, PartitionEntry};
use super::fence::Fence;
use super::rows;
use super::snapshot::{Holds, decode_chunk};
use crate::clock::Threads;
use crate::error::{Code, Error, Result};
use crate::raft::{Committed, LogId, Outcome, SnapshotMeta, StoredMembership, term_of};
use crate::storage::backend::{ReplicaKey, Rows, StateBackend};
use crate::types::{SessionId, Slot};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// A scan takes the state's lock for so many rows at a time.
const SCAN_ROWS: usize = 512;

/// What travels with the applied index.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) fence: Fence,
    /// Nothing is served before this index: the end of the scan that the rows came from.
    pub(super) serve_from: u64,
}

#[derive(Default)]
struct State {
    position: Position,
    rows: BTreeMap<Bytes, Bytes>,
    /// Kept answers: (session, number) -> (slot, bytes). An index over `rows`.
    answers: BTreeMap<(SessionId, u64), (Slot, usize)>,
    /// Rows that changed since the last checkpoint, for backends that take changes.
    dirty: BTreeSet<Bytes>,
    bytes: usize,
    /// Log bytes applied since the last checkpoint.
    log_bytes: u64,
}

impl State {
    fn advance(&mut self, log_id: LogId) -> bool {
        self.position.applied = Some(log_id);
        true
    }

    fn apply(&mut self, log_id: &LogId, entry: PartitionEntry, track: bool) -> bool {
        let batch = match entry {
            PartitionEntry::Marker(marker) => return self.position.fence.admit_marker(term_of(log_id), &marker),
            PartitionEntry::Batch(batch) => batch,
        };
        if !self.position.fence.admit_batch(term_of(log_id), &batch) {
            return false;
        }
        for write in batch.writes {
            if track {
                self.dirty.insert(write.row.clone());
            }
            match write.change {
                Change::Put(value) => self.put(write.row, value),
                Change::Drop | Change::Remove { .. } => self.delete(&write.row),
            }
        }
        true
    }

    fn put(&mut self, row: Bytes, value: Bytes) {
        if let Some((slot, session, number)) = rows::parse_answer_row(&row) {
            self.answers.insert((session, number), (slot, value.len()));
        }
        self.bytes += row.len() + value.len();
        let row_len = row.len();
        if let Some(old) = self.rows.insert(row, value) {
            self.bytes -= row_len + old.len();
        }
    }

    fn delete(&mut self, row: &Bytes) {
        if let Some(old) = self.rows.remove(row) {
            self.bytes -= row.len() + old.len();
            if let Some((_, session, number)) = rows::parse_answer_row(row) {
                self.answers.remove(&(session, number));
            }
        }
    }
}

/// One replica's state.
pub struct ReplicaState {
    key: ReplicaKey,
    backend: Arc<dyn StateBackend>,
    pub(super) threads: Arc<dyn Threads>,
    state: RwLock<State>,
    /// The position of the last durable checkpoint.
    checkpoint: Mutex<Option<Position>>,
    /// One checkpoint or installation at a time.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Snapshots that are being sent, or were a short while ago: the log from their start is kept.
    pub(super) holds: Holds,
    applied: watch::Sender<u64>,
}

/// A checkpoint's meta: a version byte, then MessagePack of this.
#[derive(Serialize, Deserialize)]
struct CheckpointMeta {
    applied: Option<LogId>,
    membership: StoredMembership,
    fence: Vec<u8>,
    serve_from: u64,
}

const META_VERSION: u8 = 1;

pub(super) fn encode_meta(position: &Position, scan_end: u64) -> Bytes {
    let meta = CheckpointMeta {
        applied: position.applied,
        membership: position.membership.clone(),
        fence: position.fence.encode().to_vec(),
        serve_from: position.serve_from.max(scan_end),
    };
    let mut out = vec![META_VERSION];
    // Plain data without maps: encoding into memory cannot fail.
    if let Ok(body) = rmp_serde::to_vec_named(&meta) {
        out.extend_from_slice(&body);
    }
    out.into()
}

pub(super) fn decode_meta(bytes: &[u8]) -> Result<Position> {
    let bad = |what: String| Error::new(Code::UnknownFormat, format!("a checkpoint's meta cannot be read: {what}"));
    let body = bytes.strip_prefix(&[META_VERSION]).ok_or_else(|| bad(format!("version {:?}", bytes.first())))?;
    let meta: CheckpointMeta = rmp_serde::from_slice(body).map_err(|error| bad(error.to_string()))?;
    let fence = Fence::decode(&meta.fence)?;
    Ok(Position { applied: meta.applied, membership: meta.membership, fence, serve_from: meta.serve_from })
}

pub(super) fn index_of(log_id: &Option<LogId>) -> u64 {
    log_id.map_or(0, |id| id.index)
}

impl ReplicaState {
    /// The state as its last checkpoint has it; empty if there is none. Blocks: reads the disk.
    ///
    /// # Errors
    /// Damage in the checkpoint.
    pub fn load(key: ReplicaKey, backend: Arc<dyn StateBackend>, threads: Arc<dyn Threads>) -> Result<Arc<Self>> {
        let mut state = State::default();
        let meta = backend.load(key, &mut |row, value| state.put(row, value))?;
        let mut checkpoint = None;
        if let Some(meta) = meta {
            state.position = decode_meta(&meta)?;
            if let Some(ahead) = backend.ahead(key)? {
                state.position.serve_from = state.position.serve_from.max(decode_meta(&ahead)?.serve_from);
            }
            checkpoint = Some(state.position.clone());
        } else if let Some(ahead) = backend.ahead(key)? {
            state.position.serve_from = decode_meta(&ahead)?.serve_from;
        }
        let applied = watch::Sender::new(index_of(&state.position.applied));
        Ok(Arc::new(ReplicaState {
            key,
            backend,
            threads,
            state: RwLock::new(state),
            checkpoint: Mutex::new(checkpoint),
            writing: tokio::sync::Mutex::new(()),
            holds: Holds::default(),
            applied,
        }))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last_checkpoint(&self) -> MutexGuard<'_, Option<Position>> {
        self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row's value.
    pub fn get(&self, row: &[u8]) -> Option<Bytes> {
        self.read().rows.get(row).cloned()
    }

    /// The rows that start with `prefix`, from `after` (exclusive) on, at most `limit`.
    pub fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let state = self.read();
        let range = state.rows.range::<[u8], _>((from, Bound::Unbounded));
        range
            .take_while(|(row, _)| row.starts_with(prefix))
            .take(limit)
            .map(|(row, value)| (row.clone(), value.clone()))
            .collect()
    }

    /// The kept answers: (session, number, slot, bytes).
    pub fn answers(&self) -> Vec<(SessionId, u64, Slot, usize)> {
        let state = self.read();
        state.answers.iter().map(|((session, number), (slot, size))| (*session, *number, *slot, *size)).collect()
    }

    /// The applied index, and every change of it.
    pub fn applied_index(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Whether the applied index has passed the end of the scan that the rows came from.
    pub fn may_serve(&self) -> bool {
        let position = &self.read().position;
        index_of(&position.applied) >= position.serve_from
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
                let mut state = self.write();
                state.position.membership = membership;
                state.advance(log_id)
            }
            Committed::Payload(payload) => {
                let entry = PartitionEntry::decode(payload)?;
                let mut state = self.write();
                let took_effect = state.apply(&log_id, entry, self.backend.takes_changes());
                state.log_bytes += payload.len() as u64;
                state.advance(log_id);
                took_effect
            }
        };
        self.applied.send_replace(log_id.index);
        Ok(Outcome { took_effect, answer: Bytes::new() })
    }

    /// Number of rows, their bytes, and the log bytes applied since the last checkpoint.
    pub fn size(&self) -> (usize, usize, u64) {
        let state = self.read();
        (state.rows.len(), state.bytes, state.log_bytes)
    }

    /// The index from which on the log is kept for replicas that are receiving a snapshot.
    pub fn held_from(&self) -> Option<u64> {
        self.holds.lowest()
    }

    /// The index up to which the last checkpoint makes the log unnecessary.
    pub fn checkpoint_index(&self) -> Option<u64> {
        self.last_checkpoint().as_ref().map(|position| index_of(&position.applied))
    }

    pub(super) fn scan_from(
        &self,
        cursor: Option<&[u8]>,
        max_rows: usize,
        max_bytes: usize,
    ) -> (Vec<(Bytes, Bytes)>, bool) {
        let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let state = self.read();
        for (row, value) in state.rows.range::<[u8], _>((from, Bound::Unbounded)) {
            if taken.len() >= max_rows || bytes >= max_bytes {
                return (taken, false);
            }
            bytes += row.len() + value.len();
            taken.push((row.clone(), value.clone()));
        }
        (taken, true)
    }

    /// The whole checkpoint, on a thread that may block.
    pub(super) fn write_checkpoint(self: &Arc<Self>) -> Result<SnapshotMeta> {
        let (position, dirty, log_bytes) = {
            let mut state = self.write();
            (state.position.clone(), std::mem::take(&mut state.dirty), std::mem::take(&mut state.log_bytes))
        };
        let meta = SnapshotMeta { last_log_id: position.applied, last_membership: position.membership.clone() };
        let first = self.last_checkpoint().is_none();
        let mut encoded = || encode_meta(&position, index_of(&self.read().position.applied));
        let written = if self.backend.takes_changes() && !first {
            let mut changed = dirty.iter().map(|row| (row.clone(), self.get(row)));
            self.backend.checkpoint(self.key, Rows::Changed(&mut changed), &mut encoded)
        } else {
            let mut all = FuzzyScan { state: self, batch: Vec::new().into_iter(), cursor: None, ended: false };
            self.backend.checkpoint(self.key, Rows::All(&mut all), &mut encoded)
        };
        if let Err(error) = written {
            let mut state = self.write();
            state.dirty.extend(dirty);
            state.log_bytes += log_bytes;
            return Err(error);
        }
        *self.last_checkpoint() = Some(position);
        Ok(meta)
    }

    pub(super) fn write_installed(self: &Arc<Self>, chunks: Vec<Bytes>, mut position: Position) -> Result<()> {
        let mut fresh = State::default();
        for chunk in chunks {
            for (row, value) in decode_chunk(chunk)? {
                fresh.put(row, value);
            }
        }
        let scan_end = position.serve_from;
        let mut all = fresh.rows.iter().map(|(row, value)| (row.clone(), value.clone()));
        self.backend.checkpoint(self.key, Rows::All(&mut all), &mut || encode_meta(&position, scan_end))?;
        position.serve_from = scan_end;
        fresh.position = position.clone();
        *self.last_checkpoint() = Some(position);
        let applied = index_of(&fresh.position.applied);
        *self.write() = fresh;
        self.applied.send_replace(applied);
        Ok(())
    }
}

/// All rows in order, taking the state's lock for a few at a time.
struct FuzzyScan<'a> {
    state: &'a ReplicaState,
    batch: std::vec::IntoIter<(Bytes, Bytes)>,
    cursor: Option<Bytes>,
    ended: bool,
}

impl Iterator for FuzzyScan<'_> {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((row, value)) = self.batch.next() {
                self.cursor = Some(row.clone());
                return Some((row, value));
            }
            if self.ended {
                return None;
            }
            let (batch, ended) = self.state.scan_from(self.cursor.as_deref(), SCAN_ROWS, usize::MAX);
            self.batch = batch.into_iter();
            self.ended = ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoints_meta_has_golden_bytes() {
        let position = Position { serve_from: 3, ..Position::default() };
        let meta = encode_meta(&position, 9);
        let text: String = meta.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, GOLDEN_META);
        let read = decode_meta(&meta).expect("decodes");
        assert_eq!((read.serve_from, read.applied, read.fence), (9, None, Fence::default()));
        assert_eq!(decode_meta(b"\x02").expect_err("foreign").code, Code::UnknownFormat);
    }

    const GOLDEN_META: &str = "0184a76170706c696564c0aa6d656d6265727368697082a66c6f675f6964c0aa6d656d6265727368697082a763\
        6f6e6669677390a56e6f64657380a566656e6365dc00110100000000000000000000000000000000aa73657276655f66726f6d09";
}
