//! Three nodes, each with a transport and one replica of the group.

use super::store::Store;
use super::*;
use crate::clock::{self, SystemThreads};
use crate::error::{Code, Error};
use crate::net::memory::MemoryNetwork;
use crate::net::peer::{AddressBook, IncomingFrame, PeerConfig, PeerHandler, PeerIdentity};
use crate::net::{Network, grpc};
use crate::raft::types::LogPayload;
use crate::types::{GridId, Incarnation};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, Raft};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};
use tonic::service::Routes;

const GROUP: GroupId = GroupId(1);
type TestRaft = Raft<TypeConfig, Store>;

/// What all three share: cut-off nodes, and the largest payload of each kind.
#[derive(Default)]
pub(super) struct Wire {
    cut: Mutex<BTreeSet<NodeId>>,
    largest: Mutex<BTreeMap<u8, usize>>,
}

struct Book(Vec<String>);

impl AddressBook for Book {
    fn address_of(&self, node: NodeId) -> Option<String> {
        self.0.get(node.0 as usize - 1).cloned()
    }
}

/// A transport that measures, and fails calls from and to nodes that are cut off.
struct Tapped {
    transport: Arc<PeerTransport>,
    from: NodeId,
    wire: Arc<Wire>,
}

#[async_trait::async_trait]
impl RaftTransport for Tapped {
    async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        group: GroupId,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes> {
        let is_cut = |node| self.wire.cut.lock().expect("lock").contains(&node);
        if is_cut(to) || is_cut(self.from) {
            return Err(Error::new(Code::PeerUnreachable, "cut off"));
        }
        let length = payload.len();
        {
            let mut largest = self.wire.largest.lock().expect("lock");
            largest.entry(kind).and_modify(|most| *most = length.max(*most)).or_insert(length);
        }
        self.transport.call(to, lane, group, kind, payload, deadline).await
    }
}

struct Handler {
    raft: OnceLock<TestRaft>,
    receptions: Receptions,
}

#[async_trait::async_trait]
impl PeerHandler for Handler {
    async fn handle(&self, _from: &PeerIdentity, frame: IncomingFrame) -> Result<Bytes> {
        let raft = self.raft.get().ok_or_else(|| Error::new(Code::NotReady, "not started"))?;
        dispatch(raft, &self.receptions, frame.group, frame.kind, frame.payload).await
    }
}

struct Replica {
    raft: TestRaft,
    store: Store,
}

/// Replicas 1 to 3 on nodes 1 to 3.
pub(super) struct Group {
    replicas: Vec<Replica>,
    wire: Arc<Wire>,
}

/// Polls until it holds; fails after a while.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        clock::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

impl Group {
    pub(super) async fn start(config: RaftNetworkConfig) -> Group {
        let network: Arc<dyn Network> = Arc::new(MemoryNetwork::default());
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(network.listen("m:0").await.expect("listen"));
        }
        let addresses: Vec<String> = listeners.iter().map(|listener| listener.local_addr()).collect();
        let wire = Arc::<Wire>::default();
        let mut replicas = Vec::new();
        for (id, listener) in (1..).zip(listeners) {
            let book = Arc::new(Book(addresses.clone()));
            let me = PeerIdentity {
                grid: Some(GridId(1)),
                node: NodeId(id),
                incarnation: Incarnation(1),
                name: format!("n{id}").into(),
            };
            let me = Arc::new(move || me.clone());
            let transport = PeerTransport::new(me, network.clone(), book, PeerConfig::default());
            let receptions = Receptions::new(ReceptionConfig::default());
            let handler = Arc::new(Handler { raft: OnceLock::new(), receptions });
            let routes = Routes::new(transport.service(handler.clone()));
            clock::spawn(grpc::serve(listener, routes, grpc::GrpcConfig::default(), std::future::pending()));
            let tapped = Arc::new(Tapped { transport, from: NodeId(id), wire: wire.clone() });
            let network = GroupNetwork::new(GROUP, id, tapped, Arc::new(SystemThreads), config.clone());
            let store = Store::default();
            let raft = TestRaft::new(id, raft_config(), network, store.clone(), store.clone()).await.expect("raft");
            assert!(handler.raft.set(raft.clone()).is_ok(), "set once");
            replicas.push(Replica { raft, store });
        }
        let group = Group { replicas, wire };
        let members: BTreeMap<u64, ReplicaNode> = (1..=3).map(|id| (id, ReplicaNode { node: NodeId(id) })).collect();
        group.raft(1).initialize(members).await.expect("initialize");
        eventually("replica 1 leads", || group.leader_seen_by(1) == Some(1)).await;
        group
    }

    pub(super) fn raft(&self, replica: usize) -> &TestRaft {
        &self.replicas[replica - 1].raft
    }

    pub(super) fn store(&self, replica: usize) -> &Store {
        &self.replicas[replica - 1].store
    }

    pub(super) fn leader_seen_by(&self, replica: usize) -> Option<ReplicaId> {
        self.raft(replica).metrics().borrow_watched().current_leader
    }

    pub(super) fn largest(&self, kind: u8) -> usize {
        self.wire.largest.lock().expect("lock").get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn cut(&self, node: u64, on: bool) {
        let mut cut = self.wire.cut.lock().expect("lock");
        if on {
            cut.insert(NodeId(node))
        } else {
            cut.remove(&NodeId(node))
        };
    }

    /// Writes one entry. A fresh leader refuses writes until a majority has answered it.
    pub(super) async fn write(&self, leader: usize, payload: Vec<u8>) {
        let payload = LogPayload(payload.into());
        for _ in 0..1000 {
            let written = self.raft(leader).client_write(payload.clone()).await;
            match written {
                Ok(_) => return,
                Err(error) if error.forward_to_leader().is_some() => clock::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("not written: {error}"),
            }
        }
        panic!("replica {leader} does not lead");
    }

    pub(super) async fn all_have_applied(&self, rows: usize) {
        eventually("all replicas have applied all rows", || {
            self.replicas.iter().all(|replica| replica.store.rows().len() == rows)
        })
        .await;
        let first = self.store(1).rows();
        assert!(self.replicas.iter().all(|replica| replica.store.rows() == first), "the rows differ");
    }

    /// Builds a snapshot and purges the log up to it.
    pub(super) async fn compact(&self, replica: usize) {
        let raft = self.raft(replica);
        let applied = raft.metrics().borrow_watched().last_applied.expect("applied").index;
        raft.trigger().snapshot().await.expect("asked");
        eventually("a snapshot", || {
            raft.metrics().borrow_watched().snapshot.is_some_and(|snapshot| snapshot.index >= applied)
        })
        .await;
        raft.trigger().purge_log(applied).await.expect("asked");
        eventually("the log is purged", || {
            raft.metrics().borrow_watched().purged.is_some_and(|at| at.index >= applied)
        })
        .await;
    }
}

fn raft_config() -> Arc<Config> {
    let config = Config {
        cluster_name: "test".to_owned(),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 500,
        max_in_snapshot_log_to_keep: 0,
        ..Default::default()
    };
    Arc::new(config.validate().expect("valid"))
}
