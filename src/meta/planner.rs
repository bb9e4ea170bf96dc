//! Works out which rows to write. Pure: facts in, row changes out.

use super::codec::{Extra, Row};
use super::founding::{Founder, FoundingRecord};
use super::keys::MetaKey;
use super::rows::{GridFounder, GridRow, MapIdsRow, MapRow, MemberIntent, MemberRow, PlacementRow, ReplicaIdsRow};
use super::view::{MetaView, Versioned};
use crate::error::{Code, Error, Result};
use crate::ring::{self, RingNode};
use crate::types::{
    Condition, GroupId, Incarnation, MapDescriptor, MapId, MapOptions, MapSpec, NodeId, PartitionId, ReplicaId,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Entry kinds that a new grid may write.
const ACTIVE_VERSION: u32 = 1;
/// Map id 0 is the meta group's built-in map.
const FIRST_MAP_ID: u32 = 1;

/// One conditional write of a row. Of a list, each is written only if those before it were; when one
/// is refused, the whole is worked out again from a newer view. What was written before then does no
/// harm: an id that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The row.
    pub key: String,
    /// `Absent`, or the revision at which it was read.
    pub condition: Condition,
    /// The new bytes; `None` deletes the row, or only makes sure that it is absent.
    pub value: Option<Bytes>,
}

impl RowChange {
    pub(super) fn of<R: Row>(key: &MetaKey, revision: Option<u64>, row: &R) -> Result<Self> {
        let condition = revision.map_or(Condition::Absent, Condition::Revision);
        Ok(RowChange { key: key.to_string(), condition, value: Some(row.encode()?) })
    }

    /// Deletes a row that was read at a revision.
    pub(super) fn delete(key: &MetaKey, revision: u64) -> Self {
        RowChange { key: key.to_string(), condition: Condition::Revision(revision), value: None }
    }

    /// Changes nothing: what goes with it is only written while there is no such row.
    pub(super) fn absent(key: &MetaKey) -> Self {
        RowChange { key: key.to_string(), condition: Condition::Absent, value: None }
    }
}

/// The rows of a new grid. Replica ids count from 1: first the meta group's, one per founder in the
/// founders' order, then the partitions'. The grid's own row comes last: who sees it sees them all.
///
/// # Errors
/// `Internal`, when a row cannot be encoded.
pub fn founding_rows(record: &FoundingRecord) -> Result<Vec<(String, Bytes)>> {
    let mut next: ReplicaId = 1;
    let mut placed = |group: GroupId, nodes: Vec<NodeId>, formed: bool| {
        let replicas: Vec<(ReplicaId, NodeId)> = (next..).zip(nodes).collect();
        next += replicas.len() as ReplicaId;
        PlacementRow {
            group,
            version: 1,
            replicas,
            learners: Vec::new(),
            leaving: Vec::new(),
            lead: None,
            switching: false,
            formed,
            extra: Extra::new(),
        }
    };
    let founders = record.founders.iter().map(|founder| founder.node).collect();
    let mut placement = vec![placed(GroupId::META, founders, true)];
    let ring_node = |f: &Founder| RingNode { node: f.node, weight: f.weight, zone: f.zone.clone(), leads: true };
    let nodes: Vec<RingNode> = record.founders.iter().map(ring_node).collect();
    let target = ring::place(&nodes, record.partitions, record.replicas, &[]);
    for (partition, nodes) in (0..).map(PartitionId).zip(target.replicas) {
        placement.push(placed(partition.group(), nodes, false));
    }
    let mut rows = Vec::new();
    for founder in &record.founders {
        rows.push((MetaKey::Member(founder.node).to_string(), first_member_row(founder, record.created_ms).encode()?));
    }
    for row in placement {
        rows.push((MetaKey::Placement(row.group).to_string(), row.encode()?));
    }
    let extra = Extra::new();
    rows.push((MetaKey::ReplicaIds.to_string(), ReplicaIdsRow { next, extra: extra.clone() }.encode()?));
    rows.push((MetaKey::MapIds.to_string(), MapIdsRow { next: FIRST_MAP_ID, extra }.encode()?));
    rows.push((MetaKey::Grid.to_string(), grid_row(record).encode()?));
    Ok(rows)
}

fn first_member_row(founder: &Founder, since: u64) -> MemberRow {
    MemberRow {
        node: founder.node,
        name: founder.name.clone(),
        address: founder.address.clone(),
        zone: founder.zone.clone(),
        weight: founder.weight,
        incarnation: Incarnation(0),
        since,
        intent: MemberIntent::Active,
        tasks: Vec::new(),
        extra: Extra::new(),
    }
}

fn grid_row(record: &FoundingRecord) -> GridRow {
    let founder = |founder: &Founder| GridFounder { node: founder.node, address: founder.address.clone() };
    GridRow {
        grid: record.grid,
        founders: record.founders.iter().map(founder).collect(),
        partitions: record.partitions,
        replicas: record.replicas,
        created_ms: record.created_ms,
        active_version: ACTIVE_VERSION,
        extra: Extra::new(),
    }
}

/// Issues `count` replica ids: the first of them, and the change that issues them.
pub(super) fn issue(view: &MetaView, count: u64) -> Result<(ReplicaId, RowChange)> {
    let issuer = view.replica_ids.as_ref();
    let Versioned { revision, row } = issuer.ok_or_else(|| missing(&MetaKey::ReplicaIds))?;
    let issued = ReplicaIdsRow { next: row.next + count, ..row.clone() };
    Ok((row.next, RowChange::of(&MetaKey::ReplicaIds, Some(*revision), &issued)?))
}

pub(super) fn missing(key: &MetaKey) -> Error {
    Error::new(Code::NotReady, format!("the meta group has no row {key} yet"))
}

/// A new replica in place of one that lost its log, vote or state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The node, which stays.
    pub node: NodeId,
    /// The new id; it joins as a learner before the old one is removed.
    pub new: ReplicaId,
    /// What to write, in this order.
    pub changes: Vec<RowChange>,
}

/// Replaces a lost replica by one under a new id, on the same node. `None` when the group does not
/// want that replica any more: it has been replaced already.
///
/// # Errors
/// `NotReady` before the grid is founded.
pub fn replacement(view: &MetaView, group: GroupId, lost: ReplicaId) -> Result<Option<Replacement>> {
    let Some(Versioned { revision, row }) = view.placement.get(&group) else { return Ok(None) };
    let (new, issued) = issue(view, 1)?;
    let mut row = row.clone();
    row.version += 1;
    let mut all = row.replicas.iter_mut().chain(&mut row.learners);
    let Some((replica, node)) = all.find(|(replica, _)| *replica == lost) else { return Ok(None) };
    *replica = new;
    let node = *node;
    // One that was on its way out goes at once: nothing is issued in its place.
    if row.leaving.contains(&lost) {
        row.leaving.retain(|id| *id != lost);
        row.replicas.retain(|(id, _)| *id != new);
        let gone = RowChange::of(&MetaKey::Placement(group), Some(*revision), &row)?;
        return Ok(Some(Replacement { node, new: lost, changes: vec![gone] }));
    }
    row.lead = row.lead.map(|lead| if lead == lost { new } else { lead });
    let replaced = RowChange::of(&MetaKey::Placement(group), Some(*revision), &row)?;
    Ok(Some(Replacement { node, new, changes: vec![issued, replaced] }))
}

/// What the meta group's membership lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learners {
    /// Ids for members that have none yet: to be written, in this order, before anything is added.
    pub changes: Vec<RowChange>,
    /// Wanted and not in the membership: to be added as learners.
    pub add: Vec<(ReplicaId, NodeId)>,
    /// In the membership and not wanted: to be removed, once what replaces it votes.
    pub remove: Vec<ReplicaId>,
}

/// Compares the meta group's committed membership (voters and learners) with the members: each
/// member follows the meta group, so that it has the grid's facts at hand.
///
/// # Errors
/// `NotReady` before the grid is founded.
pub fn missing_learners(view: &MetaView, membership: &BTreeMap<ReplicaId, NodeId>) -> Result<Learners> {
    let key = MetaKey::Placement(GroupId::META);
    let Versioned { revision, row } = view.placement.get(&GroupId::META).ok_or_else(|| missing(&key))?;
    let wanted: BTreeMap<ReplicaId, NodeId> = row.replicas.iter().chain(&row.learners).copied().collect();
    let placed: BTreeSet<NodeId> = wanted.values().copied().collect();
    let unplaced: Vec<NodeId> = view.members.keys().copied().filter(|node| !placed.contains(node)).collect();
    let mut learners = Learners {
        add: wanted.iter().filter(|(id, _)| !membership.contains_key(id)).map(|(id, node)| (*id, *node)).collect(),
        remove: membership.keys().copied().filter(|id| !wanted.contains_key(id)).collect(),
        changes: Vec::new(),
    };
    if !unplaced.is_empty() {
        let (first, issued) = issue(view, unplaced.len() as u64)?;
        let mut row = row.clone();
        row.version += 1;
        row.learners.extend((first..).zip(unplaced));
        learners.changes = vec![issued, RowChange::of(&key, Some(*revision), &row)?];
    }
    Ok(learners)
}

/// Writes down a member that joins, or that has come back with another name, address, zone, weight
/// or incarnation. Nothing when the row says so already, or tells of a later incarnation.
///
/// # Errors
/// `MemberRemoved` for a node that was removed; `Internal`, when the row cannot be encoded.
pub fn member_change(view: &MetaView, member: &MemberRow) -> Result<Vec<RowChange>> {
    let key = MetaKey::Member(member.node);
    if view.removed.contains_key(&member.node) {
        return Err(Error::new(Code::MemberRemoved, "this node was removed from the grid").at(&*member.name));
    }
    let Some(Versioned { revision, row }) = view.members.get(&member.node) else {
        // An old copy may know neither that it came nor that it was removed since.
        return Ok(vec![RowChange::of(&key, None, member)?, RowChange::absent(&MetaKey::Removed(member.node))]);
    };
    let changed = MemberRow { since: row.since, intent: row.intent, extra: row.extra.clone(), ..member.clone() };
    if changed == *row || row.incarnation > member.incarnation {
        return Ok(Vec::new());
    }
    Ok(vec![RowChange::of(&key, Some(*revision), &changed)?])
}

/// As [`member_change`] for a node that asks to be taken in. It says nothing of its tasks yet: those of
/// a member that comes once more stay as they are until it reports in.
///
/// # Errors
/// As [`member_change`].
pub fn joined(view: &MetaView, member: &MemberRow) -> Result<Vec<RowChange>> {
    let tasks = view.member(member.node).map(|row| row.tasks.clone()).unwrap_or_default();
    member_change(view, &MemberRow { tasks, ..member.clone() })
}

/// Writes down that a group has been initialized. `None` when the row says so already.
///
/// # Errors
/// `NotReady` when there is no such group.
pub fn formed(view: &MetaView, group: GroupId) -> Result<Option<RowChange>> {
    let key = MetaKey::Placement(group);
    let Versioned { revision, row } = view.placement.get(&group).ok_or_else(|| missing(&key))?;
    if row.formed {
        return Ok(None);
    }
    let row = PlacementRow { formed: true, version: row.version + 1, ..row.clone() };
    RowChange::of(&key, Some(*revision), &row).map(Some)
}

/// A map that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMap {
    /// Its descriptor: the present one, or the one that the changes create.
    pub descriptor: MapDescriptor,
    /// What to write, in this order; empty when the map is there.
    pub changes: Vec<RowChange>,
}

/// Creates a map unless it is there.
///
/// # Errors
/// `MapExists` when it is there with other codecs, schema or options; `InvalidRequest` for options
/// that make no sense; `NotReady` before the grid is founded.
pub fn new_map(view: &MetaView, wanted: &MapSpec) -> Result<NewMap> {
    if let Some(present) = view.map(&wanted.name) {
        if !wanted.matches(present) {
            let describe = |d: &MapDescriptor| {
                format!("{} keys and {} values, schema {}, {}", d.key_codec, d.value_codec, d.schema, d.options)
            };
            let asked = wanted.descriptor(present.id);
            let what = format!("map {:?} has {}; asked for were {}", wanted.name, describe(present), describe(&asked));
            return Err(Error::new(Code::MapExists, what));
        }
        return Ok(NewMap { descriptor: present.clone(), changes: Vec::new() });
    }
    wanted.options.as_ref().map_or(Ok(()), MapOptions::check)?;
    let issuer = view.map_ids.as_ref().ok_or_else(|| missing(&MetaKey::MapIds))?;
    let issued = MapIdsRow { next: issuer.row.next + 1, ..issuer.row.clone() };
    let descriptor = wanted.descriptor(MapId(issuer.row.next));
    let row = MapRow { descriptor: descriptor.clone(), extra: Extra::new() };
    let changes = vec![
        RowChange::of(&MetaKey::MapIds, Some(issuer.revision), &issued)?,
        RowChange::of(&MetaKey::Map(wanted.name.clone()), None, &row)?,
    ];
    Ok(NewMap { descriptor, changes })
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
