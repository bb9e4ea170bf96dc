//! Time to live and limits of maps: by the partition's time, through failover, and with clocks
//! that the test sets.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, addresses, free_ports};
use keystead::Grid;
use keystead::client::{CallOptions, Client};
use keystead::clock::{self, WallClock};
use keystead::config::Backend;
use keystead::error::Code;
use keystead::node::{GridService, Ports};
use keystead::types::{Eviction, KeyCodec, MapOptions, MapSpec, Op, ReadLevel, ReplyBody, Value, ValueCodec};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const HOUR_MS: u64 = 3_600_000;

/// A wall clock that stands still until the test sets it.
#[derive(Clone)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn new() -> Self {
        SetClock(Arc::new(AtomicU64::new(1_700_000_000_000)))
    }

    fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl WallClock for SetClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

async fn alone(clock: &SetClock) -> (Grid, Client) {
    let ports = Ports { clock: Arc::new(clock.clone()), ..Ports::with_backend(Backend::Memory, None) };
    let builder = Grid::builder().name("n1").listen("127.0.0.1:0").partitions(2).memory();
    let grid = builder.ports(ports).start().await.expect("starts");
    grid.wait_ready(PATIENCE).await.expect("serves");
    let client = grid.client().await.expect("connects");
    (grid, client)
}

async fn create(client: &Client, map: &str, options: MapOptions) {
    let spec = MapSpec::new(map, KeyCodec::Utf8, ValueCodec::Utf8).options(options);
    client.create_map_as(&spec).await.expect("creates");
}

async fn text(client: &Client, map: &str, key: &str) -> Option<String> {
    let entry = client.get(map, key).await.expect("reads");
    entry.map(|entry| String::from_utf8(entry.value.data.to_vec()).expect("text"))
}

async fn local(client: &Client, map: &str, key: &str) -> Option<Value> {
    let op = Op::Get { map: map.to_owned(), key: key.to_owned().into() };
    let options = CallOptions { read: ReadLevel::Local, ..CallOptions::default() };
    match client.execute(op, options).await.expect("reads").body {
        ReplyBody::Entry(entry) => entry.map(|entry| entry.value),
        other => panic!("{other:?}"),
    }
}

/// A counter of a peer's metrics.
fn counter(grid: &Grid, name: &str) -> u64 {
    let text = grid.node().metrics();
    let line = text.lines().find(|line| line.starts_with(&format!("keystead_{name}_total ")));
    line.and_then(|line| line.rsplit(' ').next()).expect("the counter").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_there_until_its_time_and_never_after() {
    let clock = SetClock::new();
    let (grid, client) = alone(&clock).await;
    create(&client, "cache", MapOptions::default().ttl(Duration::from_millis(HOUR_MS))).await;
    create(&client, "kept", MapOptions::default()).await;
    let put = client.put("cache", "a", Value::utf8("1")).await.expect("puts");
    client.put("kept", "a", Value::utf8("1")).await.expect("puts");
    client.increment("cache", "n", 1).await.expect("begins");
    clock.pass(HOUR_MS - 1);
    assert_eq!(text(&client, "cache", "a").await.as_deref(), Some("1"));
    assert_eq!(client.increment("cache", "n", 1).await.expect("adds").value, 2);
    assert_eq!(local(&client, "cache", "a").await, Some(Value::utf8("1")));
    clock.pass(1);
    // A number keeps the time that it began with.
    assert_eq!(client.increment("cache", "n", 1).await.expect("begins anew").value, 1);
    assert_eq!(text(&client, "cache", "a").await, None);
    assert_eq!(local(&client, "cache", "a").await, None);
    assert_eq!(text(&client, "kept", "a").await.as_deref(), Some("1"));
    let again = client.compare_and_set_revision("cache", "a", put.revision, Value::utf8("2")).await.expect("answers");
    assert!(!again.is_written(), "what has expired has no revision");
    assert!(client.put_if_absent("cache", "a", Value::utf8("3")).await.expect("answers").is_written());
    assert_eq!(text(&client, "cache", "a").await.as_deref(), Some("3"));
    assert!(!client.delete("cache", "never").await.expect("answers").existed);

    client.put_with_ttl("kept", "b", Value::utf8("1"), Duration::from_secs(10)).await.expect("puts");
    clock.pass(9_999);
    let touched = client.touch("kept", "b", Some(Duration::from_secs(20))).await.expect("touches");
    assert!(touched.existed);
    clock.pass(19_999);
    let entry = client.get("kept", "b").await.expect("reads").expect("there");
    assert_eq!((entry.revision, entry.expires_ms), (touched.revision, clock.unix_ms() + 1));
    clock.pass(1);
    assert!(!client.touch("kept", "b", None).await.expect("answers").existed, "it is gone for good");
    assert_eq!(client.size("kept").await.expect("counts").entries, 1);
    let endless = client.put_with_ttl("kept", "b", Value::utf8("1"), Duration::MAX).await.expect_err("too long");
    assert_eq!(endless.code, Code::InvalidRequest);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_go_although_nobody_asks() {
    let builder = Grid::builder().name("n1").listen("127.0.0.1:0").partitions(2).memory();
    let grid = builder.start().await.expect("starts");
    grid.wait_ready(PATIENCE).await.expect("serves");
    let client = grid.client().await.expect("connects");
    create(&client, "cache", MapOptions::default().ttl(Duration::from_millis(150))).await;
    for key in 0..100 {
        client.put("cache", format!("k{key}"), Value::utf8("v")).await.expect("puts");
    }
    let gone = async {
        while counter(&grid, "entries_expired") < 100 {
            clock::sleep(Duration::from_millis(10)).await;
        }
    };
    clock::timeout(PATIENCE, gone).await.expect("they all go by themselves");
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_map_refuses_or_evicts() {
    let clock = SetClock::new();
    let (grid, client) = alone(&clock).await;
    // Two partitions: five entries each.
    create(&client, "strict", MapOptions::default().max_entries(10)).await;
    let keys: Vec<String> = (0..6).map(|key| format!("{{one}}{key}")).collect();
    for key in &keys[..5] {
        client.put("strict", key, Value::utf8("v")).await.expect("fits");
    }
    let refused = client.put("strict", &keys[5], Value::utf8("v")).await.expect_err("full");
    assert_eq!(refused.code, Code::MapFull);
    for part in ["5 of at most 5 entries", "limit is 10", "map \"strict\"", "delete entries"] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    client.put("strict", &keys[0], Value::utf8("again")).await.expect("no entry more");
    client.delete("strict", &keys[1]).await.expect("deletes");
    client.put("strict", &keys[5], Value::utf8("v")).await.expect("there is room again");

    for (map, eviction) in [("lru", Eviction::Lru), ("lfu", Eviction::Lfu)] {
        create(&client, map, MapOptions::default().max_entries(10).eviction(eviction)).await;
        for key in &keys[..5] {
            client.put(map, key, Value::utf8("v")).await.expect("fits");
            clock.pass(10);
        }
        for _ in 0..200 {
            text(&client, map, &keys[0]).await.expect("still there");
        }
        clock.pass(10);
        client.put(map, &keys[5], Value::utf8("v")).await.expect("makes room");
        assert_eq!(text(&client, map, &keys[1]).await, None, "{map}: the one that was idle for longest");
        for key in [0, 2, 3, 4, 5] {
            assert!(text(&client, map, &keys[key]).await.is_some(), "{map}: {key}");
        }
    }
    assert_eq!((counter(&grid, "entries_evicted"), counter(&grid, "writes_map_full")), (2, 1));

    create(&client, "bytes", MapOptions::default().max_bytes(2_000).eviction(Eviction::Lru)).await;
    for key in 0..50 {
        client.put("bytes", format!("{{one}}{key}"), Value::utf8("x".repeat(200))).await.expect("makes room");
    }
    let mut left = 0;
    for key in 0..50 {
        left += usize::from(text(&client, "bytes", &format!("{{one}}{key}")).await.is_some());
    }
    assert_eq!(left, 4, "of 1,000 bytes a partition");
    let huge = client.put("bytes", "{one}0", Value::utf8("x".repeat(1_001))).await.expect_err("larger than all of it");
    assert_eq!(huge.code, Code::MapFull);
    grid.shutdown().await;
}

async fn start_with(clocks: &[SetClock], dir: &Path) -> Vec<Grid> {
    let seeds = addresses(&free_ports(3));
    let mut peers = Vec::new();
    for (at, clock) in clocks.iter().enumerate() {
        let ports = Ports { clock: Arc::new(clock.clone()), ..Ports::with_backend(Backend::Memory, None) };
        let builder = Grid::builder().name(&format!("n{}", at + 1)).listen(&seeds[at]).seeds(seeds.iter().cloned());
        let builder = builder.data(dir.join(format!("n{}", at + 1))).partitions(2).ports(ports);
        peers.push(builder.start().await.expect("starts"));
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    peers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_slow_clock_shows_nothing_again_and_hides_nothing_early() {
    let dir = tempfile::tempdir().expect("a directory");
    let clocks = [SetClock::new(), SetClock::new(), SetClock::new()];
    let mut peers = start_with(&clocks, dir.path()).await;
    let client = peers[0].client().await.expect("connects");
    create(&client, "cache", MapOptions::default().ttl(Duration::from_millis(3_000))).await;
    client.put("cache", "{x}old", Value::utf8("1")).await.expect("puts");
    let explained = client.explain("{x}old", None).await.expect("explains").partition;
    let leader = peers.iter().position(|peer| {
        peer.node()
            .placement()
            .partitions
            .iter()
            .any(|(first, at, _)| *first == explained.first_slot && at == peer.address())
    });
    let leader = leader.expect("a peer leads it");
    // Only the leader's clock goes on: it alone decides.
    clocks[leader].pass(3_000);
    assert_eq!(text(&client, "cache", "{x}old").await, None);
    client.put("cache", "{x}new", Value::utf8("2")).await.expect("puts");
    let survivor = (leader + 1) % 3;
    let client = peers[survivor].client().await.expect("connects");
    peers.remove(leader).shutdown().await;
    // The next leader's clock is three seconds behind the partition's time.
    assert_eq!(text(&client, "cache", "{x}old").await, None, "shown again");
    assert_eq!(text(&client, "cache", "{x}new").await.as_deref(), Some("2"));
    for clock in &clocks {
        clock.pass(5_000);
    }
    assert_eq!(text(&client, "cache", "{x}new").await.as_deref(), Some("2"), "hidden a second early");
    for clock in &clocks {
        clock.pass(1_000);
    }
    assert_eq!(text(&client, "cache", "{x}new").await, None);
    for peer in peers {
        peer.shutdown().await;
    }
}
