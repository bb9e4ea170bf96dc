//! What a group says of itself: heartbeats that may be spared, and who has caught up.

use super::*;
use crate::clock::SystemThreads;
use crate::net::peer::Lane;
use crate::raft::network::{GroupNetwork, RaftNetworkConfig, RaftTransport};
use crate::raft::rpc_codec::encode_append_answer;
use crate::raft::{Committed, LogId, Pieces, SnapshotMeta, SnapshotSource, StoredMembership};
use crate::storage::disk::StdDisk;
use crate::storage::log::{LogConfig, SharedLog};
use openraft::raft::AppendEntriesResponse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[test]
fn heartbeats_are_spared_only_where_a_silence_stays_shorter_than_an_election() {
    let config = |heartbeat, election| GroupConfig {
        heartbeat: Duration::from_millis(heartbeat),
        election: (Duration::from_millis(election), Duration::from_millis(election * 2)),
        ..GroupConfig::default()
    };
    for (config, spared) in [
        (GroupConfig::default(), Some(50)),
        (config(100, 201), Some(50)),
        (config(100, 200), None),
        (config(100, 110), None),
    ] {
        let openraft = config.openraft(GroupId(1)).expect("openraft takes it");
        assert_eq!(openraft.heartbeat_min_interval, spared);
    }
}

/// Knows what it has applied, and keeps nothing.
#[derive(Default)]
struct Applied(Mutex<(Option<LogId>, StoredMembership)>);

#[async_trait::async_trait]
impl Machine for Applied {
    fn apply(&self, log_id: LogId, entry: Committed<'_>) -> Result<Outcome> {
        let mut applied = self.0.lock().expect("lock");
        applied.0 = Some(log_id);
        if let Committed::Membership(members) = entry {
            applied.1 = members;
        }
        Ok(Outcome { took_effect: true, answer: Bytes::new() })
    }

    fn applied(&self) -> (Option<LogId>, StoredMembership) {
        self.0.lock().expect("lock").clone()
    }

    async fn checkpoint(&self) -> Result<SnapshotMeta> {
        Err(Error::internal("nothing is kept"))
    }

    fn snapshot(&self) -> Option<(SnapshotMeta, Arc<dyn SnapshotSource>)> {
        None
    }

    async fn install(&self, _: SnapshotMeta, _: Pieces, _: Bytes) -> Result<()> {
        Err(Error::internal("nothing is kept"))
    }
}

/// A peer that is there, and holds no replica of the group until it is told to.
#[derive(Default)]
struct Newcomer {
    holds: AtomicBool,
    refused: AtomicBool,
}

#[async_trait::async_trait]
impl RaftTransport for Newcomer {
    async fn call(&self, _: NodeId, _: Lane, _: GroupId, _: u8, _: Bytes, _: Duration) -> Result<Bytes> {
        if self.holds.load(Relaxed) {
            return Ok(encode_append_answer(&AppendEntriesResponse::Success));
        }
        self.refused.store(true, Relaxed);
        Err(Error::new(Code::NotReady, "this peer holds no replica of the group"))
    }
}

/// Polls until it holds; fails after a while.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        clock::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test]
async fn a_replica_that_has_acknowledged_nothing_has_not_caught_up_with_a_short_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, _) =
        SharedLog::open(Arc::new(StdDisk), Arc::new(SystemThreads), dir.path(), LogConfig::default()).expect("opens");
    let (id, newcomer) = (GroupId(1), Arc::<Newcomer>::default());
    let store = LogStore::new(log.register(id, 1).await.expect("registers"));
    let threads = Arc::new(SystemThreads);
    let network = GroupNetwork::new(id, 1, newcomer.clone(), threads, RaftNetworkConfig::default());
    let machine = Arc::<Applied>::default();
    let group = Group::start(id, 1, &GroupConfig::default(), store, network, machine).await.expect("starts");
    group.initialize([(1, NodeId(1))].into()).await.expect("forms");
    eventually("it leads", || group.leadership().borrow().is_me).await;
    // It leads from its election on; its members may only change once the entry that names them is
    // committed, which is so when the first entry behind it is applied.
    eventually("its members stand", || group.status().applied > 0).await;
    group.add_learner(2, NodeId(2)).await.expect("is added");
    eventually("the newcomer is asked", || newcomer.refused.load(Relaxed)).await;
    let status = group.status();
    assert!(status.settled && status.learners.contains_key(&2), "{status:?}");
    assert_eq!(status.matched.get(&2), Some(&None), "{status:?}");
    assert!(!status.has_caught_up(2) && !status.has_caught_up(3), "{status:?}");
    newcomer.holds.store(true, Relaxed);
    eventually("it catches up", || group.status().has_caught_up(2)).await;
    // What it answered before says nothing of now.
    let (both, patience) = (BTreeSet::from([1, 2]), Duration::from_secs(10));
    assert_eq!(group.hear_from(&both, patience).await, Ok(both.clone()));
    newcomer.holds.store(false, Relaxed);
    newcomer.refused.store(false, Relaxed);
    eventually("it answers no more", || newcomer.refused.load(Relaxed)).await;
    let heard = group.hear_from(&both, Duration::from_millis(300)).await;
    assert_eq!(heard, Ok(BTreeSet::from([1])));
    group.shutdown().await;
}

#[test]
fn a_replica_has_caught_up_when_it_lacks_few_entries() {
    let status = |last_log| GroupStatus { last_log, matched: [(2, Some(36))].into(), ..GroupStatus::default() };
    assert!(status(36).has_caught_up(2) && status(100).has_caught_up(2));
    assert!(!status(101).has_caught_up(2) && !status(36).has_caught_up(3));
}
