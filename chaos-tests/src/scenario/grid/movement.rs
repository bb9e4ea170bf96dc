//! Peers that are removed, and what must hold of the placement when everything is mended: every
//! partition has its copies on members that stay, nothing moves any more, and all replicas of a
//! partition hold the same rows.

use super::Records;
use super::clients::connect;
use super::shape::Shape;
use crate::checks::Violation;
use crate::machine::Life;
use keystead::client::Client;
use keystead::clock::{Instant, sleep};
use keystead::node::{MemberInfo, PartitionInfo, ReplicaState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Copies of a partition where there are enough peers.
pub(super) const COPIES: usize = 3;
/// How long the placement may take once everything works.
const SETTLES_WITHIN: Duration = Duration::from_secs(25);

/// Removes a peer, while everything else goes on.
pub(super) async fn remove(life: Life, endpoints: Vec<String>, name: String, at_ms: u64) {
    sleep(Duration::from_millis(at_ms)).await;
    let client = connect(&life, &endpoints).await;
    loop {
        match client.remove_member(&name).await {
            Ok(id) => {
                crate::event!("operator", "{name} ({id}) is to go");
                return;
            }
            // It has not joined yet, or nobody can tell. One that has gone already is answered for.
            Err(error) => crate::event!("operator", "{name} cannot go yet: {error}"),
        }
        sleep(Duration::from_millis(200)).await;
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
            return;
        };
        if Instant::now() >= until {
            records.violations.borrow_mut().push(Violation { check: "placement", what });
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn wrong_members(members: &[MemberInfo], shape: &Shape) -> Option<String> {
    let known: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let removed = shape.removed();
    let names = shape.names();
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).filter(|n| Some(*n) != removed.as_deref()).collect();
    (known != wanted).then(|| format!("members {known:?}, wanted {wanted:?}"))
}

fn wrong_placement(
    members: &[MemberInfo],
    partitions: &[PartitionInfo],
    shape: &Shape,
    records: &Records,
) -> Option<String> {
    let copies = COPIES.min(members.len());
    for partition in partitions {
        let whole = partition.replicas.len() == copies
            && partition.leader.is_some()
            && partition.replicas.iter().all(|replica| replica.state == ReplicaState::Holding);
        if !whole {
            return Some(format!("partition {} wants {copies} copies: {partition:?}", partition.id));
        }
        if let Some(what) = differing(partition, records) {
            return Some(what);
        }
    }
    let held: BTreeMap<&str, u32> = members.iter().map(|member| (member.name.as_str(), member.replicas)).collect();
    let share = shape.partitions as usize * copies / members.len().max(1);
    // One tenth more or less than its share, and one for the rounding.
    let uneven = held.values().any(|held| (*held as usize) + 1 + share / 10 < share);
    uneven.then(|| format!("a member holds much less than its share of {share}: {held:?}"))
}

/// Whether a partition's replicas hold different rows, or are not where they should be.
fn differing(partition: &PartitionInfo, records: &Records) -> Option<String> {
    let nodes = records.nodes.borrow();
    let mut first = None;
    for replica in &partition.replicas {
        let node = nodes.get(&replica.name).and_then(std::sync::Weak::upgrade);
        let Some((id, applied, rows)) = node.and_then(|node| node.replica_rows(partition.id.group())) else {
            return Some(format!("{} holds no replica of partition {}", replica.name, partition.id));
        };
        if id != replica.replica {
            return Some(format!("{} holds replica {id} of partition {}", replica.name, partition.id));
        }
        let (of, there) = first.get_or_insert_with(|| (replica.name.clone(), (applied, rows.clone())));
        if *there != (applied, rows) {
            return Some(format!("partition {}: {} and {of} differ at index {applied}", partition.id, replica.name));
        }
    }
    None
}
