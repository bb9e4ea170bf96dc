//! The types that openraft is used with. Leader ids are the classic ones (`leader_id_std`): one
//! leader a term, so a term names its leader.

use super::runtime::Runtime;
use crate::types::{NodeId, ReplicaId};
use bytes::Bytes;
use openraft::impls::leader_id_std;
use serde::{Deserialize, Serialize};
use std::fmt;

openraft::declare_raft_types!(
    /// Keystead's use of openraft; one for every group.
    pub TypeConfig:
        D = LogPayload,
        R = Outcome,
        NodeId = ReplicaId,
        Node = ReplicaNode,
        LeaderId = leader_id_std::LeaderId<u64, ReplicaId>,
        AsyncRuntime = Runtime,
);

/// Identity of a log entry: (term, index).
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A leader: term and replica.
pub type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
/// A persisted vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// What a log entry holds: nothing, a payload, or a membership.
pub type EntryPayload = openraft::alias::PayloadOf<TypeConfig>;
/// A membership with the log id that set it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot says of itself.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// The opaque payload of an entry; its first byte is a format version of its owner's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogPayload(pub Bytes);

impl fmt::Debug for LogPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogPayload({} bytes)", self.0.len())
    }
}

impl fmt::Display for LogPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Apply's verdict on an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the entry changed anything: a fenced entry commits too, without effect.
    pub took_effect: bool,
    /// What the state machine answers, in its own format.
    pub answer: Bytes,
}

/// Where a replica lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaNode {
    /// The node; its address is found through the grid's members, not here.
    pub node: NodeId,
}
