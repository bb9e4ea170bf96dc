//! Members that come, go and vote in the meta group. Pure: rows in, row changes out.

use super::FOUNDERS_MAX;
use super::codec::Extra;
use super::keys::MetaKey;
use super::moves::Standing;
use super::planner::{RowChange, missing};
use super::rows::{MemberIntent, MemberRow, PlacementRow, RemovedRow};
use super::view::{MetaView, Versioned};
use crate::error::{Code, Error, Result};
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::BTreeSet;

/// Finds a member by its id or its name.
///
/// # Errors
/// `NoSuchMember`; `InvalidRequest` when several have the name.
pub fn find_member<'a>(view: &'a MetaView, who: &str) -> Result<&'a Versioned<MemberRow>> {
    if let Some(member) = who.parse().ok().and_then(|node: NodeId| view.members.get(&node)) {
        return Ok(member);
    }
    let named: Vec<&Versioned<MemberRow>> = view.members.values().filter(|member| member.row.name == who).collect();
    match named[..] {
        [one] => Ok(one),
        [] => Err(Error::new(Code::NoSuchMember, format!("the grid has no member {who:?}"))),
        _ => {
            let ids: Vec<String> = named.iter().map(|member| member.row.node.to_string()).collect();
            let what = format!("several members are named {who:?}: {}", ids.join(", "));
            Err(Error::new(Code::InvalidRequest, what).remedy("name the member by its id"))
        }
    }
}

/// The node that was removed under this id or name; of several of the name, the last.
fn find_removed(view: &MetaView, who: &str) -> Option<NodeId> {
    if let Some(node) = who.parse().ok().filter(|node: &NodeId| view.removed.contains_key(node)) {
        return Some(node);
    }
    let named = view.removed.values().filter(|removed| removed.row.name == who);
    named.max_by_key(|removed| removed.revision).map(|removed| removed.row.node)
}

/// Writes down what is to become of a member. No changes when its row says so already, or when it
/// is to be removed and has been: whoever asks again missed the answer.
///
/// # Errors
/// `NoSuchMember`; `InvalidRequest` for the last member, which cannot go, and for one that is
/// being removed, which cannot be kept.
pub fn intend(view: &MetaView, who: &str, intent: MemberIntent) -> Result<(NodeId, Vec<RowChange>)> {
    let found = find_member(view, who);
    if let (Err(error), MemberIntent::Removing) = (&found, intent)
        && error.code == Code::NoSuchMember
        && let Some(removed) = find_removed(view, who)
    {
        return Ok((removed, Vec::new()));
    }
    let member = found?;
    let row = &member.row;
    if row.intent == intent {
        return Ok((row.node, Vec::new()));
    }
    if row.intent == MemberIntent::Removing {
        let what = "the member is being removed, which cannot be undone";
        return Err(Error::new(Code::InvalidRequest, what).at(who));
    }
    let stays = |other: &&Versioned<MemberRow>| other.row.node != row.node && other.row.intent == MemberIntent::Active;
    if intent != MemberIntent::Active && !view.members.values().any(|other| stays(&other)) {
        let what = "no other member is left to take over what this one holds";
        return Err(Error::new(Code::InvalidRequest, what).at(who).remedy("start another peer first"));
    }
    let changed = MemberRow { intent, ..row.clone() };
    let change = RowChange::of(&MetaKey::Member(row.node), Some(member.revision), &changed)?;
    Ok((row.node, vec![change]))
}

/// Ends the removal of a member that holds nothing any more: its rows go, and a note stays that
/// refuses it if it comes back. `voters` are the nodes that vote in the meta group, committed.
///
/// # Errors
/// `NotReady` before the grid is founded.
pub fn removed(view: &MetaView, voters: &BTreeSet<NodeId>) -> Result<Vec<RowChange>> {
    let placed = view.placement.get(&GroupId::META).ok_or_else(|| missing(&MetaKey::Placement(GroupId::META)))?;
    let is_free = |member: &&Versioned<MemberRow>| {
        let node = member.row.node;
        let votes = voters.contains(&node) || placed.row.replicas.iter().any(|(_, at)| *at == node);
        member.row.intent == MemberIntent::Removing
            && !votes
            && !view.held_by(node).any(|(group, _)| group != GroupId::META)
    };
    let Some(member) = view.members.values().find(is_free) else { return Ok(Vec::new()) };
    let node = member.row.node;
    let mut meta = placed.row.clone();
    meta.version += 1;
    meta.learners.retain(|(_, at)| *at != node);
    let note = RemovedRow { node, name: member.row.name.clone(), extra: Extra::new() };
    let known = view.removed.get(&node).map(|row| row.revision);
    Ok(vec![
        RowChange::of(&MetaKey::Placement(GroupId::META), Some(placed.revision), &meta)?,
        RowChange::of(&MetaKey::Removed(node), known, &note)?,
        RowChange::delete(&MetaKey::Member(node), member.revision),
    ])
}

/// The next change of the meta group's voters, given who votes now: up to three members that are there. One
/// newcomer at a time; a voter that is gone, or is to go, is replaced by a member that follows already.
///
/// # Errors
/// `NotReady` before the grid is founded.
pub fn meta_voters(view: &MetaView, standing: &Standing, voters: &BTreeSet<ReplicaId>) -> Result<Option<RowChange>> {
    let key = MetaKey::Placement(GroupId::META);
    let Versioned { revision, row } = view.placement.get(&GroupId::META).ok_or_else(|| missing(&key))?;
    let mut changed = PlacementRow { version: row.version + 1, ..row.clone() };
    let to_go = row.replicas.iter().find(|(_, node)| should_not_vote(view, standing, *node)).copied();
    let next = next_voter(view, standing, row, to_go);
    match (to_go, next) {
        (Some(old), Some(new)) => {
            changed.replicas.iter_mut().filter(|replica| **replica == old).for_each(|replica| *replica = new);
            changed.learners.retain(|replica| *replica != new);
            changed.learners.push(old);
        }
        (None, Some(new)) if row.replicas.len() < FOUNDERS_MAX => {
            changed.learners.retain(|replica| *replica != new);
            changed.replicas.push(new);
        }
        (Some(old), None)
            if row.replicas.len() > 1 && is_leaving(view, old.1) && !is_waited_for(view, standing, row, old.1) =>
        {
            changed.replicas.retain(|replica| *replica != old);
            changed.learners.push(old);
        }
        _ => return Ok(None),
    }
    // The change before this one may not be made yet.
    if changed.replicas.iter().filter(|(id, _)| !voters.contains(id)).count() > 1 {
        return Ok(None);
    }
    RowChange::of(&key, Some(*revision), &changed).map(Some)
}

/// Whether a living voter stays until a member that is away only for a moment can take its place.
fn is_waited_for(view: &MetaView, standing: &Standing, row: &PlacementRow, voter: NodeId) -> bool {
    let votes = |node: &NodeId| row.replicas.iter().any(|(_, at)| at == node);
    let may_come = |node: &NodeId| !votes(node) && !should_not_vote(view, standing, *node);
    standing.alive.contains(&voter) && view.members.keys().any(may_come)
}

fn is_leaving(view: &MetaView, node: NodeId) -> bool {
    view.member(node).is_none_or(|row| row.intent == MemberIntent::Removing)
}

fn should_not_vote(view: &MetaView, standing: &Standing, node: NodeId) -> bool {
    standing.gone.contains(&node) || view.member(node).is_none_or(|row| row.intent != MemberIntent::Active)
}

/// The member that should vote next: of a zone that no other voter stands in, if there is one; the
/// oldest replica of those.
fn next_voter(
    view: &MetaView,
    standing: &Standing,
    row: &PlacementRow,
    instead_of: Option<(ReplicaId, NodeId)>,
) -> Option<(ReplicaId, NodeId)> {
    let zone = |node: NodeId| view.member(node).and_then(|row| row.zone.clone());
    let staying = row.replicas.iter().filter(|replica| Some(**replica) != instead_of);
    let zones: BTreeSet<String> = staying.filter_map(|(_, node)| zone(*node)).collect();
    let may =
        |(_, node): &&(ReplicaId, NodeId)| standing.alive.contains(node) && !should_not_vote(view, standing, *node);
    let shared = |node: NodeId| zone(node).is_some_and(|zone| zones.contains(&zone));
    row.learners.iter().filter(may).min_by_key(|(id, node)| (shared(*node), *id)).copied()
}
