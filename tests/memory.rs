//! Peers with a memory limit, through the client: states several times the limit, restarts, and
//! what a peer says when nothing is left that could leave RAM.
#![allow(missing_docs, clippy::disallowed_methods)]

mod common;

use common::{PATIENCE, addresses, free_ports};
use keystead::Grid;
use keystead::client::{CallOptions, Client};
use keystead::error::Code;
use keystead::partition::MemoryLimit;
use keystead::types::{Eviction, KeyCodec, MapOptions, MapSpec, Op, ReadLevel, ReplyBody, Value, ValueCodec};
use std::path::Path;

const MAP: &str = "large";
const LIMIT: u64 = 2 << 20;

fn value(number: u32, version: u8) -> Value {
    let word = number.wrapping_mul(0x9E37_79B9) ^ u32::from(version);
    Value::bytes(word.to_le_bytes().repeat(256))
}

fn key(number: u32) -> String {
    format!("key-{number}")
}

async fn start(seeds: &[String], at: usize, dir: &Path) -> Grid {
    let founders = if seeds.len() == 1 { Vec::new() } else { seeds.to_vec() };
    Grid::builder()
        .name(&format!("n{at}"))
        .listen(&seeds[at])
        .seeds(founders)
        .data(dir.join(format!("n{at}")))
        .partitions(4)
        .adjust(|settings| settings.memory = MemoryLimit::from(Some(LIMIT)))
        .start()
        .await
        .expect("starts")
}

async fn write(client: &Client, numbers: std::ops::Range<u32>, version: u8) {
    for first in numbers.clone().step_by(100) {
        let lot = first..(first + 100).min(numbers.end);
        let entries: Vec<_> = lot.map(|number| (key(number), value(number, version))).collect();
        client.put_many(MAP, entries).await.expect("acknowledged");
    }
}

async fn check(client: &Client, numbers: std::ops::Range<u32>, version: impl Fn(u32) -> u8) {
    for first in numbers.clone().step_by(100) {
        let lot = first..(first + 100).min(numbers.end);
        let keys: Vec<_> = lot.clone().map(key).collect();
        let found = client.get_many(MAP, &keys).await.expect("read");
        for (number, found) in lot.zip(found) {
            assert_eq!(found.map(|stored| stored.value), Some(value(number, version(number))), "{}", key(number));
        }
    }
}

fn metric(grid: &Grid, name: &str) -> u64 {
    use keystead::node::GridService;
    let text = grid.node().metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("keystead_{name} ")));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no metric {name}:\n{text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_four_times_the_limit_is_served_from_disk_and_survives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(1));
    let grid = start(&seeds, 0, dir.path()).await;
    grid.wait_ready(PATIENCE).await.expect("serves");
    let client = grid.client().await.expect("connects");
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Bytes, 0).await.expect("created");
    let entries = (4 * LIMIT / 1024) as u32;
    write(&client, 0..entries, 0).await;
    write(&client, 0..entries / 8, 1).await;
    let version = |number| u8::from(number < entries / 8);
    check(&client, 0..entries, version).await;
    assert!(metric(&grid, "rows_cold") > u64::from(entries) / 2, "most values are on disk alone");
    assert!(metric(&grid, "memory_used_bytes") < LIMIT, "{}", metric(&grid, "memory_used_bytes"));
    assert!(metric(&grid, "memory_cold_reads_total") > 0);
    // A read from the applied state, in one go.
    let keys: Vec<_> = (0..50).map(|number| key(number * 100).into()).collect();
    let op = Op::GetMany { map: MAP.to_owned(), keys };
    let options = CallOptions { read: ReadLevel::Local, ..CallOptions::default() };
    let ReplyBody::Entries(found) = client.execute(op, options).await.expect("read").body else { panic!("no entries") };
    for (number, found) in (0..50).zip(found) {
        assert_eq!(found.map(|stored| stored.value), Some(value(number * 100, version(number * 100))));
    }
    drop(client);
    grid.shutdown().await;

    let grid = start(&seeds, 0, dir.path()).await;
    grid.wait_ready(PATIENCE).await.expect("serves again");
    let client = grid.client().await.expect("connects");
    assert!(metric(&grid, "memory_used_bytes") < LIMIT);
    check(&client, 0..entries, version).await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_peers_keep_within_their_limits_and_the_survivors_have_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let mut peers = Vec::new();
    for at in 0..3 {
        peers.push(start(&seeds, at, dir.path()).await);
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    let client = peers[0].client().await.expect("connects");
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Bytes, 0).await.expect("created");
    let entries = (4 * LIMIT / 1024) as u32;
    write(&client, 0..entries, 0).await;
    drop(client);
    peers.remove(0).shutdown().await;
    let client = peers[0].client().await.expect("connects");
    write(&client, 0..100, 1).await;
    check(&client, 0..entries, |number| u8::from(number < 100)).await;
    for peer in &peers {
        assert!(metric(peer, "rows_cold") > 0);
        assert!(metric(peer, "memory_used_bytes") < LIMIT, "{}", metric(peer, "memory_used_bytes"));
    }
    for peer in peers {
        peer.shutdown().await;
    }
}

/// A grid of one that keeps all of its state in RAM, at most [`LIMIT`] of it, with an empty map.
async fn all_in_ram() -> (Grid, Client) {
    let grid = Grid::builder()
        .listen("127.0.0.1:0")
        .partitions(2)
        .memory()
        .adjust(|settings| settings.memory = MemoryLimit::from(Some(LIMIT)))
        .start()
        .await
        .expect("starts");
    grid.wait_ready(PATIENCE).await.expect("serves");
    let client = grid.client().await.expect("connects");
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Bytes, 0).await.expect("created");
    (grid, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_at_its_limit_refuses_writes_with_a_code_and_reads_and_deletions_go_on() {
    let (grid, client) = all_in_ram().await;
    let mut written = 0;
    let refused = loop {
        match client.put(MAP, key(written), value(written, 0)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(u64::from(written) < 2 * LIMIT / 1024, "nothing was refused");
    };
    assert_eq!(refused.code, Code::MemoryFull, "{refused}");
    assert!(refused.what.contains("memory limit of 2 MiB is reached"), "{refused}");
    assert!(refused.remedy.contains("--memory-limit"), "{refused}");
    assert!(u64::from(written) > LIMIT / 2048, "refused too early: after {written}");
    check(&client, 0..written, |_| 0).await;
    for number in 0..written / 4 {
        assert!(client.delete(MAP, key(number)).await.expect("deleted").existed);
    }
    let until = std::time::Instant::now() + PATIENCE;
    while let Err(error) = client.put(MAP, key(0), value(0, 1)).await {
        assert_eq!(error.code, Code::MemoryFull, "{error}");
        assert!(std::time::Instant::now() < until, "there is room, and writes are still refused");
    }
    assert!(metric(&grid, "memory_refused_writes_total") > 0);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_at_its_limit_lets_a_map_that_evicts_exchange_its_entries() {
    const KEPT: u32 = 100;
    let (grid, client) = all_in_ram().await;
    // Far from its own limit.
    let options = MapOptions::default().max_entries(1 << 30).eviction(Eviction::Lru);
    let cache = MapSpec { options: Some(options), ..MapSpec::new("cache", KeyCodec::Utf8, ValueCodec::Bytes) };
    client.create_map_as(&cache).await.expect("created");
    let cached = |number: u32| format!("c-{number:04}");
    for number in 0..KEPT {
        client.put("cache", cached(number), value(number, 0)).await.expect("there is memory");
    }
    let mut written = 0;
    for number in KEPT..2 * KEPT {
        // To the limit, again and again: what others need comes and goes.
        let refused = loop {
            match client.put(MAP, key(written), value(written, 0)).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(u64::from(written) < 2 * LIMIT / 1024, "nothing was refused");
        };
        assert_eq!(refused.code, Code::MemoryFull, "{refused}");
        client.put("cache", cached(number), value(number, 0)).await.expect("another entry goes for it");
        let found = client.get("cache", cached(number)).await.expect("read").expect("is there");
        assert_eq!(found.value, value(number, 0));
    }
    let evicted = metric(&grid, "entries_evicted_total");
    assert!(evicted > 0, "nothing has gone");
    assert_eq!(client.size("cache").await.expect("sized").entries, u64::from(2 * KEPT) - evicted);
    grid.shutdown().await;
}
