//! The rows of members, and of those that were removed.

use crate::meta::codec::{Extra, Row, text};
use crate::types::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

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

impl TaskMark {
    /// As people are shown it: its name, with the version if that is not the first.
    pub fn shown(&self) -> String {
        match self.version {
            1 => self.name.clone(),
            version => format!("{}@{version}", self.name),
        }
    }
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

impl Row for MemberRow {}
impl Row for RemovedRow {}
