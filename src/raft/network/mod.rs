//! openraft's network for one group. In: openraft's calls for a target replica. Out: frames on the
//! peer transport, each with a deadline of its own; and on the other side, [`dispatch`] hands
//! arrived frames to the group's `Raft`. Nothing here retries an append or a vote: openraft does.
//!
//! A replication stream has one append outstanding at a time (openraft's sequential default), so
//! appends of a group cannot overtake each other.

mod client;
mod dispatch;
mod gather;
mod receptions;
mod snapshot;

pub use client::ReplicaClient;
pub use dispatch::dispatch;
pub use receptions::{ReceptionConfig, Receptions};

use super::types::{ReplicaNode, TypeConfig};
use crate::clock::Threads;
use crate::error::Result;
use crate::net::peer::{Lane, LongCall, PeerTransport};
use crate::types::{GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use openraft::RaftNetworkFactory;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The kinds of frames that Raft uses; 1 to 15 are kept for it.
pub mod kind {
    /// An append without entries.
    pub const HEARTBEAT: u8 = 1;
    /// Log entries.
    pub const APPEND: u8 = 2;
    /// A candidate asks for a vote.
    pub const VOTE: u8 = 3;
    /// Someone asks whether a vote would be given.
    pub const PRE_VOTE: u8 = 4;
    /// A leader hands over.
    pub const TRANSFER: u8 = 5;
    /// Rows of a snapshot.
    pub const SNAPSHOT_CHUNK: u8 = 6;
    /// A snapshot's trailer; its answer says that the snapshot is installed.
    pub const SNAPSHOT_END: u8 = 7;
    /// Which votes have these replicas saved? Concerns many groups.
    pub const CONFIRM: u8 = 8;
    /// The last kind that is kept for Raft.
    pub const LAST: u8 = 15;
}

/// What the adapter needs of a transport.
#[async_trait::async_trait]
pub trait RaftTransport: Send + Sync + 'static {
    /// Calls a node; see [`PeerTransport::call`].
    ///
    /// # Errors
    /// As there.
    async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        group: GroupId,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes>;

    /// Waits long for an answer, with signs of life; see [`PeerTransport::call_long`]. Without an
    /// implementation of its own none is asked for, which suits a transport that loses no answers.
    ///
    /// # Errors
    /// As there.
    async fn call_long(&self, to: NodeId, lane: Lane, group: GroupId, call: LongCall) -> Result<Bytes> {
        self.call(to, lane, group, call.kind, call.payload, call.deadline).await
    }
}

#[async_trait::async_trait]
impl RaftTransport for PeerTransport {
    async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        group: GroupId,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes> {
        PeerTransport::call(self, to, lane, group, kind, payload, deadline).await
    }

    async fn call_long(&self, to: NodeId, lane: Lane, group: GroupId, call: LongCall) -> Result<Bytes> {
        PeerTransport::call_long(self, to, lane, group, call).await
    }
}

/// Limits and timings of Raft's messages. openraft's own limit for appends is one heartbeat
/// interval, which a large append cannot keep; these are used instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftNetworkConfig {
    /// For an append with entries. Default 2 s.
    pub append_timeout: Duration,
    /// For an append without entries. Default 500 ms; openraft gives a heartbeat up after one
    /// heartbeat interval, whatever stands here.
    pub heartbeat_timeout: Duration,
    /// For votes and hand-overs. Default 500 ms.
    pub vote_timeout: Duration,
    /// For one piece of a snapshot. Default 5 s.
    pub chunk_timeout: Duration,
    /// How often one piece is sent before the transfer is given up. Default 3.
    pub chunk_attempts: u32,
    /// For the installation of a snapshot, once all of it is there. Default 60 s.
    pub install_timeout: Duration,
    /// The most bytes of entries in one append, unless a single entry is larger. Default 1 MiB.
    pub max_append_bytes: usize,
    /// While entries come at least as often, news of a commit waits so long for some to travel
    /// with, except in the meta group. Default 40 ms.
    pub commit_patience: Duration,
    /// The size of a snapshot's pieces. Default 1 MiB.
    pub snapshot_chunk_bytes: usize,
}

impl Default for RaftNetworkConfig {
    fn default() -> Self {
        RaftNetworkConfig {
            append_timeout: Duration::from_secs(2),
            heartbeat_timeout: Duration::from_millis(500),
            vote_timeout: Duration::from_millis(500),
            chunk_timeout: Duration::from_secs(5),
            chunk_attempts: 3,
            install_timeout: Duration::from_secs(60),
            max_append_bytes: 1 << 20,
            commit_patience: Duration::from_millis(40),
            snapshot_chunk_bytes: 1 << 20,
        }
    }
}

/// What all clients of a group share.
struct Shared {
    group: GroupId,
    /// The replica that calls.
    replica: ReplicaId,
    transport: Arc<dyn RaftTransport>,
    threads: Arc<dyn Threads>,
    config: RaftNetworkConfig,
    /// Numbers this replica's snapshot transfers.
    transfers: AtomicU64,
}

/// Makes openraft's clients for one group.
#[derive(Clone)]
pub struct GroupNetwork(Arc<Shared>);

impl GroupNetwork {
    /// The network of a group as seen by one of its replicas; `threads` scan snapshots.
    pub fn new(
        group: GroupId,
        replica: ReplicaId,
        transport: Arc<dyn RaftTransport>,
        threads: Arc<dyn Threads>,
        config: RaftNetworkConfig,
    ) -> Self {
        GroupNetwork(Arc::new(Shared { group, replica, transport, threads, config, transfers: AtomicU64::new(0) }))
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = ReplicaClient;

    async fn new_client(&mut self, target: ReplicaId, node: &ReplicaNode) -> ReplicaClient {
        ReplicaClient::new(self.0.clone(), target, node.node)
    }
}

#[cfg(test)]
mod tests;
