//! All meta rows, decoded, to look things up in.

use super::codec::Row;
use super::keys::MetaKey;
use super::rows::{DroppedRow, GridRow, MapIdsRow, MapRow, MemberRow, PlacementRow, ReplicaIdsRow};
use crate::error::Result;
use crate::ring::{self, RingNode};
use crate::types::{GroupId, MapDescriptor, MapId, NodeId, PartitionId, ReplicaId, Slot};
use std::collections::BTreeMap;

/// A row with the revision that a change of it must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<R> {
    /// Revision of the write that made it.
    pub revision: u64,
    /// The row.
    pub row: R,
}

/// The grid's facts at one moment. Rows of kinds that this version does not know are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaView {
    /// The highest revision seen.
    pub version: u64,
    /// The grid; `None` before it is founded.
    pub grid: Option<Versioned<GridRow>>,
    /// The members.
    pub members: BTreeMap<NodeId, Versioned<MemberRow>>,
    /// Who should hold each group, the meta group included.
    pub placement: BTreeMap<GroupId, Versioned<PlacementRow>>,
    /// The maps, by name.
    pub maps: BTreeMap<String, Versioned<MapRow>>,
    /// Maps that were dropped and are not gone everywhere.
    pub dropped: BTreeMap<MapId, Versioned<DroppedRow>>,
    /// The issuer of replica ids.
    pub replica_ids: Option<Versioned<ReplicaIdsRow>>,
    /// The issuer of map ids.
    pub map_ids: Option<Versioned<MapIdsRow>>,
}

impl MetaView {
    /// Builds a view from all rows: (key, revision, bytes).
    ///
    /// # Errors
    /// `CorruptRow`, naming the row that cannot be read.
    pub fn build<'a>(rows: impl IntoIterator<Item = (&'a str, u64, &'a [u8])>) -> Result<Self> {
        let mut view = MetaView::default();
        for (key, revision, bytes) in rows {
            view.set(key, revision, Some(bytes))?;
        }
        Ok(view)
    }

    /// Takes in a row's new bytes, or its deletion, at a revision.
    ///
    /// # Errors
    /// `CorruptRow`, naming the row; the view is then as before.
    pub fn set(&mut self, key: &str, revision: u64, bytes: Option<&[u8]>) -> Result<()> {
        match MetaKey::parse(key) {
            None => {}
            Some(MetaKey::Grid) => self.grid = read(key, revision, bytes)?,
            Some(MetaKey::ReplicaIds) => self.replica_ids = read(key, revision, bytes)?,
            Some(MetaKey::MapIds) => self.map_ids = read(key, revision, bytes)?,
            Some(MetaKey::Member(node)) => put(&mut self.members, node, read(key, revision, bytes)?),
            Some(MetaKey::Placement(group)) => put(&mut self.placement, group, read(key, revision, bytes)?),
            Some(MetaKey::Dropped(map)) => put(&mut self.dropped, map, read(key, revision, bytes)?),
            Some(MetaKey::Map(name)) => put(&mut self.maps, name, read(key, revision, bytes)?),
        }
        self.version = self.version.max(revision);
        Ok(())
    }

    /// Partitions of the grid; 0 before it is founded.
    pub fn partitions(&self) -> u32 {
        self.grid.as_ref().map_or(0, |grid| grid.row.partitions)
    }

    /// The partition that holds a slot; `None` before the grid is founded.
    pub fn partition_of(&self, slot: Slot) -> Option<PartitionId> {
        let partitions = self.partitions();
        (partitions > 0).then(|| ring::partition_of(slot, partitions))
    }

    /// Who should hold a group.
    pub fn placement_of(&self, group: GroupId) -> Option<&PlacementRow> {
        self.placement.get(&group).map(|placed| &placed.row)
    }

    /// A group's voters, the preferred leader first.
    pub fn replicas(&self, group: GroupId) -> &[(ReplicaId, NodeId)] {
        self.placement_of(group).map_or(&[], |row| &row.replicas)
    }

    /// The replicas that a node should hold: (group, replica), voters and learners.
    pub fn held_by(&self, node: NodeId) -> impl Iterator<Item = (GroupId, ReplicaId)> {
        self.placement.iter().flat_map(move |(group, placed)| {
            let all = placed.row.replicas.iter().chain(&placed.row.learners);
            all.filter(move |(_, at)| *at == node).map(|(replica, _)| (*group, *replica))
        })
    }

    /// A member.
    pub fn member(&self, node: NodeId) -> Option<&MemberRow> {
        self.members.get(&node).map(|member| &member.row)
    }

    /// Where a member is reached.
    pub fn address(&self, node: NodeId) -> Option<&str> {
        self.member(node).map(|member| member.address.as_str())
    }

    /// A map by its name.
    pub fn map(&self, name: &str) -> Option<&MapDescriptor> {
        self.maps.get(name).map(|map| &map.row.descriptor)
    }

    /// A map by its id.
    pub fn map_by_id(&self, id: MapId) -> Option<&MapDescriptor> {
        self.maps.values().map(|map| &map.row.descriptor).find(|descriptor| descriptor.id == id)
    }

    /// The members as the ring takes them.
    pub fn ring_nodes(&self) -> Vec<RingNode> {
        let of = |row: &MemberRow| RingNode { node: row.node, weight: row.weight, zone: row.zone.clone() };
        self.members.values().map(|member| of(&member.row)).collect()
    }

    /// Per partition the nodes of its voters, the preferred leader first, as the ring takes them.
    pub fn table(&self) -> Vec<Vec<NodeId>> {
        let nodes = |partition: u32| self.replicas(PartitionId(partition).group()).iter().map(|(_, node)| *node);
        (0..self.partitions()).map(|partition| nodes(partition).collect()).collect()
    }
}

fn read<R: Row>(key: &str, revision: u64, bytes: Option<&[u8]>) -> Result<Option<Versioned<R>>> {
    let Some(bytes) = bytes else { return Ok(None) };
    let row = R::decode(bytes).map_err(|error| error.at(format!("meta row {key}")))?;
    Ok(Some(Versioned { revision, row }))
}

fn put<K: Ord, R>(rows: &mut BTreeMap<K, R>, key: K, row: Option<R>) {
    match row {
        Some(row) => drop(rows.insert(key, row)),
        None => drop(rows.remove(&key)),
    }
}
