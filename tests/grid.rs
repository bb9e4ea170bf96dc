//! Three peers in one process, over the machine's network and disk.
#![allow(missing_docs)]

mod common;

use bytes::Bytes;
use common::{PATIENCE, start_peer, start_three};
use keystead::Grid;
use keystead::client::{CallOptions, Client};
use keystead::clock::{self, SystemThreads};
use keystead::config::Backend;
use keystead::node::{GridService, MemberState, PartitionInfo, Ports};
use keystead::storage::backend::{MemoryBackend, ReplicaKey, Rows, StateBackend};
use keystead::storage::disk::StdDisk;
use keystead::storage::log::{LogConfig, SharedLog};
use keystead::types::{GroupId, KeyCodec, Op, PartitionId, ReadLevel, ReplyBody, Value, ValueCodec};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_peers_form_a_grid_and_keep_what_they_acknowledge() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = start_three(dir.path(), 8).await;
    let client = peers[0].client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    for i in 0..200 {
        client.put("m", format!("k{i}"), Value::utf8(format!("v{i}"))).await.expect("puts");
    }
    let found = client.get("m", "k7").await.expect("gets").expect("is there");
    assert_eq!(found.value, Value::utf8("v7"));
    assert_eq!(client.members().await.expect("members").len(), 3);

    // One goes; the others still have everything, and take more.
    peers.remove(1).shutdown().await;
    for i in 0..200 {
        let found = client.get("m", format!("k{i}")).await.expect("gets").expect("is there");
        assert_eq!(found.value, Value::utf8(format!("v{i}")));
    }
    client.put("m", "more", Value::utf8("x")).await.expect("puts");

    // It comes back with its disk.
    let back = start_peer(&seeds, 1, dir.path(), 8).await;
    back.wait_ready(PATIENCE).await.expect("serves again");
    let through = back.client().await.expect("connects");
    assert_eq!(through.get("m", "more").await.expect("gets").expect("is there").value, Value::utf8("x"));
    assert_eq!(back.node().partitions().await.expect("partitions").len(), 8);
    back.shutdown().await;
    for peer in peers {
        peer.shutdown().await;
    }
}

async fn fill(client: &Client, map: &str, count: usize) {
    client.create_map(map, KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    for i in 0..count {
        client.put(map, format!("k{i}"), Value::utf8(format!("value-to-be-found-{i}"))).await.expect("puts");
    }
}

async fn check(client: &Client, map: &str, count: usize) {
    for i in 0..count {
        let found = client.get(map, format!("k{i}")).await.expect("gets").expect("is there");
        assert_eq!(found.value, Value::utf8(format!("value-to-be-found-{i}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_weight_is_a_member_that_forwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut seeds, peers) = start_three(dir.path(), 4).await;
    let before = peers[0].client().await.expect("connects");
    fill(&before, "m", 10).await;
    seeds.extend(common::addresses(&common::free_ports(1)));
    let joiner = Grid::builder()
        .name("n4")
        .listen(&seeds[3])
        .seeds(seeds.iter().take(3).cloned())
        .data(dir.path().join("n4"))
        .adjust(|settings| settings.weight = 0)
        .start()
        .await
        .expect("starts");
    joiner.wait_ready(PATIENCE).await.expect("serves");
    let members = joiner.node().members().await.expect("members");
    assert_eq!(members.len(), 4, "{members:?}");
    let own = members.iter().find(|member| member.name == "n4").expect("the joiner");
    assert_eq!((own.replicas, own.state), (0, MemberState::Alive));

    // Through the joiner alone, without going to the leader: it forwards.
    let read = |key: &str| {
        let op = Op::Get { map: "m".into(), key: key.to_owned().into() };
        let request = keystead::types::Request {
            affinity: None,
            op,
            read: ReadLevel::Linearizable,
            ack: Default::default(),
            stamp: None,
            deadline_ms: 10_000,
        };
        let node = joiner.node().clone();
        async move { node.execute(request, 0).await.expect("is forwarded") }
    };
    let reply = read("k3").await;
    assert_eq!(reply.served.hops, 1);
    assert!(matches!(reply.body, ReplyBody::Entry(Some(entry)) if entry.value == Value::utf8("value-to-be-found-3")));
    joiner.shutdown().await;
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_read_names_its_applied_index() {
    let peer = Grid::builder().listen("127.0.0.1:0").partitions(2).memory().start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    let client = peer.client().await.expect("connects");
    fill(&client, "m", 3).await;
    let options = CallOptions { read: ReadLevel::Local, ..CallOptions::default() };
    let reply = client.execute(Op::Get { map: "m".into(), key: "k1".into() }, options).await.expect("reads");
    assert!(reply.served.applied > 0 && reply.served.term == 0, "{:?}", reply.served);
    let partitions = peer.node().partitions().await.expect("partitions");
    assert!(partitions.iter().all(|partition| partition.under_replicated == 2), "one peer cannot hold three replicas");
    peer.shutdown().await;
}

/// Changes one byte of an entry in the log, below what had been durable.
fn damage(data: &Path) {
    let needle = b"value-to-be-found-7";
    let log = data.join("log");
    let mut hit = false;
    for entry in std::fs::read_dir(&log).expect("the log's directory") {
        let path = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&path).expect("a segment");
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).expect("writes");
            hit = true;
        }
    }
    assert!(hit, "the entry is in the log");
}

async fn partitions_when(peer: &Grid, what: &str, holds: impl Fn(&[PartitionInfo]) -> bool) -> Vec<PartitionInfo> {
    let until = clock::Instant::now() + PATIENCE;
    loop {
        let partitions = peer.node().partitions().await.unwrap_or_default();
        if holds(&partitions) {
            return partitions;
        }
        assert!(clock::Instant::now() < until, "{what}: {partitions:?}");
        clock::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_is_replaced_on_its_own_node_under_a_new_id() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = start_three(dir.path(), 2).await;
    fill(&peers[0].client().await.expect("connects"), "m", 40).await;
    let before = peers[0].node().partitions().await.expect("partitions");
    let ids = |partitions: &[PartitionInfo]| -> Vec<u64> {
        partitions.iter().flat_map(|partition| partition.replicas.iter().map(|replica| replica.replica)).collect()
    };
    peers.remove(1).shutdown().await;
    damage(&dir.path().join("n2"));
    let back = start_peer(&seeds, 1, dir.path(), 2).await;
    let replaced = |partitions: &[PartitionInfo]| !partitions.is_empty() && ids(partitions) != ids(&before);
    let after = partitions_when(&peers[0], "the placement names a new id", replaced).await;
    let changed = ids(&after).iter().zip(ids(&before)).filter(|(new, old)| *new != old).count();
    assert_eq!(changed, 1, "only the damaged replica is replaced: {before:?} {after:?}");
    back.wait_ready(PATIENCE).await.expect("serves again");

    // It votes under its new id: with another peer gone, the grid still works.
    let new_id = ids(&after).into_iter().max().expect("an id");
    let group = after.iter().find(|partition| partition.replicas.iter().any(|replica| replica.replica == new_id));
    let group = group.expect("its partition").id.group();
    let until = clock::Instant::now() + PATIENCE;
    while !peers.iter().chain([&back]).any(|peer| peer.node().votes_in(group).contains(&new_id)) {
        assert!(clock::Instant::now() < until, "the new replica never votes");
        clock::sleep(Duration::from_millis(50)).await;
    }
    peers.remove(0).shutdown().await;
    let client = back.client().await.expect("connects");
    check(&client, "m", 40).await;
    client.put("m", "after", Value::utf8("x")).await.expect("puts");
    back.shutdown().await;
    peers.remove(0).shutdown().await;
}

/// Changed to checkpoint and purge at once, so that a little work leaves only checkpoints behind.
async fn start_eager(seeds: &[String], at: usize, dir: &Path) -> keystead::error::Result<Grid> {
    Grid::builder()
        .name(&format!("n{}", at + 1))
        .listen(&seeds[at])
        .seeds(seeds.iter().cloned())
        .data(dir.join(format!("n{}", at + 1)))
        .partitions(2)
        .adjust(|settings| {
            settings.housekeeping.checkpoint_bytes = 1;
            settings.housekeeping.replay_bytes = 0;
            settings.housekeeping.keep_entries = 0;
            settings.housekeeping.period = Duration::from_millis(50);
        })
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_state_is_gone_is_replaced_and_a_lost_log_stops_the_peer() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = common::addresses(&common::free_ports(3));
    let mut peers = Vec::new();
    for at in 0..3 {
        peers.push(start_eager(&seeds, at, dir.path()).await.expect("starts"));
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    fill(&peers[0].client().await.expect("connects"), "m", 60).await;
    let groups = [PartitionId(0).group(), PartitionId(1).group()];
    let until = clock::Instant::now() + PATIENCE;
    while groups.iter().any(|group| peers[2].node().purged_to(*group) == 0) {
        assert!(clock::Instant::now() < until, "the log never forgets");
        clock::sleep(Duration::from_millis(20)).await;
    }
    let before = peers[0].node().partitions().await.expect("partitions");

    // The state goes, the log stays: every replica of the peer gets a new id, and the data comes back.
    peers.remove(2).shutdown().await;
    std::fs::remove_dir_all(dir.path().join("n3/state")).expect("the state's directory");
    let back = start_eager(&seeds, 2, dir.path()).await.expect("starts");
    let replaced = |partitions: &[PartitionInfo]| {
        partitions.len() == before.len()
            && partitions.iter().zip(&before).all(|(new, old)| new.replicas != old.replicas)
            && partitions.iter().all(|partition| {
                let newest = partition.replicas.iter().map(|replica| replica.replica).max();
                newest.is_some_and(|newest| back.node().votes_in(partition.id.group()).contains(&newest))
            })
    };
    partitions_when(&peers[0], "new replicas vote", replaced).await;
    peers.remove(0).shutdown().await;
    check(&back.client().await.expect("connects"), "m", 60).await;

    // The log goes, the identity stays: the peer must not vote again, and says so.
    back.shutdown().await;
    for entry in std::fs::read_dir(dir.path().join("n3/log")).expect("the log's directory") {
        std::fs::File::create(entry.expect("an entry").path()).expect("truncates");
    }
    let refused = start_eager(&seeds, 2, dir.path()).await.err().expect("is refused");
    assert_eq!(refused.code, keystead::error::Code::CorruptLog, "{refused}");
    peers.remove(0).shutdown().await;
}

/// A peer of a grid of its own, whose checkpoints are files.
async fn alone(data: &Path) -> Grid {
    let ports = Ports::with_backend(Backend::Memory, None);
    let peer = Grid::builder().name("n1").listen("127.0.0.1:0").data(data).partitions(1).ports(ports);
    let peer = peer.start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_of_a_replica_that_was_given_up_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    alone(&data).await.shutdown().await;
    // As if the peer had died between a tombstone and the removal; and what the log knows nothing of.
    let (group, given_up, unknown) = (GroupId(1), 99, 98);
    {
        let threads = Arc::new(SystemThreads);
        let (log, _) =
            SharedLog::open(Arc::new(StdDisk), threads, &data.join("log"), LogConfig::default()).expect("opens");
        log.tombstone(group, given_up).await.expect("given up");
        log.shutdown().await;
        let backend = MemoryBackend::open(Arc::new(StdDisk), data.join("state")).expect("opens");
        for replica in [given_up, unknown] {
            let none = Rows::All(&mut std::iter::empty());
            backend.checkpoint(ReplicaKey { group, replica }, none, &mut Bytes::new).expect("writes");
        }
    }
    let peer = alone(&data).await;
    let state = |replica| data.join("state").join(format!("snap-{}", ReplicaKey { group, replica }));
    let gone = async {
        while state(given_up).exists() {
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    clock::timeout(PATIENCE, gone).await.expect("removed");
    assert!(state(unknown).exists(), "nobody has given it up");
    peer.shutdown().await;
}
