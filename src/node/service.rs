//! What the edges see of a peer.

use super::compute_service::ComputeService;
use super::copying::LocalEntry;
use super::watching::WatchStream;
use crate::error::{Error, Result};
use crate::meta::MemberIntent;
use crate::partition::executor::StreamReply;
use crate::types::{
    GridId, GroupId, HybridTime, MapDescriptor, MapId, MapSpec, NodeId, PartitionId, ReplicaId, Reply, Request, Slot,
    WatchRequest,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a member stands, as gossip and the meta group together have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Known and alive.
    Alive,
    /// Known to the meta group, not heard of by gossip.
    Unreachable,
    /// Heard of by gossip, not yet known to the meta group.
    Joining,
    /// Alive, and to hold nothing any more.
    Draining,
    /// To be no member any more: it goes when it holds nothing.
    Removing,
}

/// How a replica stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// It belongs to the partition.
    #[default]
    Holding,
    /// It is catching up, and takes the place of one that leaves.
    Coming,
    /// Another takes its place.
    Leaving,
}

/// A member, as `keystead members --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: NodeId,
    /// Where clients and peers reach it.
    pub address: String,
    /// Its zone, if it names one.
    pub zone: Option<String>,
    /// How it stands.
    pub state: MemberState,
    /// Partitions that it leads, as far as the answering peer knows.
    pub leaders: u32,
    /// Partition replicas that it holds.
    pub replicas: u32,
    /// Why it gives up its leaderships (a full disk, a wrong clock), while it does.
    pub trouble: Option<String>,
    /// The tasks, scatters and jobs that its program registered besides the built-in ones, by name;
    /// `name@version` where the version is not 1.
    pub tasks: Vec<String>,
}

/// One replica of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// Its id in the group.
    pub replica: ReplicaId,
    /// The node that holds it.
    pub node: NodeId,
    /// That node's name.
    pub name: String,
    /// How it stands.
    #[serde(default)]
    pub state: ReplicaState,
}

/// A partition, as `keystead partitions --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Which.
    pub id: PartitionId,
    /// Its first slot.
    pub first_slot: u16,
    /// Its last slot, inclusive.
    pub last_slot: u16,
    /// Name of the node that leads it, if one is known.
    pub leader: Option<String>,
    /// Its replicas, the preferred leader first; while it moves also those that are coming.
    pub replicas: Vec<ReplicaInfo>,
    /// The leader's term, as far as known.
    pub term: u64,
    /// Log index applied at the leader (or at the answering peer, if the leader cannot be asked).
    pub applied: u64,
    /// Rows in its state.
    pub rows: u64,
    /// Replicas that are wanted and missing, or whose node is not alive.
    pub under_replicated: u32,
}

/// Where partitions are led: what a client caches to go straight to the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementTable {
    /// Which grid.
    pub grid: GridId,
    /// Version of the placement in the meta group.
    pub version: u64,
    /// Per partition, ascending: first slot, leader's address (empty if unknown), leader's term.
    pub partitions: Vec<(u16, String, u64)>,
}

/// Where a key lives and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The key as given.
    pub key: String,
    /// The part that decides.
    pub affinity: String,
    /// Its slot.
    pub slot: Slot,
    /// The partition of that slot, with leader, replicas and term.
    pub partition: PartitionInfo,
    /// Sentences that say why it is there.
    pub why: Vec<String>,
}

/// A peer, as the edges see it.
#[async_trait::async_trait]
pub trait GridService: ComputeService {
    /// Executes a request wherever its slot's leader is. `hops` counts the peers it has passed:
    /// at 0 it is forwarded if need be; at 1 the answer is `NotLeader` with the leader named.
    async fn execute(&self, request: Request, hops: u32) -> Result<Reply>;

    /// Takes a request that can be executed here at once, in the order of the calls; its answer
    /// goes to the stream. Names the group that executes it.
    ///
    /// # Errors
    /// Gives both back otherwise: then [`GridService::execute`] is to be asked.
    fn submit_here(
        &self,
        request: Request,
        reply: StreamReply,
    ) -> std::result::Result<GroupId, Box<(Request, StreamReply)>> {
        Err(Box::new((request, reply)))
    }

    /// What keeps a group from answering, if this peer can see it.
    fn trouble(&self, _group: GroupId) -> Option<Error> {
        None
    }

    /// Follows a map's changes.
    ///
    /// # Errors
    /// `NoSuchMap`, `WrongCodec`, `InvalidToken`, `TooManyWatches`, `NotReady`.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream>;

    /// An entry of a replicated map from this peer's copy, once that is of `at_least` this revision.
    ///
    /// # Errors
    /// `NoSuchMap`, `NoLocalCopy`, `DeadlineExceeded`.
    async fn get_local(&self, map: &str, key: Bytes, at_least: u64, at_most: Duration) -> Result<LocalEntry>;

    /// The descriptor of a map; created as asked for if there is none.
    async fn ensure_map(&self, wanted: MapSpec) -> Result<MapDescriptor>;

    /// Drops a map, only the one of this id if one is named: what it was, and the number of partitions
    /// that have not confirmed yet that they write to it no more.
    async fn drop_map(&self, name: &str, id: Option<MapId>) -> Result<(MapDescriptor, u32)>;

    /// As [`GridService::maps`], with all that was created and dropped before the call.
    async fn fresh_maps(&self) -> Result<Vec<MapDescriptor>>;

    /// All maps, by name, from the local copy of the meta group.
    fn maps(&self) -> Vec<MapDescriptor>;

    /// Writes down what is to become of a member, named by its name or id; gives its id.
    async fn intend(&self, member: &str, intent: MemberIntent) -> Result<NodeId>;

    /// All members, by name.
    async fn members(&self) -> Result<Vec<MemberInfo>>;

    /// All partitions.
    async fn partitions(&self) -> Result<Vec<PartitionInfo>>;

    /// Where partitions are led, as far as this peer knows.
    fn placement(&self) -> PlacementTable;

    /// Where a key lives and why.
    async fn explain(&self, key: Bytes, affinity: Option<Bytes>) -> Result<Explanation>;

    /// The grid's time here.
    fn time(&self) -> HybridTime;

    /// Names of the tasks that this peer carries.
    fn tasks(&self) -> Vec<String>;

    /// Whether the peer serves; else why not.
    fn ready(&self) -> std::result::Result<(), String>;

    /// Waits until the peer serves.
    ///
    /// # Errors
    /// `NotReady` with the reason, when the time is over.
    async fn wait_ready(&self, at_most: Duration) -> Result<()>;

    /// Metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}
