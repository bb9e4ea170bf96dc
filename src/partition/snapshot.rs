//! Checkpoints and snapshots of a replica: the [`Machine`] that a group drives, and the fuzzy scan
//! that is sent to a replica that has fallen behind.

use super::checkpoint::{Position, decode_meta, encode_meta, index_of};
use super::replica::ReplicaState;
use crate::clock::{Instant, ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use crate::raft::{Chunk, Committed, LogId, Machine, Outcome, Pieces, SnapshotMeta, SnapshotSource, StoredMembership};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Rows of a chunk: version (1) | count (4) | per row: row length (4) | row | value length (4) |
/// value. Little-endian.
const CHUNK_VERSION: u8 = 1;

pub(super) fn encode_chunk(rows: &[(Bytes, Bytes)]) -> Bytes {
    let size: usize = rows.iter().map(|(row, value)| 8 + row.len() + value.len()).sum();
    let mut out = BytesMut::with_capacity(5 + size);
    out.put_u8(CHUNK_VERSION);
    out.put_u32_le(rows.len() as u32);
    for (row, value) in rows {
        out.put_u32_le(row.len() as u32);
        out.put_slice(row);
        out.put_u32_le(value.len() as u32);
        out.put_slice(value);
    }
    out.freeze()
}

/// Reads what a [`SnapshotSource`] of ours encoded.
///
/// # Errors
/// `UnknownFormat`, `CorruptRow`.
pub(super) fn decode_chunk(mut chunk: Bytes) -> Result<Vec<(Bytes, Bytes)>> {
    let short = || Error::new(Code::CorruptRow, "a snapshot's chunk ends early");
    let version = chunk.try_get_u8().map_err(|_| short())?;
    if version != CHUNK_VERSION {
        return Err(Error::new(Code::UnknownFormat, format!("a snapshot's chunk has version {version}")));
    }
    let count = chunk.try_get_u32_le().map_err(|_| short())?;
    let mut rows = Vec::with_capacity((count as usize).min(chunk.len() / 8));
    let mut take = || {
        let length = chunk.try_get_u32_le().ok()? as usize;
        (length <= chunk.len()).then(|| chunk.split_to(length))
    };
    for _ in 0..count {
        rows.push((take().ok_or_else(short)?, take().ok_or_else(short)?));
    }
    Ok(rows)
}

/// A replica's state as a group drives it.
pub struct ReplicaMachine(pub Arc<ReplicaState>);

#[async_trait::async_trait]
impl Machine for ReplicaMachine {
    fn apply(&self, log_id: LogId, entry: Committed<'_>) -> Result<Outcome> {
        self.0.apply(log_id, entry)
    }

    fn must_wait(&self) -> bool {
        self.0.memory().is_stalled()
    }

    async fn wait(&self) {
        self.0.memory().wait_for_room().await;
    }

    fn applied(&self) -> (Option<LogId>, StoredMembership) {
        self.0.position()
    }

    async fn checkpoint(&self) -> Result<SnapshotMeta> {
        let _one = self.0.writing.lock().await;
        let state = self.0.clone();
        run_on(&self.0.threads, ThreadKind::Backend, move || state.write_checkpoint(true)).await?
    }

    fn snapshot(&self) -> Option<(SnapshotMeta, Arc<dyn SnapshotSource>)> {
        let position = self.0.last_checkpoint().clone()?;
        let meta = SnapshotMeta { last_log_id: position.applied, last_membership: position.membership.clone() };
        Some((meta, Arc::new(Source { state: self.0.clone(), position, begun: AtomicBool::new(false) })))
    }

    async fn install(&self, meta: SnapshotMeta, pieces: Pieces, trailer: Bytes) -> Result<()> {
        let position = decode_meta(&trailer)?;
        if position.applied != meta.last_log_id {
            return Err(Error::internal("a snapshot's trailer names another log id than the snapshot"));
        }
        let _one = self.0.writing.lock().await;
        let state = self.0.clone();
        let install = move || state.write_installed(&mut pieces.iter(), position);
        run_on(&self.0.threads, ThreadKind::Backend, install).await?
    }
}

/// The log from a snapshot's start is kept until its receiver has installed it, which ends the
/// sending, and for a while longer: from then on the group knows what the receiver has, and keeps
/// the log behind that.
const HOLD_AFTER: Duration = Duration::from_secs(30);

/// The starts of snapshots on their way: (log index, when the sending ended).
#[derive(Default)]
pub(super) struct Holds(Mutex<Vec<(u64, Option<Instant>)>>);

impl Holds {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Option<Instant>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, index: u64) {
        self.all().push((index, None));
    }

    fn end(&self, index: u64) {
        let mut all = self.all();
        if let Some(hold) = all.iter_mut().find(|(at, ended)| *at == index && ended.is_none()) {
            hold.1 = Some(Instant::now());
        }
    }

    pub(super) fn lowest(&self) -> Option<u64> {
        let mut all = self.all();
        all.retain(|(_, ended)| ended.is_none_or(|ended| ended.elapsed() < HOLD_AFTER));
        all.iter().map(|(index, _)| *index).min()
    }
}

/// Scans the present rows as a snapshot at the last checkpoint's log id: whatever was applied
/// since is in the log that the receiver gets next.
struct Source {
    state: Arc<ReplicaState>,
    position: Position,
    begun: AtomicBool,
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.begun.load(Ordering::Relaxed) {
            self.state.holds.end(index_of(&self.position.applied));
        }
    }
}

impl SnapshotSource for Source {
    fn chunk(&self, cursor: Option<&[u8]>, max_bytes: usize) -> Result<Chunk> {
        if !self.begun.swap(true, Ordering::Relaxed) {
            self.state.holds.begin(index_of(&self.position.applied));
        }
        let (rows, next) = self.state.scan_from(cursor, usize::MAX, max_bytes)?;
        Ok(Chunk { rows: encode_chunk(&rows), next })
    }

    fn trailer(&self) -> Bytes {
        encode_meta(&self.position, index_of(&self.state.position().0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_golden_bytes() {
        let rows =
            vec![(Bytes::from_static(b"r"), Bytes::from_static(b"vv")), (Bytes::from_static(b"s"), Bytes::new())];
        let chunk = encode_chunk(&rows);
        assert_eq!(&chunk[..], b"\x01\x02\0\0\0\x01\0\0\0r\x02\0\0\0vv\x01\0\0\0s\0\0\0\0");
        assert_eq!(decode_chunk(chunk.clone()).expect("decodes"), rows);
        for length in 0..chunk.len() {
            assert!(decode_chunk(chunk.slice(..length)).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_hold_ends_a_while_after_the_sending() {
        let holds = Holds::default();
        holds.begin(7);
        holds.begin(5);
        assert_eq!(holds.lowest(), Some(5));
        holds.end(5);
        assert_eq!(holds.lowest(), Some(5), "its receiver may not have passed the scan's end yet");
    }
}
