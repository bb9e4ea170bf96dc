//! Which partitions move, and when they have moved. Pure: the rows and who stands where go in, row
//! changes come out.
//!
//! A move begins with one write: the placement row names the newcomers as learners, under new
//! replica ids, and the voters that they replace as leaving. The group's leader makes that true in
//! its membership, and says in the row that it is about to: a newcomer that may be a voter is not
//! given up, since giving up destroys it. When the committed voters are the wanted ones, another
//! write ends the move. Nothing else remembers a move, so whoever leads the meta group goes on with it.

use super::keys::MetaKey;
use super::planner::{RowChange, issue, missing};
use super::rows::{MemberIntent, MemberRow, PlacementRow};
use super::view::{MetaView, Versioned};
use crate::error::Result;
use crate::ring::{self, RingNode};
use crate::types::{GroupId, NodeId, PartitionId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Placement rows that one plan may reorder: a change of the preferred leader moves no data.
const MAX_REORDERED: usize = 64;

/// Who stands where, as the planning peer sees it: a hint for choosing targets, never a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Nodes that gossip holds for alive.
    pub alive: BTreeSet<NodeId>,
    /// Members that have been away for so long that their replicas are to be created elsewhere.
    pub gone: BTreeSet<NodeId>,
    /// Moves that do not get on: they are given up, and planned anew.
    pub stuck: BTreeSet<GroupId>,
}

/// How much may move at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveLimits {
    /// Partitions of the grid.
    pub per_grid: usize,
    /// Partitions to or from one node.
    pub per_node: usize,
}

/// A move that the plan begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// The partition's group.
    pub group: GroupId,
    /// New replicas.
    pub coming: Vec<(ReplicaId, NodeId)>,
    /// Replicas that go.
    pub leaving: Vec<(ReplicaId, NodeId)>,
    /// Why, for people.
    pub why: &'static str,
}

/// What to write, all at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovePlan {
    /// The rows.
    pub changes: Vec<RowChange>,
    /// The moves that they begin.
    pub begun: Vec<PlannedMove>,
    /// The moves that they give up.
    pub abandoned: Vec<GroupId>,
    /// Moves that must wait: a limit is met, or a newcomer is not there.
    pub waiting: usize,
}

/// What should become of one partition.
struct Wish<'a> {
    placed: &'a Versioned<PlacementRow>,
    wanted: Vec<NodeId>,
    coming: Vec<NodeId>,
    leaving: Vec<(ReplicaId, NodeId)>,
    urgency: u8,
    why: &'static str,
}

/// Works out the next moves: from the placement as it is towards the target placement.
///
/// # Errors
/// `NotReady` before the grid is founded.
pub fn plan_moves(view: &MetaView, standing: &Standing, limits: &MoveLimits) -> Result<MovePlan> {
    let grid = view.grid.as_ref().ok_or_else(|| missing(&MetaKey::Grid))?;
    let nodes = candidates(view, standing);
    if nodes.iter().all(|node| node.weight == 0) {
        return Ok(MovePlan::default());
    }
    let target = ring::place(&nodes, grid.row.partitions, grid.row.replicas, &view.table()).replicas;
    let mut plan = MovePlan::default();
    let mut wishes = Vec::new();
    for (partition, nodes) in (0..).map(PartitionId).zip(target) {
        let Some(placed) = view.placement.get(&partition.group()).filter(|placed| placed.row.formed) else { continue };
        if placed.row.is_moving() {
            let otherwise = || wish(view, standing, placed, nodes, grid.row.replicas);
            if is_hopeless(view, standing, &placed.row) || is_overtaken(view, standing, &placed.row, otherwise) {
                plan.changes.push(abandoned(placed)?);
                plan.abandoned.push(placed.row.group);
            }
            continue;
        }
        wishes.push(wish(view, standing, placed, nodes, grid.row.replicas));
    }
    reorder(&wishes, &mut plan)?;
    begin(view, standing, limits, wishes, &mut plan)?;
    Ok(plan)
}

/// Members that may hold data: those that are there, and those that hold some and are not yet
/// given up.
fn candidates(view: &MetaView, standing: &Standing) -> Vec<RingNode> {
    let holds = |node: NodeId| view.held_by(node).any(|(group, _)| group != GroupId::META);
    let stays = |row: &&MemberRow| {
        !standing.gone.contains(&row.node) && (standing.alive.contains(&row.node) || holds(row.node))
    };
    view.members
        .values()
        .map(|member| &member.row)
        .filter(stays)
        .map(|row| view.ring_node(row, |node| !standing.gone.contains(&node)))
        .collect()
}

/// Whether a move's newcomers cannot be waited for, and are surely no voters yet.
fn is_hopeless(view: &MetaView, standing: &Standing, row: &PlacementRow) -> bool {
    if row.switching {
        return false;
    }
    standing.stuck.contains(&row.group) || row.learners.iter().any(|(_, node)| is_lost(view, standing, *node))
}

/// Whether a move that only takes copies away was to leave one on a node that is lost since, and would
/// be another now: the group's leader waits for that node before it gives up others.
fn is_overtaken<'a>(
    view: &MetaView,
    standing: &Standing,
    row: &PlacementRow,
    otherwise: impl FnOnce() -> Wish<'a>,
) -> bool {
    let target = row.target();
    if row.switching || !row.learners.is_empty() || !target.iter().any(|(_, node)| is_lost(view, standing, *node)) {
        return false;
    }
    let kept: BTreeSet<NodeId> = target.iter().map(|(_, node)| *node).collect();
    otherwise().wanted.into_iter().collect::<BTreeSet<_>>() != kept
}

/// Whether a node is away for long, or is being removed.
fn is_lost(view: &MetaView, standing: &Standing, node: NodeId) -> bool {
    standing.gone.contains(&node) || view.member(node).is_none_or(|row| row.intent == MemberIntent::Removing)
}

fn abandoned(placed: &Versioned<PlacementRow>) -> Result<RowChange> {
    let row = PlacementRow {
        version: placed.row.version + 1,
        learners: Vec::new(),
        leaving: Vec::new(),
        lead: None,
        switching: false,
        ..placed.row.clone()
    };
    RowChange::of(&MetaKey::Placement(row.group), Some(placed.revision), &row)
}

fn wish<'a>(
    view: &MetaView,
    standing: &Standing,
    placed: &'a Versioned<PlacementRow>,
    mut wanted: Vec<NodeId>,
    replicas: usize,
) -> Wish<'a> {
    let present = &placed.row.replicas;
    let is_removing = |node: NodeId| view.member(node).is_none_or(|row| row.intent == MemberIntent::Removing);
    // Where nodes are missing, what is there stays, even on a node that is away or is to be empty:
    // only a removal takes a replica without another in its place.
    for (_, node) in present {
        if wanted.len() < replicas.min(present.len()) && !wanted.contains(node) && !is_removing(*node) {
            wanted.push(*node);
        }
    }
    // Nor is a copy taken from a living peer while another, away only for a moment, may take its place.
    let living: Vec<NodeId> = present.iter().map(|(_, node)| *node).filter(|node| is_removing(*node)).collect();
    let living = living.into_iter().filter(|node| standing.alive.contains(node));
    let short = replicas.min(present.len()).saturating_sub(wanted.len());
    if short > 0 {
        let room = short.min(takers(view, standing).saturating_sub(wanted.len()));
        wanted.extend(living.take(room));
    }
    let holds = |node: &NodeId| present.iter().any(|(_, at)| at == node);
    let coming: Vec<NodeId> = wanted.iter().copied().filter(|node| !holds(node)).collect();
    let leaving: Vec<_> = present.iter().copied().filter(|(_, node)| !wanted.contains(node)).collect();
    let lost = |(_, node): &(ReplicaId, NodeId)| is_lost(view, standing, *node);
    let drained =
        |(_, node): &(ReplicaId, NodeId)| view.member(*node).is_some_and(|row| row.intent != MemberIntent::Active);
    let (urgency, why) = match () {
        () if leaving.iter().any(lost) => (0, "a replica's node is gone or is being removed"),
        () if present.len() < wanted.len() => (0, "there were fewer nodes than replicas"),
        () if leaving.iter().any(|(_, node)| !standing.alive.contains(node)) => (1, "a replica's node is away"),
        () if leaving.iter().any(drained) => (2, "a replica's node is being drained"),
        () => (3, "every node gets its share"),
    };
    Wish { placed, wanted, coming, leaving, urgency, why }
}

/// Members that may hold data, now or when they are back.
fn takers(view: &MetaView, standing: &Standing) -> usize {
    let may =
        |row: &&MemberRow| row.intent == MemberIntent::Active && row.weight > 0 && !standing.gone.contains(&row.node);
    view.members.values().map(|member| &member.row).filter(may).count()
}

/// Partitions whose replicas stay, and whose preferred leader changes.
fn reorder(wishes: &[Wish<'_>], plan: &mut MovePlan) -> Result<()> {
    let stays = |wish: &&Wish<'_>| wish.coming.is_empty() && wish.leaving.is_empty();
    for wish in wishes.iter().filter(stays).take(MAX_REORDERED) {
        let row = &wish.placed.row;
        let first = row.replicas.first().map(|(_, node)| *node);
        if first == wish.wanted.first().copied() {
            continue;
        }
        let mut row = PlacementRow { version: row.version + 1, ..row.clone() };
        row.replicas.sort_by_key(|(_, node)| wish.wanted.iter().position(|wanted| wanted == node));
        plan.changes.push(RowChange::of(&MetaKey::Placement(row.group), Some(wish.placed.revision), &row)?);
    }
    Ok(())
}

/// Begins as many moves as the limits allow, the most urgent first.
fn begin(
    view: &MetaView,
    standing: &Standing,
    limits: &MoveLimits,
    wishes: Vec<Wish<'_>>,
    plan: &mut MovePlan,
) -> Result<()> {
    let mut load = Load::of(view);
    let mut wishes: Vec<Wish<'_>> =
        wishes.into_iter().filter(|wish| !(wish.coming.is_empty() && wish.leaving.is_empty())).collect();
    wishes.sort_by_key(|wish| wish.urgency);
    let mut chosen = Vec::new();
    for wish in wishes {
        let there = wish.coming.iter().all(|node| standing.alive.contains(node));
        let touched: Vec<NodeId> = wish.coming.iter().copied().chain(wish.leaving.iter().map(|(_, at)| *at)).collect();
        if there && load.has_room(limits, &touched) {
            load.add(&touched);
            chosen.push(wish);
        } else {
            plan.waiting += 1;
        }
    }
    let ids = chosen.iter().map(|wish| wish.coming.len() as u64).sum();
    if ids == 0 && chosen.is_empty() {
        return Ok(());
    }
    let (mut next, issued) = issue(view, ids)?;
    if ids > 0 {
        plan.changes.push(issued);
    }
    for wish in chosen {
        let coming: Vec<(ReplicaId, NodeId)> = (next..).zip(wish.coming).collect();
        next += coming.len() as ReplicaId;
        let mut row = PlacementRow { version: wish.placed.row.version + 1, ..wish.placed.row.clone() };
        row.learners.clone_from(&coming);
        row.leaving = wish.leaving.iter().map(|(id, _)| *id).collect();
        let first = wish.wanted.first();
        let lead = row.all().find(|(_, node)| Some(node) == first).map(|(id, _)| id);
        row.lead = lead;
        row.switching = false;
        plan.changes.push(RowChange::of(&MetaKey::Placement(row.group), Some(wish.placed.revision), &row)?);
        plan.begun.push(PlannedMove { group: row.group, coming, leaving: wish.leaving, why: wish.why });
    }
    Ok(())
}

/// Moves under way, counted.
struct Load {
    grid: usize,
    nodes: BTreeMap<NodeId, usize>,
}

impl Load {
    fn of(view: &MetaView) -> Self {
        let mut load = Load { grid: 0, nodes: BTreeMap::new() };
        for row in view.placement.values().map(|placed| &placed.row).filter(|row| row.is_moving()) {
            let leaving = row.replicas.iter().filter(|(id, _)| row.leaving.contains(id));
            let touched: Vec<NodeId> = row.learners.iter().chain(leaving).map(|(_, node)| *node).collect();
            load.add(&touched);
        }
        load
    }

    fn has_room(&self, limits: &MoveLimits, touched: &[NodeId]) -> bool {
        let room = |node: &NodeId| self.nodes.get(node).is_none_or(|count| *count < limits.per_node);
        self.grid < limits.per_grid && touched.iter().all(room)
    }

    fn add(&mut self, touched: &[NodeId]) {
        self.grid += 1;
        for node in touched {
            *self.nodes.entry(*node).or_default() += 1;
        }
    }
}

/// Writes down that a moving group's voters may be changed from now on, or that they surely are not
/// being changed. `None` when the row says so already, or nothing moves.
///
/// # Errors
/// `Internal`, when the row cannot be encoded.
pub fn switching(view: &MetaView, group: GroupId, switching: bool) -> Result<Option<RowChange>> {
    let moving = |placed: &&Versioned<PlacementRow>| placed.row.is_moving() && placed.row.switching != switching;
    let Some(placed) = view.placement.get(&group).filter(moving) else { return Ok(None) };
    let row = PlacementRow { version: placed.row.version + 1, switching, ..placed.row.clone() };
    RowChange::of(&MetaKey::Placement(group), Some(placed.revision), &row).map(Some)
}

/// Writes the mark of [`switching`] once more: whoever has not heard of it and wants to take an earlier one
/// back fails. `None` when the row is not marked.
///
/// # Errors
/// `Internal`, when the row cannot be encoded.
pub fn switching_still(view: &MetaView, group: GroupId) -> Result<Option<RowChange>> {
    let marked = |placed: &&Versioned<PlacementRow>| placed.row.is_moving() && placed.row.switching;
    let Some(placed) = view.placement.get(&group).filter(marked) else { return Ok(None) };
    let row = PlacementRow { version: placed.row.version + 1, ..placed.row.clone() };
    RowChange::of(&MetaKey::Placement(group), Some(placed.revision), &row).map(Some)
}

/// Ends a move whose group's committed voters are the wanted ones. `None` when nothing moves or it
/// has not got that far.
///
/// # Errors
/// `Internal`, when the row cannot be encoded.
pub fn moved(view: &MetaView, group: GroupId, voters: &BTreeSet<ReplicaId>) -> Result<Option<RowChange>> {
    let Some(placed) = view.placement.get(&group).filter(|placed| placed.row.is_moving()) else { return Ok(None) };
    let replicas = placed.row.target();
    let wanted: BTreeSet<ReplicaId> = replicas.iter().map(|(id, _)| *id).collect();
    if wanted != *voters {
        return Ok(None);
    }
    let row = PlacementRow {
        version: placed.row.version + 1,
        replicas,
        learners: Vec::new(),
        leaving: Vec::new(),
        lead: None,
        switching: false,
        ..placed.row.clone()
    };
    RowChange::of(&MetaKey::Placement(group), Some(placed.revision), &row).map(Some)
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
