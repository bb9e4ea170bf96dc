//! A log and a state machine in memory: just enough for openraft.

use crate::raft::snapshot::{Chunk, SnapshotData, SnapshotSource};
use crate::raft::types::{Entry, EntryPayload, LogId, Outcome, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Default)]
struct State {
    log: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    rows: Vec<Bytes>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<(SnapshotMeta, Rows)>,
    installed: usize,
}

#[derive(Clone, Default)]
pub(super) struct Store(Arc<Mutex<State>>);

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("lock")
    }

    pub(super) fn rows(&self) -> Vec<Bytes> {
        self.state().rows.clone()
    }

    pub(super) fn snapshots_installed(&self) -> usize {
        self.state().installed
    }
}

/// Rows as they were, cut into chunks by index.
#[derive(Clone)]
struct Rows(Vec<Bytes>);

impl SnapshotSource for Rows {
    fn chunk(&self, cursor: Option<&[u8]>, max_bytes: usize) -> crate::error::Result<Chunk> {
        let from = cursor.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")) as usize);
        let (mut at, mut rows) = (from, Vec::new());
        while at < self.0.len() && (rows.is_empty() || rows.len() + self.0[at].len() + 4 <= max_bytes) {
            rows.extend_from_slice(&(self.0[at].len() as u32).to_le_bytes());
            rows.extend_from_slice(&self.0[at]);
            at += 1;
        }
        let next = (at < self.0.len()).then(|| Bytes::copy_from_slice(&(at as u64).to_le_bytes()));
        Ok(Chunk { rows: rows.into(), next })
    }

    fn trailer(&self) -> Bytes {
        Bytes::from(format!("{} rows", self.0.len()))
    }
}

fn rows_of(chunks: Vec<Bytes>) -> Vec<Bytes> {
    let mut rows = Vec::new();
    for mut chunk in chunks {
        while !chunk.is_empty() {
            let length = u32::from_le_bytes(chunk.split_to(4).as_ref().try_into().expect("4 bytes"));
            rows.push(chunk.split_to(length as usize));
        }
    }
    rows
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.state().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.state().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.state();
        let last = state.log.values().next_back().map(|entry| entry.log_id).or(state.purged);
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.state().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.state().log.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.state().log.retain(|index, _| last.is_some_and(|last| *index <= last.index));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let mut state = self.state();
        state.purged = Some(log_id);
        state.log.retain(|index, _| *index > log_id.index);
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Store {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let mut state = self.state();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        let rows = Rows(state.rows.clone());
        state.snapshot = Some((meta.clone(), rows.clone()));
        Ok(openraft::Snapshot { meta, snapshot: SnapshotData::Source(Arc::new(rows)) })
    }
}

impl RaftStateMachine<TypeConfig> for Store {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Store;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let mut state = self.state();
            state.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(payload) => state.rows.push(payload.0),
                EntryPayload::Membership(membership) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            if let Some(responder) = responder {
                responder.send(Outcome { took_effect: true, answer: Bytes::new() });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Store {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        let SnapshotData::Received { pieces, trailer } = data else { return Err(io::ErrorKind::InvalidInput.into()) };
        let chunks = pieces.iter().collect::<crate::error::Result<_>>().map_err(io::Error::other)?;
        let rows = rows_of(chunks);
        assert_eq!(trailer, format!("{} rows", rows.len()));
        let mut state = self.state();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some((meta.clone(), Rows(rows.clone())));
        state.rows = rows;
        state.installed += 1;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        let snapshot = self.state().snapshot.clone();
        Ok(snapshot.map(|(meta, rows)| openraft::Snapshot { meta, snapshot: SnapshotData::Source(Arc::new(rows)) }))
    }
}
