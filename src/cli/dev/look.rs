//! One look at the grid: what each peer says of itself, what the grid says of its partitions, and
//! what changed since the last look.

use crate::cli::local::{Peer, Peers, endpoint};
use crate::client::Client;
use crate::clock::{self, Instant};
use crate::node::{PartitionInfo, ReplicaState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a peer may take to answer; one that does not shows as silent.
const ASK: Duration = Duration::from_millis(300);
/// Changes that are told one by one; more are summed up.
const TOLD: usize = 4;

/// A peer, as a look finds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct PeerLook {
    /// Its name.
    pub(super) name: String,
    /// Where clients reach it.
    pub(super) address: String,
    /// `serving`, `not ready` (a group has no leader, say), `silent` or `dead`.
    pub(super) state: &'static str,
    /// Partitions that it leads.
    pub(super) leaders: u64,
    /// Replicas that it holds.
    pub(super) replicas: u64,
    /// Rows in them.
    pub(super) rows: u64,
    /// Commands answered per second since the last look.
    pub(super) commands_per_second: f64,
    /// Log entries written per second since the last look.
    pub(super) entries_per_second: f64,
}

/// The grid, as a look finds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Look {
    /// In the order in which they were first started.
    pub(super) peers: Vec<PeerLook>,
    /// Per partition the leader's name; empty for none.
    pub(super) leaders: Vec<String>,
    /// Partitions that have no leader.
    pub(super) leaderless: usize,
    /// Partitions with fewer living replicas than wanted.
    pub(super) under_replicated: usize,
    /// Partitions whose replicas are moving: one is coming, or one is still to go.
    pub(super) moving: usize,
    /// Requests a second of the built-in load.
    pub(super) load: u32,
    /// What changed since the last look, in sentences.
    #[serde(skip)]
    pub(super) changes: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    commands: u64,
    entries: u64,
}

/// Looks again and again.
pub(super) struct Looker {
    client: Client,
    counts: BTreeMap<String, (Instant, Counts)>,
    partitions: Vec<PartitionInfo>,
}

impl Looker {
    /// Has seen nothing yet.
    pub(super) fn new(client: Client) -> Self {
        Looker { client, counts: BTreeMap::new(), partitions: Vec::new() }
    }

    /// Looks.
    pub(super) async fn look(&mut self, peers: &Peers, load: u32) -> Look {
        let mut look = Look { load, ..Look::default() };
        let all = peers.all();
        let asked = futures::future::join_all(all.iter().map(|peer| metrics(peer))).await;
        for (peer, metrics) in all.iter().zip(asked) {
            look.peers.push(self.peer(peer, metrics.as_deref()));
        }
        if let Ok(Ok(partitions)) = clock::timeout(ASK * 2, self.client.partitions()).await {
            look.changes = changes(&self.partitions, &partitions);
            self.partitions = partitions;
        }
        look.leaders = self.partitions.iter().map(|one| one.leader.clone().unwrap_or_default()).collect();
        look.leaderless = look.leaders.iter().filter(|leader| leader.is_empty()).count();
        let moves = |one: &&PartitionInfo| one.replicas.iter().any(|replica| replica.state != ReplicaState::Holding);
        look.moving = self.partitions.iter().filter(moves).count();
        look.under_replicated = self.partitions.iter().filter(|one| one.under_replicated > 0).count();
        look
    }

    fn peer(&mut self, peer: &Peer, metrics: Option<&str>) -> PeerLook {
        let mut look = PeerLook { name: peer.name.clone(), address: peer.address.clone(), ..PeerLook::default() };
        let Some(metrics) = metrics else {
            look.state = if peer.has_ended() { "dead" } else { "silent" };
            self.counts.remove(&peer.name);
            return look;
        };
        let number = |name| endpoint::counter(metrics, name).unwrap_or(0);
        look.state = if number("keystead_ready") == 1 { "serving" } else { "not ready" };
        look.leaders = number("keystead_partition_leaders");
        look.replicas = number("keystead_partition_replicas");
        look.rows = number("keystead_rows");
        let now = Counts { commands: number("keystead_commands_total"), entries: number("keystead_log_entries_total") };
        if let Some((at, then)) = self.counts.insert(peer.name.clone(), (Instant::now(), now)) {
            let seconds = at.elapsed().as_secs_f64().max(0.001);
            look.commands_per_second = now.commands.saturating_sub(then.commands) as f64 / seconds;
            look.entries_per_second = now.entries.saturating_sub(then.entries) as f64 / seconds;
        }
        look
    }
}

async fn metrics(peer: &Peer) -> Option<String> {
    match endpoint::get(peer.http(), "/metrics", ASK).await {
        Ok((200, metrics)) => Some(metrics),
        _ => None,
    }
}

/// What moved between two looks: leaders and replicas of partitions.
fn changes(before: &[PartitionInfo], now: &[PartitionInfo]) -> Vec<String> {
    let names = |one: &PartitionInfo| {
        let mut names: Vec<&str> = one.replicas.iter().map(|replica| replica.name.as_str()).collect();
        names.sort_unstable();
        names.join(",")
    };
    let leader = |one: &PartitionInfo| one.leader.clone().unwrap_or_else(|| "nobody".to_owned());
    let mut told = Vec::new();
    for (then, now) in before.iter().zip(now).filter(|(then, now)| then.id == now.id) {
        if leader(then) != leader(now) {
            told.push(format!("partition {}: led by {}, was {}", now.id, leader(now), leader(then)));
        }
        if names(then) != names(now) {
            told.push(format!("partition {}: on {}, was on {}", now.id, names(now), names(then)));
        }
    }
    if told.len() > TOLD {
        let more = told.len() - TOLD + 1;
        told.truncate(TOLD - 1);
        told.push(format!("and {more} more changes of leaders and replicas"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PartitionId;

    fn partition(id: u32, leader: &str) -> PartitionInfo {
        PartitionInfo {
            id: PartitionId(id),
            first_slot: 0,
            last_slot: 0,
            leader: Some(leader.to_owned()),
            replicas: Vec::new(),
            term: 1,
            applied: 0,
            rows: 0,
            under_replicated: 0,
        }
    }

    #[test]
    fn changes_are_told_and_many_are_summed_up() {
        let before: Vec<_> = (0..8).map(|id| partition(id, "n1")).collect();
        let mut now = before.clone();
        assert_eq!(changes(&before, &now), Vec::<String>::new());
        now[2].leader = Some("n2".to_owned());
        assert_eq!(changes(&before, &now), ["partition 2: led by n2, was n1"]);
        now.iter_mut().for_each(|one| one.leader = None);
        let told = changes(&before, &now);
        assert_eq!((told.len(), told[3].as_str()), (4, "and 5 more changes of leaders and replicas"));
    }
}
