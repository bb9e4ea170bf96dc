//! openraft's own storage suite over the shared log, with the smallest state machine that passes.

use super::*;
use crate::clock::SystemThreads;
use crate::raft::{Outcome, SnapshotMeta, StoredMembership};
use crate::storage::disk::StdDisk;
use crate::storage::log::{LogConfig, SharedLog};
use crate::types::GroupId;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use std::sync::Arc;

/// Remembers only what it has applied.
#[derive(Clone, Default)]
struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Arc<std::sync::Mutex<Option<SnapshotMeta>>>,
}

type MachineSnapshot = openraft::alias::SnapshotOf<TypeConfig, ()>;

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<MachineSnapshot, io::Error> {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        *self.snapshot.lock().expect("lock") = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Outcome { took_effect: true, answer: Bytes::new() });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        *self.snapshot.lock().expect("lock") = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<MachineSnapshot>, io::Error> {
        let held = self.snapshot.lock().expect("lock").clone();
        Ok(held.map(|meta| Snapshot { meta, snapshot: () }))
    }
}

fn open(dir: &tempfile::TempDir) -> SharedLog {
    let config = LogConfig { segment_bytes: 4096, cache_bytes: 512, prepare_bytes: 1000, ..LogConfig::default() };
    let (log, recovery) =
        SharedLog::open(Arc::new(StdDisk), Arc::new(SystemThreads), dir.path(), config).expect("opens");
    assert!(recovery.damaged.is_empty() && !recovery.votes_lost, "{recovery:?}");
    log
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("directory");
        let log = open(&dir).register(GroupId(1), 7).await.expect("registers");
        Ok((dir, LogStore::new(log), Machine::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

fn entries(term: u64, indexes: std::ops::Range<u64>, size: usize) -> Vec<Entry> {
    let payload = || openraft::EntryPayload::Normal(crate::raft::LogPayload(vec![7; size].into()));
    indexes.map(|index| Entry { log_id: LogId::new_term_index(term, index), payload: payload() }).collect()
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    store
        .log
        .append(
            entries.iter().map(|entry| (entry.index(), encode_entry(entry).expect("encodes"))).collect(),
            move |result| sender.send(result).expect("waits"),
        )
        .await
        .expect("appends");
    receiver.await.expect("calls back").expect("durable");
}

#[tokio::test]
async fn a_store_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().expect("directory");
    let vote = Vote { leader_id: crate::raft::LeaderId { term: 4, voted_for: 7 }, committed: true };
    {
        let log = open(&dir);
        let mut store = LogStore::new(log.register(GroupId(1), 7).await.expect("registers"));
        append(&mut store, entries(3, 0..20, 100)).await;
        store.truncate_after(Some(LogId::new_term_index(3, 14))).await.expect("truncates");
        append(&mut store, entries(4, 15..30, 100)).await;
        store.purge(LogId::new_term_index(3, 9)).await.expect("purges");
        store.save_committed(Some(LogId::new_term_index(4, 20))).await.expect("saves");
        store.save_vote(&vote).await.expect("saves");
        log.shutdown().await;
    }
    let log = open(&dir);
    let mut store = LogStore::new(log.group(GroupId(1), 7).expect("is there"));
    let state = store.get_log_state().await.expect("state");
    assert_eq!(state.last_purged_log_id, Some(LogId::new_term_index(3, 9)));
    assert_eq!(state.last_log_id, Some(LogId::new_term_index(4, 29)));
    assert_eq!(store.read_vote().await.expect("vote"), Some(vote));
    assert_eq!(store.read_committed().await.expect("mark"), Some(LogId::new_term_index(4, 20)));
    let expected = [entries(3, 10..15, 100), entries(4, 15..30, 100)].concat();
    assert_eq!(store.try_get_log_entries(..).await.expect("reads"), expected);
}

#[tokio::test]
async fn a_witness_is_told_what_happens_to_log_and_vote() {
    use crate::raft::{Deed, Witness};
    use openraft::storage::RaftLogStorageExt;
    let dir = tempfile::tempdir().expect("directory");
    let told: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let into = told.clone();
    let witness = Witness(Arc::new(move |group, replica, deed: &Deed<'_>| {
        let said = match deed {
            Deed::Appends { at, bytes, voters } => format!("{at:?} {} bytes, {voters:?}", bytes.len() > 10),
            other => format!("{other:?}"),
        };
        into.lock().expect("lock").push(format!("{group} {replica}: {said}"));
    }));
    let log = open(&dir).register(GroupId(1), 7).await.expect("registers");
    let mut store = LogStore::new(log).watched(Watched::new(Some(&witness), GroupId(1), 7));
    store.blocking_append(entries(3, 0..2, 10)).await.expect("appends");
    store
        .save_vote(&Vote { leader_id: crate::raft::LeaderId { term: 4, voted_for: 9 }, committed: false })
        .await
        .expect("saves");
    store.truncate_after(Some(LogId::new_term_index(3, 0))).await.expect("truncates");
    let state = store.get_log_state().await.expect("state");
    assert_eq!(state.last_log_id, Some(LogId::new_term_index(3, 0)));
    let vote = "SavedVote { term: 4, candidate: 9, committed: false }";
    let expected = [
        "1 7: LogPlace { index: 0, term: 3 } true bytes, None".to_owned(),
        "1 7: LogPlace { index: 1, term: 3 } true bytes, None".to_owned(),
        "1 7: Durable(1)".to_owned(),
        format!("1 7: Votes({vote})"),
        "1 7: Truncates(Some(0))".to_owned(),
        format!("1 7: Starts {{ last: Some(LogPlace {{ index: 0, term: 3 }}), vote: Some({vote}) }}"),
    ];
    assert_eq!(*told.lock().expect("lock"), expected);
}

/// As a follower's is whose disk was full when the entries came: it knows that they are committed,
/// and does not have them.
#[tokio::test]
async fn a_committed_mark_without_its_entry_is_none() {
    let dir = tempfile::tempdir().expect("directory");
    let mut store = LogStore::new(open(&dir).register(GroupId(1), 7).await.expect("registers"));
    append(&mut store, entries(3, 0..5, 100)).await;
    for (mark, known) in [((3, 4), true), ((3, 6), false), ((4, 4), false), ((3, 2), true)] {
        let mark = LogId::new_term_index(mark.0, mark.1);
        store.save_committed(Some(mark)).await.expect("saves");
        // It is written along with something else.
        let vote = Vote { leader_id: crate::raft::LeaderId { term: 4, voted_for: mark.index() }, committed: true };
        store.save_vote(&vote).await.expect("saves");
        assert_eq!(store.read_committed().await.expect("reads"), known.then_some(mark));
    }
}

#[tokio::test]
async fn a_limited_read_takes_a_mebibyte_or_one_entry() {
    let dir = tempfile::tempdir().expect("directory");
    let mut store = LogStore::new(open(&dir).register(GroupId(1), 7).await.expect("registers"));
    append(&mut store, entries(1, 0..8, 300 << 10)).await;
    append(&mut store, entries(1, 8..9, 2 << 20)).await;
    assert_eq!(store.limited_get_log_entries(0, 9).await.expect("reads").len(), 3);
    assert_eq!(store.limited_get_log_entries(8, 9).await.expect("reads").len(), 1);
    assert_eq!(store.try_get_log_entries(0..9).await.expect("reads").len(), 9);
}
