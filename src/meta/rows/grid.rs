//! The row of the grid itself.

use crate::meta::codec::{Extra, Row, text};
use crate::types::{GridId, NodeId};
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

impl Row for GridRow {}
