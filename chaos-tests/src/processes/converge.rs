//! What must hold a bounded time after everything is mended.

use super::clients::Common;
use super::fleet::Fleet;
use super::nemesis::{Change, finish_removal};
use super::pulse::Pulse;
use crate::checks::Violation;
use keystead::client::Client;
use keystead::node::{MemberInfo, MemberState, PartitionInfo, ReplicaState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Mutex;

/// Copies that each partition is to have.
const COPIES: usize = 3;
/// How long it may take until everything is in its place: rows are few, processors too.
const WITHIN: Duration = Duration::from_secs(120);
/// How long the clients may take to get on.
const GOING_ON_WITHIN: Duration = Duration::from_secs(30);
/// Operations of each client that show that it gets on.
const GOES_ON: u64 = 10;

/// Waits until all members, and no others, hold what they should; how long it took.
///
/// # Errors
/// What is still missing.
pub async fn converged(
    fleet: &Arc<Mutex<Fleet>>,
    client: &Client,
    change: &Change,
    pulse: &Pulse,
) -> Result<Duration, Violation> {
    let mut removals: Vec<String> = change.removed.iter().cloned().collect();
    removals.extend(change.before.map(|id| id.to_string()));
    let asked = std::cell::Cell::new(0);
    let lacks = || async {
        while let Some(member) = removals.get(asked.get()) {
            if let Some(what) = finish_removal(client, member).await {
                return Some(what);
            }
            asked.set(asked.get() + 1);
        }
        lacking(fleet, client).await
    };
    let violation = |what| Violation { check: "convergence", what: format!("after {WITHIN:?}: {what}") };
    pulse.until(WITHIN, lacks).await.map_err(violation)
}

/// What is not in its place: members, copies, peers that do not serve.
pub async fn lacking(fleet: &Mutex<Fleet>, client: &Client) -> Option<String> {
    let members = match client.members().await {
        Ok(members) => members,
        Err(error) => return Some(format!("no members: {error}")),
    };
    let partitions = match client.partitions().await {
        Ok(partitions) => partitions,
        Err(error) => return Some(format!("no partitions: {error}")),
    };
    let mut fleet = fleet.lock().await;
    if let Err(error) = fleet.look().await {
        return Some(format!("{error:#}"));
    }
    let names = fleet.names();
    if let Some(what) = wrong_members(&members, &names).or_else(|| wrong_placement(&members, &partitions)) {
        return Some(what);
    }
    for peer in fleet.peers().filter(|peer| !peer.leaving) {
        if let Some(what) = peer.not_ready().await {
            return Some(what);
        }
    }
    None
}

fn wrong_members(members: &[MemberInfo], names: &[String]) -> Option<String> {
    let known: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    if known != wanted || members.len() != names.len() {
        let told: Vec<String> = members.iter().map(|member| format!("{} ({})", member.name, member.id)).collect();
        return Some(format!("members {told:?}, wanted {wanted:?}"));
    }
    let other = members.iter().find(|member| member.state != MemberState::Alive)?;
    Some(format!("{} is {:?}", other.name, other.state))
}

fn wrong_placement(members: &[MemberInfo], partitions: &[PartitionInfo]) -> Option<String> {
    let copies = COPIES.min(members.len());
    let whole = |partition: &&PartitionInfo| {
        partition.replicas.len() == copies
            && partition.leader.is_some()
            && partition.under_replicated == 0
            && partition.replicas.iter().all(|replica| replica.state == ReplicaState::Holding)
    };
    let broken = partitions.iter().find(|partition| !whole(partition))?;
    Some(format!("partition {} wants {copies} copies: {broken:?}", broken.id))
}

/// Waits until each client has been answered some more.
///
/// # Errors
/// Those that have not.
pub async fn going_on(common: &Common) -> Result<(), Violation> {
    let counts = || common.answered.iter().map(|answered| answered.load(Ordering::Relaxed));
    let before: Vec<u64> = counts().collect();
    let lacks = || async {
        let still: Vec<usize> = (0..)
            .zip(counts().zip(&before))
            .filter(|(_, (now, before))| *now < *before + GOES_ON)
            .map(|(at, _)| at)
            .collect();
        (!still.is_empty()).then(|| format!("clients {still:?} are not answered"))
    };
    let violation = |what| Violation { check: "clients get on", what: format!("after {GOING_ON_WITHIN:?}: {what}") };
    common.pulse.until(GOING_ON_WITHIN, lacks).await.map(drop).map_err(violation)
}

/// Waits until a removed peer has ended by itself, and forgets it.
///
/// # Errors
/// That it has not.
pub async fn departed(fleet: &Arc<Mutex<Fleet>>, change: &Change, pulse: &Pulse) -> Result<(), Violation> {
    let Some(name) = &change.removed else { return Ok(()) };
    let lacks = || async {
        let mut fleet = fleet.lock().await;
        let runs = fleet.peer(name).is_some_and(|peer| peer.runs() && peer.ended().is_none());
        runs.then(|| format!("{name} is no member any more, and still runs"))
    };
    let gone = pulse.until(WITHIN, lacks).await;
    fleet.lock().await.forget(name).await;
    gone.map(drop).map_err(|what| Violation { check: "the removed end", what })
}
