//! The grid of the suite: four processes, the first three founders, and a client. In: which peers are to
//! start or to die. Out: whether the grid has come to rest with equal replicas, and if not, why.

use super::control::{Ask, Held, Told};
use super::patience::Patience;
use super::peer::PARTITIONS;
use super::process::Process;
use anyhow::Context;
use keystead::client::{Client, ClientConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the grid may take to come to rest once all peers are there.
const REST: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// The name of the peer that comes and goes; it is no founder.
pub(super) const GUEST: usize = 3;

/// Free loopback ports, for TCP and UDP.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut kept = Vec::new();
    while kept.len() < count {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            kept.push((tcp, udp, port));
        }
    }
    Ok(kept.iter().map(|(_, _, port)| *port).collect())
}

/// The grid.
pub(super) struct Grid {
    pub(super) peers: Vec<Process>,
    pub(super) client: Client,
    program: PathBuf,
    /// Whether the guest is to hold its share.
    pub(super) guest_drained: bool,
}

impl Grid {
    /// Starts the peers and waits until they serve. `program` is this crate's own.
    pub(super) async fn start(program: &Path, dir: &Path) -> anyhow::Result<Grid> {
        let ports = free_ports(4)?;
        let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let founders = &addresses[..GUEST];
        // Both backends in one grid: whatever one of them does to a replica, others hold it with the other.
        let backends = ["memory", "sled", "memory", "sled"];
        let mut peers = Vec::new();
        for (at, (address, backend)) in addresses.iter().zip(backends).enumerate() {
            let mut peer = Process::new(&format!("n{}", at + 1), address, backend, founders, dir);
            peer.start(program, None)?;
            peers.push(peer);
        }
        for peer in &mut peers {
            peer.ask(&Ask::Ready).await?;
        }
        let config = ClientConfig {
            deadline: Duration::from_secs(8),
            attempt_timeout: Duration::from_secs(1),
            create_maps: true,
            ..ClientConfig::default()
        };
        let client = Client::connect(addresses.clone(), config).await.context("no client")?;
        Ok(Grid { peers, client, program: program.to_owned(), guest_drained: false })
    }

    /// Starts a peer that is dead.
    pub(super) fn start_peer(&mut self, at: usize, armed: Option<(&str, &str)>) -> anyhow::Result<()> {
        self.peers[at].start(&self.program, armed)
    }

    /// Starts all that are dead; they serve when this returns.
    pub(super) async fn start_all(&mut self) -> anyhow::Result<()> {
        for at in 0..self.peers.len() {
            if self.peers[at].has_ended() {
                self.start_peer(at, None)?;
            }
        }
        for peer in &mut self.peers {
            peer.ask(&Ask::Ready).await?;
        }
        Ok(())
    }

    /// Has the guest give away what it holds, or take its share again; returns at once.
    pub(super) async fn drain_guest(&mut self, drained: bool) -> keystead::error::Result<()> {
        self.guest_drained = drained;
        self.client.drain_member("n4", !drained).await.map(drop)
    }

    async fn replicas(&mut self) -> anyhow::Result<Vec<(String, Held)>> {
        let mut all = Vec::new();
        for peer in &mut self.peers {
            if let Told::Replicas(held) = peer.ask(&Ask::Replicas).await? {
                all.extend(held.into_iter().map(|held| (peer.name.clone(), held)));
            }
        }
        Ok(all)
    }

    /// Waits until a peer leads a partition, for some time; who has just started leads none.
    pub(super) async fn until_leads(&mut self, at: usize) {
        let mut patience = Patience::of(REST, LOOK);
        while patience.next().await {
            let partitions = self.client.partitions().await.unwrap_or_default();
            if partitions
                .iter()
                .any(|partition| partition.leader.as_ref().is_some_and(|name| *name == self.peers[at].name))
            {
                return;
            }
        }
    }

    /// Sum of the indexes up to which logs have been purged at a peer.
    pub(super) async fn purged(&mut self, at: usize) -> anyhow::Result<u64> {
        match self.peers[at].ask(&Ask::Replicas).await? {
            Told::Replicas(held) => Ok(held.iter().map(|held| held.purged).sum()),
            _ => Ok(0),
        }
    }

    /// Waits until nothing moves and all replicas of each group are equal; clients must be at rest.
    pub(super) async fn come_to_rest(&mut self) -> Vec<String> {
        let mut patience = Patience::of(REST, LOOK);
        loop {
            let unrest = match self.unrest().await {
                Ok(unrest) => unrest,
                Err(error) => vec![format!("{error:#}")],
            };
            if unrest.is_empty() || !patience.next().await {
                return unrest.into_iter().map(|what| format!("does not come to rest: {what}")).collect();
            }
        }
    }

    async fn unrest(&mut self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for peer in &mut self.peers {
            if peer.has_ended() {
                found.push(format!("{} has died: {}", peer.name, peer.last_words()));
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let partitions = self.client.partitions().await?;
        for partition in &partitions {
            let id = partition.id;
            if partition.leader.is_none() {
                found.push(format!("partition {id} has no leader"));
            }
            if partition.under_replicated > 0 || partition.replicas.len() != 3 {
                found.push(format!(
                    "partition {id} has {} replicas: {:?}",
                    partition.replicas.len(),
                    partition.replicas
                ));
            }
            if partition.replicas.iter().any(|replica| replica.state != keystead::node::ReplicaState::Holding) {
                found.push(format!("partition {id} moves"));
            }
        }
        if partitions.len() != PARTITIONS as usize {
            found.push(format!("{} partitions are told of", partitions.len()));
        }
        if found.is_empty() {
            found = differences(&self.replicas().await?);
        }
        Ok(found)
    }
}

/// What keeps the replicas of a group from being equal.
fn differences(all: &[(String, Held)]) -> Vec<String> {
    let mut groups: BTreeMap<u32, Vec<&(String, Held)>> = BTreeMap::new();
    for held in all {
        groups.entry(held.1.group).or_default().push(held);
    }
    let mut found = Vec::new();
    for (group, held) in groups {
        let states: BTreeSet<(u64, (usize, u64))> = held.iter().map(|(_, held)| (held.applied, held.rows)).collect();
        // The meta group has a copy on each peer; a partition has three replicas, and one more that is
        // being given up is not at rest.
        let wanted = if group == 0 { 4 } else { 3 };
        if states.len() > 1 || held.len() != wanted {
            let told =
                |(name, held): &&(String, Held)| format!("{name}/{}: {} {:x?}", held.replica, held.applied, held.rows);
            let told: Vec<String> = held.iter().map(told).collect();
            found.push(format!("group {group} differs: {}", told.join(", ")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_differ_are_found() {
        let held = |name: &str, group, applied, digest| {
            (name.to_owned(), Held { group, replica: 1, applied, purged: 0, rows: (1, digest) })
        };
        let mut all = vec![held("n1", 1, 7, 1), held("n2", 1, 7, 1), held("n3", 1, 7, 1)];
        assert_eq!(differences(&all), Vec::<String>::new());
        all[2].1.rows.1 = 2;
        assert_eq!(differences(&all).len(), 1, "another row");
        all[2] = held("n3", 1, 8, 1);
        assert_eq!(differences(&all).len(), 1, "another index");
        all.pop();
        assert_eq!(differences(&all).len(), 1, "one is missing");
    }
}
