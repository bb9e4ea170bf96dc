//! Checkpoints: a replica's rows and position, made durable in the backend. They are fuzzy scans:
//! what decides about entries is taken exactly at the start, rows may be newer (models S). In: the
//! rows that changed, or a snapshot that was received. Out: the backend's checkpoint, and the
//! position that the log need not replay any more. Runs on threads that may block.

use super::cells::RowKey;
use super::fence::Fence;
use super::replica::ReplicaState;
use super::snapshot::decode_chunk;
use super::state::Filling;
use crate::clock::{ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::planted::{Bug, planted};
use crate::raft::{LogId, SnapshotMeta, StoredMembership};
use crate::storage::backend::Rows;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

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

/// So many entries a replica applies again that takes its applied index for too low.
const AGAIN: u64 = 4;

impl Position {
    /// Where a replica goes on that has loaded this.
    pub(super) fn at_start(mut self) -> Self {
        if let Some(applied) = self.applied.as_mut().filter(|_| planted(Bug::AppliedTooLow)) {
            applied.index = applied.index.saturating_sub(AGAIN);
            self.serve_from = self.serve_from.min(applied.index);
        }
        self
    }
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
    let meta: CheckpointMeta = crate::types::msgpack::from_slice(body).map_err(|error| bad(error.to_string()))?;
    let fence = Fence::decode(&meta.fence)?;
    Ok(Position { applied: meta.applied, membership: meta.membership, fence, serve_from: meta.serve_from })
}

pub(super) fn index_of(log_id: &Option<LogId>) -> u64 {
    log_id.map_or(0, |id| id.index)
}

impl ReplicaState {
    /// A checkpoint that memory asks for: what changed becomes evictable. The group does not hear of
    /// it, so that its log is purged by its own checkpoints alone.
    ///
    /// # Errors
    /// What the disk says; `ShuttingDown` when the replica has stopped.
    pub async fn checkpoint_for_memory(self: &Arc<Self>) -> Result<()> {
        let _one = self.writing.lock().await;
        let state = self.clone();
        run_on(&self.threads, ThreadKind::Backend, move || state.write_checkpoint(false)).await??;
        Ok(())
    }

    /// The whole checkpoint, on a thread that may block. `told`: the group asked for it.
    pub(super) fn write_checkpoint(self: &Arc<Self>, told: bool) -> Result<SnapshotMeta> {
        if self.closed.load(Relaxed) {
            return Err(Error::new(Code::ShuttingDown, "the replica has stopped"));
        }
        let (position, dirty, log_bytes) = {
            let mut state = self.write();
            let log_bytes = if told { std::mem::take(&mut state.log_bytes) } else { 0 };
            (state.position.clone(), state.take_changed(), log_bytes)
        };
        failpoint::reach("checkpoint-before-rows");
        let dirty = dirty.into_sorted();
        let meta = SnapshotMeta { last_log_id: position.applied, last_membership: position.membership.clone() };
        let first = self.last_checkpoint().is_none();
        let mut encoded = || encode_meta(&position, index_of(&self.read().position.applied));
        let written = if self.backend.takes_changes() && !first {
            let mut changed = dirty.iter().map(|row| Ok((row.to_bytes(), self.get(row.as_slice())?)));
            self.backend.checkpoint(self.key, Rows::Changed(&mut changed), &mut encoded)
        } else {
            let mut all = FuzzyScan { state: self, batch: Vec::new().into_iter(), cursor: None, ended: false };
            self.backend.checkpoint(self.key, Rows::All(&mut all), &mut encoded)
        };
        if let Err(error) = written {
            let mut state = self.write();
            state.changed.extend(dirty);
            state.log_bytes += log_bytes;
            self.report(&mut state);
            return Err(error);
        }
        failpoint::reach("checkpoint-after-rows");
        *self.last_checkpoint() = Some(position);
        self.clean(&dirty);
        Ok(meta)
    }

    /// The rows of a checkpoint that has completed are clean, save those that changed again since
    /// it began: what it wrote of them may be an older value.
    fn clean(&self, written: &[RowKey]) {
        let mut rows = written.iter().peekable();
        while rows.peek().is_some() {
            let mut state = self.write();
            for row in rows.by_ref().take(SCAN_ROWS) {
                let now = state.changed.generation();
                state.rows.clean(row, now);
            }
            self.report(&mut state);
        }
    }

    /// Puts a received snapshot in the place of the state. Its rows go into the backend as they
    /// are unpacked, piece by piece; cold rows of the old state cannot be loaded meanwhile.
    pub(super) fn write_installed(
        self: &Arc<Self>,
        pieces: &mut dyn Iterator<Item = Result<Bytes>>,
        position: Position,
    ) -> Result<()> {
        if self.closed.load(Relaxed) {
            return Err(Error::new(Code::ShuttingDown, "the replica has stopped"));
        }
        let _replacing = self.replacing();
        let mut filling = Filling::new(&self.memory, self.evictable);
        let unpacked = Unpacked { pieces, rows: Vec::new().into_iter() };
        let mut all = unpacked.inspect(|row| {
            if let Ok((row, value)) = row {
                filling.add(row, value);
            }
        });
        let scan_end = position.serve_from;
        failpoint::reach("install-before-rows");
        self.backend.checkpoint(self.key, Rows::All(&mut all), &mut || encode_meta(&position, scan_end))?;
        failpoint::reach("install-before-swap");
        let mut fresh = filling.finish();
        fresh.position = position.clone();
        *self.last_checkpoint() = Some(position);
        let applied = index_of(&fresh.position.applied);
        let old = {
            let mut state = self.write();
            fresh.pins = std::mem::take(&mut state.pins);
            fresh.reported = (fresh.reported.0 + state.reported.0, state.reported.1);
            let old = std::mem::replace(&mut *state, fresh);
            self.report(&mut state);
            if let Some(feed) = self.feed() {
                feed.reset(state.revision());
            }
            old
        };
        drop(old);
        failpoint::reach("install-after-swap");
        self.applied.send_replace(applied);
        Ok(())
    }
}

/// The rows of pieces, one after the other; ends with the first error.
struct Unpacked<'a> {
    pieces: &'a mut dyn Iterator<Item = Result<Bytes>>,
    rows: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl Iterator for Unpacked<'_> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            match self.pieces.next()?.and_then(decode_chunk) {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
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
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((row, value)) = self.batch.next() {
                return Some(Ok((row, value)));
            }
            if self.ended {
                return None;
            }
            match self.state.scan_from(self.cursor.as_deref(), SCAN_ROWS, usize::MAX) {
                Ok((batch, next)) => {
                    self.batch = batch.into_iter();
                    self.ended = next.is_none();
                    self.cursor = next;
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
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
