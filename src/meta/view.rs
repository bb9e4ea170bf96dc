//! All meta rows, decoded, to look things up in.

use super::codec::Row;
use super::keys::MetaKey;
use super::rows::{
    DroppedRow, GridRow, MapIdsRow, MapRow, MemberIntent, MemberRow, PlacementRow, RemovedRow, ReplicaIdsRow,
};
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
    /// Nodes that were removed for good.
    pub removed: BTreeMap<NodeId, Versioned<RemovedRow>>,
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
            Some(MetaKey::Removed(node)) => put(&mut self.removed, node, read(key, revision, bytes)?),
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
            placed.row.all().filter(move |(_, at)| *at == node).map(|(replica, _)| (*group, replica))
        })
    }

    /// Whether a replica has been given up for good: its id was issued, and no placement names it
    /// any more. An id and the placement that names it are written together, so a view that knows
    /// of the one knows of the other.
    pub fn is_given_up(&self, group: GroupId, replica: ReplicaId) -> bool {
        let issued = self.replica_ids.as_ref().is_some_and(|ids| ids.row.next > replica);
        let named = self.placement_of(group).is_none_or(|row| row.all().any(|(id, _)| id == replica));
        issued && !named
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
        self.members.values().map(|member| self.ring_node(&member.row, |_| true)).collect()
    }

    /// A member as the ring takes it; `counts` as in [`MetaView::needed_tasks`].
    pub(super) fn ring_node(&self, row: &MemberRow, counts: impl Fn(NodeId) -> bool) -> RingNode {
        let weight = if row.intent == MemberIntent::Active { row.weight } else { 0 };
        RingNode { node: row.node, weight, zone: row.zone.clone(), leads: self.may_lead(row, counts) }
    }

    /// Whether a member carries every task that the grid needs: the others only follow. `counts` as in
    /// [`MetaView::needed_tasks`].
    pub fn may_lead(&self, member: &MemberRow, counts: impl Fn(NodeId) -> bool) -> bool {
        let carries =
            |(name, version): (&str, u32)| member.tasks.iter().any(|task| task.name == name && task.version >= version);
        self.needed_tasks(counts).into_iter().all(carries)
    }

    /// The tasks that the grid needs, each in the highest version that a member carries. Only members
    /// that `counts` are asked: what none but a dead one carries runs nowhere, and must not keep those
    /// from leading that carry the rest.
    pub fn needed_tasks(&self, counts: impl Fn(NodeId) -> bool) -> BTreeMap<&str, u32> {
        let mut needed = BTreeMap::new();
        let members = self.members.values().filter(|member| counts(member.row.node));
        for task in members.flat_map(|member| &member.row.tasks) {
            let version = needed.entry(task.name.as_str()).or_insert(task.version);
            *version = task.version.max(*version);
        }
        needed
    }

    /// Per partition the nodes that should hold it in the end, the preferred leader first.
    pub fn table(&self) -> Vec<Vec<NodeId>> {
        let row = |partition: u32| self.placement_of(PartitionId(partition).group()).map(PlacementRow::target);
        let nodes = |target: Vec<(ReplicaId, NodeId)>| target.into_iter().map(|(_, node)| node).collect();
        (0..self.partitions()).map(|partition| row(partition).map(nodes).unwrap_or_default()).collect()
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
