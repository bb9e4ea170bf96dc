//! Peers that are removed or drained, and what must hold of the placement when everything is mended: every
//! partition has its copies on members that stay, nothing moves any more, and all replicas of a
//! partition, and of the meta group, hold the same rows.

use super::clients::{connect, until_answered};
use super::shape::{COPIES, Shape};
use super::{Kind, Records};
use crate::checks::{self, Copied, Violation};
use crate::machine::Life;
use keystead::client::Client;
use keystead::clock::{Instant, sleep};
use keystead::node::{MemberInfo, MemberState, Node, PartitionInfo, ReplicaState};
use keystead::types::{GroupId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the placement may take once everything works.
const SETTLES_WITHIN: Duration = Duration::from_secs(25);

/// Removes or drains a peer, while everything else goes on. Where this leaves those that join later without
/// a seed, they come first: without a living seed nobody joins a grid.
pub(super) async fn remove(life: Life, endpoints: Vec<String>, at: usize, shape: Shape, records: Records) {
    let (name, drains, leaving) = (shape.leaving()[at].clone(), shape.drains, shape.leaving());
    sleep(Duration::from_millis(shape.removals[at].1)).await;
    let client = connect(&life, &endpoints).await;
    let names = shape.names();
    let (seeds, joining) = names.split_at(shape.founders);
    let is_last = seeds.contains(&name) && seeds.iter().all(|seed| leaving.contains(seed));
    while is_last && !have_joined(joining, &records) {
        sleep(Duration::from_millis(200)).await;
    }
    if !drains {
        count_who_stays(&client, &name, &shape, &records).await;
    }
    loop {
        let told = match drains {
            true => client.drain_member(&name, false).await,
            false => client.remove_member(&name).await,
        };
        match told {
            Ok(id) => {
                crate::event!("operator", "{name} ({id}) is to go");
                records.granted.borrow_mut().insert(name);
                return;
            }
            // It has not joined yet, or nobody can tell. One that has gone already is answered for.
            Err(error) => crate::event!("operator", "{name} cannot go yet: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Whether all of these have joined, and know it; one whose removal was granted had.
fn have_joined(names: &[String], records: &Records) -> bool {
    let knows = |node: std::sync::Arc<Node>| node.watch_facts().borrow().member(node.id()).is_some();
    let running = |name: &String| records.nodes.borrow().get(name).and_then(std::sync::Weak::upgrade);
    names.iter().all(|name| records.granted.borrow().contains(name) || running(name).is_some_and(knows))
}

/// Members that are there before a removal is asked for can take the copies of the one that goes: whoever
/// plans it later knows of them, and of those that were asked to go before. Where peers are struck, one that
/// came late may be away for so long that it is not waited for.
async fn count_who_stays(client: &Client, name: &str, shape: &Shape, records: &Records) {
    records.asked.borrow_mut().insert(name.to_owned());
    let members = until_answered(|| client.members()).await;
    let asked = records.asked.borrow();
    let stays = |member: &&MemberInfo| {
        matches!(member.state, MemberState::Alive | MemberState::Unreachable) && !asked.contains(&member.name)
    };
    let stay: BTreeSet<&str> = members.iter().filter(stays).map(|member| member.name.as_str()).collect();
    crate::event!("operator", "before {name} goes, {stay:?} stay");
    let sure = if records.kind == Kind::Moves { stay.len() } else { shape.sure_to_stay() };
    records.witnessed.promise(COPIES.min(stay.len()).min(sure));
}

/// Removes members whose disks were lost, once they are back as others.
pub(super) async fn remove_lost(life: Life, endpoints: Vec<String>, records: Records) {
    let mut client = None;
    while !*records.settled.borrow() {
        sleep(Duration::from_millis(300)).await;
        let lost: Vec<String> = records.lost.borrow().iter().cloned().collect();
        if lost.is_empty() {
            continue;
        }
        if client.is_none() {
            client = Some(connect(&life, &endpoints).await);
        }
        let Some(client) = &client else { continue };
        let members = client.members().await.unwrap_or_default();
        for name in lost {
            let now = records.nodes.borrow().get(&name).and_then(std::sync::Weak::upgrade).map(|node| node.id());
            let Some(now) = now.filter(|now| members.iter().any(|member| member.id == *now)) else { continue };
            for old in members.iter().filter(|member| member.name == name && member.id != now) {
                let removed = client.remove_member(&old.id.to_string()).await;
                crate::event!(&life.name, "{name} was {} before it lost its disk: {:?}", old.id, removed.map(drop));
            }
        }
    }
}

/// Waits until the placement is what it should be; else says what is wrong with it.
pub(super) async fn converge(client: &Client, shape: &Shape, records: &Records) {
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let wrong = match (client.members().await, client.partitions().await) {
            (Ok(members), Ok(partitions)) => {
                wrong_members(&members, shape).or_else(|| wrong_placement(&members, &partitions, shape, records))
            }
            (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
        };
        let Some(what) = wrong else {
            crate::event!("judge", "every replica is where it should be");
            return records.reached("every replica is in its place", SETTLES_WITHIN + super::READS_WITHIN);
        };
        if Instant::now() >= until {
            records.violations.borrow_mut().push(Violation { check: "placement", what });
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn wrong_members(members: &[MemberInfo], shape: &Shape) -> Option<String> {
    // One that lost its disk is there twice until the old one is removed.
    let mut known: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
    known.sort();
    let (removed, mut wanted) = (shape.removed(), shape.names());
    wanted.retain(|name| !removed.contains(name));
    (known != wanted).then(|| format!("members {known:?}, wanted {wanted:?}"))
}

fn wrong_placement(
    members: &[MemberInfo],
    partitions: &[PartitionInfo],
    shape: &Shape,
    records: &Records,
) -> Option<String> {
    if let Some(what) = differing_meta(members, records) {
        return Some(what);
    }
    let copies = COPIES.min(members.len());
    let leaving = shape.drained();
    let (drained, staying): (Vec<&MemberInfo>, Vec<&MemberInfo>) =
        members.iter().partition(|member| leaving.contains(&member.name));
    // A copy on a drained peer is kept as long as no other can take its place, and not made anew.
    let fewest = copies.min(staying.len());
    for partition in partitions {
        let whole = (fewest..=copies).contains(&partition.replicas.len())
            && partition.leader.is_some()
            && partition.replicas.iter().all(|replica| replica.state == ReplicaState::Holding);
        if !whole {
            return Some(format!("partition {} wants {fewest} to {copies} copies: {partition:?}", partition.id));
        }
        if let Some(what) = differing(partition, records) {
            return Some(what);
        }
    }
    for drained in drained {
        let holds = partitions.iter().any(|at| at.replicas.iter().any(|replica| replica.name == drained.name));
        if drained.state != MemberState::Draining || (holds && staying.len() >= copies) {
            return Some(format!("{} is to hold nothing: {drained:?}", drained.name));
        }
    }
    let held: BTreeMap<&str, u32> = staying.iter().map(|member| (member.name.as_str(), member.replicas)).collect();
    let share = shape.partitions as usize * fewest / members.len().max(1);
    // One tenth more or less than its share, and one for the rounding.
    let uneven = held.values().any(|held| (*held as usize) + 1 + share / 10 < share);
    uneven.then(|| format!("a member holds much less than its share of {share}: {held:?}"))
}

/// Whether a partition's replicas hold different rows, or are not where they should be.
fn differing(partition: &PartitionInfo, records: &Records) -> Option<String> {
    let mut copies = Vec::new();
    for replica in &partition.replicas {
        let Some((_, id, copy)) = copy_at(&replica.name, partition.id.group(), records) else {
            return Some(format!("{} holds no replica of partition {}", replica.name, partition.id));
        };
        if id != replica.replica {
            return Some(format!("{} holds replica {id} of partition {}", replica.name, partition.id));
        }
        copies.push(copy);
    }
    checks::equal(&format!("partition {}", partition.id), &copies).map(|violation| violation.to_string())
}

/// Whether members hold different rows of the meta group, or none. Nothing of it may differ: each member
/// has a replica, whether that votes or only listens, drained or not; all apply the same log, and what a
/// peer knows by gossip alone is no row. Who is no member any more is not asked: its replica stopped
/// where it stood when it was removed.
fn differing_meta(members: &[MemberInfo], records: &Records) -> Option<String> {
    let mut copies = Vec::new();
    for member in members {
        let Some((node, _, copy)) = copy_at(&member.name, GroupId::META, records) else {
            return Some(format!("{} holds no replica of the meta group", member.name));
        };
        if node != member.id {
            return Some(format!("{} is {node} now, and no member as that", member.name));
        }
        copies.push(copy);
    }
    checks::equal("the meta group", &copies).map(|violation| violation.to_string())
}

/// What the peer of this name holds of a group, as whom, and by which replica.
fn copy_at(name: &str, group: GroupId, records: &Records) -> Option<(NodeId, ReplicaId, Copied)> {
    let node = records.nodes.borrow().get(name).and_then(std::sync::Weak::upgrade)?;
    let (replica, applied, rows) = node.replica_rows(group)?;
    Some((node.id(), replica, Copied { host: name.to_owned(), applied, rows }))
}
