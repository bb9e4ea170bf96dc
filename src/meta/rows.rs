//! The kinds of meta rows.

use super::codec::{Extra, Row, placed, text};
use crate::types::{GridId, GroupId, Incarnation, MapDescriptor, NodeId, ReplicaId};
use serde::{Deserialize, Serialize};

/// A founder, as the grid remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridFounder {
    /// The node.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Its address at birth.
    pub address: String,
}

/// The grid itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridRow {
    /// Its identity.
    #[serde(with = "text")]
    pub grid: GridId,
    /// Who founded it.
    pub founders: Vec<GridFounder>,
    /// Partitions, chosen at birth.
    pub partitions: u32,
    /// Replicas wanted per partition.
    pub replicas: usize,
    /// When it was founded, in Unix milliseconds.
    pub created_ms: u64,
    /// Entry kinds above this version are not written.
    pub active_version: u32,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What is to become of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberIntent {
    /// It holds its share.
    #[default]
    Active,
    /// It is to hold nothing, and stays a member.
    Draining,
    /// It is to hold nothing, and then to be no member any more.
    Removing,
}

impl MemberIntent {
    fn is_active(&self) -> bool {
        *self == MemberIntent::Active
    }
}

/// A task that a peer carries. The grid needs each task that a member's row names, in the highest
/// version that one names: only peers that carry all of them are to lead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskMark {
    /// Its name.
    pub name: String,
    /// The version that its author gave it.
    pub version: u32,
    /// Hash of the types of its handler, input and output, to tell builds apart.
    pub fingerprint: u64,
}

/// A member of the grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Its identity.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Where clients and peers reach it.
    pub address: String,
    /// What fails together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its share of the data, relative to the others'.
    pub weight: u32,
    /// The latest of its lives that the meta group knows; 0 before it has reported one.
    pub incarnation: Incarnation,
    /// When it joined, in Unix milliseconds.
    pub since: u64,
    /// What is to become of it.
    #[serde(default, skip_serializing_if = "MemberIntent::is_active")]
    pub intent: MemberIntent,
    /// The tasks that it carries besides the built-in ones, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskMark>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A node that was removed for good: it is refused if it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRow {
    /// The node.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Who should hold a group. It is intent: the group's committed membership is the fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRow {
    /// The group: a partition's, or the meta group.
    pub group: GroupId,
    /// Grows by one at each change of this row.
    pub version: u64,
    /// The voters, the preferred leader first.
    #[serde(with = "placed")]
    pub replicas: Vec<(ReplicaId, NodeId)>,
    /// Replicas that follow without a vote: a move's newcomers; of the meta group every other member.
    #[serde(with = "placed", default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// While a partition moves: the voters that the learners replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<ReplicaId>,
    /// While a partition moves: the replica that is to be the preferred leader afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<ReplicaId>,
    /// Whether the group has been initialized: it is never initialized again.
    pub formed: bool,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

impl PlacementRow {
    /// Whether a partition's replicas are being replaced.
    pub fn is_moving(&self) -> bool {
        self.group != GroupId::META && !(self.learners.is_empty() && self.leaving.is_empty())
    }

    /// The voters that are wanted in the end, the preferred leader first. The meta group's learners
    /// stay learners; a partition's are on their way in.
    pub fn target(&self) -> Vec<(ReplicaId, NodeId)> {
        let staying = self.replicas.iter().filter(|(id, _)| !self.leaving.contains(id));
        let coming = self.learners.iter().filter(|_| self.group != GroupId::META);
        let mut target: Vec<_> = staying.chain(coming).copied().collect();
        // A stable sort: the others keep their order.
        target.sort_by_key(|(id, _)| self.lead.is_some() && Some(*id) != self.lead);
        target
    }

    /// Every replica that may exist: voters, newcomers, and those on their way out.
    pub fn all(&self) -> impl Iterator<Item = (ReplicaId, NodeId)> {
        self.replicas.iter().chain(&self.learners).copied()
    }
}

/// A map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRow {
    /// What it is.
    #[serde(flatten)]
    pub descriptor: MapDescriptor,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A map that was dropped: its entries are still being deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRow {
    /// The name that it had.
    pub name: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The issuer of replica ids. An id is issued by raising `next`, and never again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaIdsRow {
    /// The next id to issue.
    pub next: ReplicaId,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The issuer of map ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapIdsRow {
    /// The next id to issue.
    pub next: u32,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Row for GridRow {}
impl Row for MemberRow {}
impl Row for RemovedRow {}
impl Row for PlacementRow {}
impl Row for MapRow {}
impl Row for DroppedRow {}
impl Row for ReplicaIdsRow {}
impl Row for MapIdsRow {}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
