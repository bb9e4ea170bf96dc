//! Peers that join, leave and die while the grid is written to: every partition ends where it
//! should be, and nothing that was acknowledged is lost.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, addresses, free_ports};
use keystead::Grid;
use keystead::client::Client;
use keystead::clock;
use keystead::node::{GridService, MemberState, PartitionInfo};
use keystead::types::{KeyCodec, Value, ValueCodec};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PARTITIONS: u32 = 8;

/// Starts a peer whose moves begin soon.
async fn start(name: &str, listen: &str, seeds: &[String], dir: &Path) -> Grid {
    Grid::builder()
        .name(name)
        .listen(listen)
        .seeds(seeds.iter().cloned())
        .data(dir.join(name))
        .partitions(PARTITIONS)
        .adjust(|settings| {
            settings.movement.settle = Duration::from_millis(200);
            settings.movement.replace_after = Duration::from_secs(3);
            settings.movement.abandon_after = Duration::from_secs(2);
        })
        .start()
        .await
        .expect("starts")
}

async fn founders(count: usize, dir: &Path) -> (Vec<String>, Vec<Grid>) {
    let seeds = addresses(&free_ports(count));
    let mut peers = Vec::new();
    for (at, listen) in seeds.iter().enumerate() {
        peers.push(start(&format!("n{}", at + 1), listen, &seeds, dir).await);
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    (seeds, peers)
}

async fn join(name: &str, seeds: &[String], dir: &Path) -> Grid {
    let listen = addresses(&free_ports(1)).remove(0);
    let peer = start(name, &listen, seeds, dir).await;
    peer.wait_ready(PATIENCE).await.expect("serves");
    peer
}

/// Waits until the partitions are as wanted, as one peer sees them.
async fn until(peer: &Grid, what: &str, holds: impl Fn(&[PartitionInfo]) -> bool) -> Vec<PartitionInfo> {
    let give_up = clock::Instant::now() + PATIENCE;
    loop {
        let partitions = peer.node().partitions().await.unwrap_or_default();
        if partitions.len() == PARTITIONS as usize && holds(&partitions) {
            return partitions;
        }
        assert!(clock::Instant::now() < give_up, "{what}: {partitions:#?}");
        clock::sleep(Duration::from_millis(50)).await;
    }
}

/// Replicas per peer, and leaderships per peer.
fn shares(partitions: &[PartitionInfo]) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut held, mut led) = (BTreeMap::new(), BTreeMap::new());
    for partition in partitions {
        for replica in &partition.replicas {
            *held.entry(replica.name.clone()).or_default() += 1;
        }
        *led.entry(partition.leader.clone().unwrap_or_default()).or_default() += 1;
    }
    (held, led)
}

fn have_copies(partitions: &[PartitionInfo], copies: usize) -> bool {
    partitions.iter().all(|p| p.replicas.len() == copies && p.leader.is_some())
}

/// Writers that go on through everything, each with its own keys; they count what was acknowledged.
struct Writers {
    client: Client,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
    tasks: Vec<clock::JoinHandle<u64>>,
}

impl Writers {
    async fn start(client: Client) -> Writers {
        client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
        let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = |writer: u64| {
            let (client, stop, total) = (client.clone(), stop.clone(), total.clone());
            clock::spawn(async move {
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{writer}-{acknowledged}");
                    client.put("m", key, Value::utf8(acknowledged.to_string())).await.expect("a write succeeds");
                    acknowledged += 1;
                    total.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            })
        };
        let tasks = (0..4).map(task).collect();
        Writers { client, stop, total, tasks }
    }

    /// Waits until some more writes are acknowledged.
    async fn more(&self) {
        let (before, give_up) = (self.total.load(Ordering::Relaxed), clock::Instant::now() + PATIENCE);
        while self.total.load(Ordering::Relaxed) < before + 50 {
            assert!(clock::Instant::now() < give_up, "the writers do not get on");
            clock::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the writers and reads everything back through this client.
    async fn finish(self, through: &Client) {
        self.stop.store(true, Ordering::Relaxed);
        for (writer, task) in self.tasks.into_iter().enumerate() {
            let acknowledged = task.await.expect("the writer ends");
            let keys: Vec<String> = (0..acknowledged).map(|number| format!("{writer}-{number}")).collect();
            for (some, first) in keys.chunks(500).zip((0..).step_by(500)) {
                let found = through.get_many("m", some).await.expect("reads");
                for (number, entry) in (first..).zip(found) {
                    let value = entry.map(|entry| entry.value);
                    assert_eq!(value, Some(Value::utf8(number.to_string())), "{writer}-{number} is lost");
                }
            }
        }
        drop(self.client);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_grows_from_one_to_four_under_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = founders(1, dir.path()).await;
    let writers = Writers::start(peers[0].client().await.expect("connects")).await;
    for (number, copies) in [(2, 2), (3, 3), (4, 3)] {
        writers.more().await;
        peers.push(join(&format!("n{number}"), &seeds, dir.path()).await);
        until(&peers[0], "every partition has its copies", |partitions| {
            let (held, led) = shares(partitions);
            let share = PARTITIONS as usize * copies / number;
            let name = format!("n{number}");
            have_copies(partitions, copies)
                && held.get(&name).is_some_and(|held| *held + 1 >= share)
                && led.len() == number
        })
        .await;
    }
    writers.more().await;
    let client = peers[3].client().await.expect("connects");
    writers.finish(&client).await;
    let members = peers[3].node().members().await.expect("members");
    assert!(members.iter().all(|member| member.state == MemberState::Alive && member.leaders > 0), "{members:#?}");
    for peer in peers {
        peer.shutdown().await;
    }
}
