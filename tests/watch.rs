//! Watches and replicated maps on three peers in one process.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, start_peer, start_three};
use keystead::client::{Client, TypedChange, Watch};
use keystead::clock;
use keystead::error::Code;
use keystead::types::{
    KeyCodec, MapOptions, MapSpec, PartitionId, Value, ValueCodec, WatchEvent, WatchKind, WatchMessage, WatchToken,
};
use keystead::{Grid, types::RemovalCause};
use std::collections::BTreeMap;
use std::path::Path;

async fn client(peer: &Grid) -> Client {
    peer.client().await.expect("connects")
}

/// The next message; a test that waits for ever fails here.
async fn next(watch: &mut Watch) -> WatchMessage {
    clock::timeout(PATIENCE, watch.next()).await.expect("a message in time").expect("goes on")
}

/// Messages until this many changes have come; marks and snapshots' entries do not count.
async fn changes(watch: &mut Watch, count: usize) -> Vec<WatchEvent> {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(next(watch).await.events);
    }
    found
}

/// What a consumer has seen, and that it was in order and each change once.
#[derive(Default)]
struct Seen {
    entries: BTreeMap<String, String>,
    newest: BTreeMap<PartitionId, u64>,
    changes: usize,
    resets: usize,
}

impl Seen {
    fn take(&mut self, event: &WatchEvent) {
        let key = String::from_utf8_lossy(&event.key).into_owned();
        let text = |value: &Value| String::from_utf8_lossy(&value.data).into_owned();
        match &event.kind {
            WatchKind::Entry(value) => {
                assert!(self.entries.insert(key, text(value)).is_none(), "an entry of the snapshot came twice");
            }
            WatchKind::Reset => {
                self.resets += 1;
                self.entries.clear();
            }
            change => {
                let newest = self.newest.entry(event.partition).or_default();
                assert!(event.revision > *newest, "revision {} after {newest}: {event:?}", event.revision);
                *newest = event.revision;
                self.changes += 1;
                match change {
                    WatchKind::Put(value) => drop(self.entries.insert(key, text(value))),
                    _ => drop(self.entries.remove(&key)),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_comes_once_and_in_order_while_leaders_die() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = start_three(dir.path(), 4).await;
    let (writer, watcher) = (client(&peers[0]).await, client(&peers[1]).await);
    writer.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    let mut watch = watcher.watch("m").start();
    let first = next(&mut watch).await;
    assert!(first.live && first.events.is_empty() && first.token.positions.len() == 4);

    const KEYS: usize = 10;
    const WRITES: usize = 300;
    let writing = clock::spawn(async move {
        for at in 0..WRITES {
            writer.put("m", format!("k{}", at % KEYS), Value::utf8(at.to_string())).await.expect("puts");
        }
        writer
    });
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen = Seen::default();
    let mut killed = false;
    while seen.changes < WRITES {
        for event in next(&mut watch).await.events {
            seen.take(&event);
            let key = String::from_utf8_lossy(&event.key).into_owned();
            let at: usize = seen.entries[&key].parse().expect("a number");
            // No write of a key is left out: each is the next of its key.
            assert_eq!(at, last.get(&key).map_or_else(|| key[1..].parse().expect("a number"), |before| before + KEYS));
            last.insert(key, at);
        }
        if !killed && seen.changes > WRITES / 3 {
            killed = true;
            // The peer that serves the watch goes, with the partitions that it leads.
            peers.remove(1).shutdown().await;
        }
    }
    assert!(killed && seen.changes == WRITES);
    let writer = writing.await.expect("wrote");
    for key in 0..KEYS {
        writer.delete("m", format!("k{key}")).await.expect("deletes");
    }
    changes(&mut watch, KEYS).await.iter().for_each(|event| seen.take(event));
    assert!(seen.entries.is_empty() && seen.changes == WRITES + KEYS, "{:?}", seen.entries);

    // A token from long ago is good at a peer that has just come back, too: others have the rest.
    let back = start_peer(&seeds, 1, dir.path(), 4).await;
    back.wait_ready(PATIENCE).await.expect("serves again");
    let mut again = client(&back).await.watch("m").from(first.token).start();
    let mut replayed = Seen::default();
    changes(&mut again, WRITES + KEYS).await.iter().for_each(|event| replayed.take(event));
    assert!(replayed.entries.is_empty() && replayed.changes == WRITES + KEYS);
    back.shutdown().await;
    for peer in peers {
        peer.shutdown().await;
    }
}

async fn small_history(dir: &Path) -> Grid {
    let limits = keystead::config::Limits {
        feed_bytes_per_partition: 4_000,
        watch_progress_ms: 20,
        watch_message_bytes: 300,
        ..Default::default()
    };
    let config = keystead::config::NodeConfig { limits, ..Default::default() };
    let peer = Grid::builder().config(config).listen("127.0.0.1:0").partitions(2).data(dir);
    let peer = peer.start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_history_stands_a_code_and_a_snapshot_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = small_history(dir.path()).await;
    let client = client(&peer).await;
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    let mut watch = client.watch("m").start();
    let start: WatchToken = next(&mut watch).await.token;
    drop(watch);
    for at in 0..400 {
        client.put("m", format!("k{}", at % 50), Value::utf8(at.to_string())).await.expect("puts");
    }
    let mut late = client.watch("m").from(start.clone()).start();
    let error = loop {
        match clock::timeout(PATIENCE, late.next()).await.expect("an end in time") {
            Ok(message) => assert!(message.events.is_empty(), "there is a gap before {message:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::Compacted);
    assert!(error.to_string().contains("KS7001"), "{error}");

    // The same token with a snapshot: each partition begins anew, and ends with what is there.
    let mut late = client.watch("m").from(start).snapshot().start();
    let mut seen = Seen::default();
    while seen.resets < 2 || seen.entries.len() < 50 {
        for event in next(&mut late).await.events {
            match event.kind {
                // Of two partitions, one may begin anew behind the other: only its own are forgotten.
                WatchKind::Reset => seen.resets += 1,
                _ => seen.take(&event),
            }
        }
    }
    for at in 350..400 {
        assert_eq!(seen.entries[&format!("k{}", at % 50)], at.to_string());
    }
    client.delete("m", "k7").await.expect("deletes");
    let gone = changes(&mut late, 1).await;
    assert_eq!(gone[0].kind, WatchKind::Removed(RemovalCause::Deleted));

    // After a restart the history begins with what the log's replay gives, and resumes.
    let token = late.token().expect("a token").clone();
    drop((late, client));
    peer.shutdown().await;
    let peer = small_history(dir.path()).await;
    let again = self::client(&peer).await;
    again.put("m", "after", Value::utf8("restart")).await.expect("puts");
    let mut on = again.watch("m").from(token).start();
    let found = changes(&mut on, 1).await;
    assert_eq!((&found[0].key[..], found.len()), (&b"after"[..], 1));
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_passes_over_into_changes_under_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = small_history(dir.path()).await;
    let client = client(&peer).await;
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    client.create_map("other", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    for at in 0..300 {
        client.put("m", format!("k{at}"), Value::utf8("before")).await.expect("puts");
    }
    let mut watch = client.watch("m").prefix("k").snapshot().start();
    let mut seen = Seen::default();
    let writer = client.clone();
    let writing = clock::spawn(async move {
        for at in 0..300 {
            writer.put("other", format!("k{at}"), Value::utf8("x")).await.expect("puts");
            match at % 3 {
                0 => drop(writer.delete("m", format!("k{at}")).await.expect("deletes")),
                _ => drop(writer.put("m", format!("k{at}"), Value::utf8("during")).await.expect("puts")),
            }
        }
        writer.put("m", "k-end", Value::utf8("end")).await.expect("puts");
    });
    while !seen.entries.contains_key("k-end") {
        for event in next(&mut watch).await.events {
            seen.take(&event);
        }
    }
    writing.await.expect("wrote");
    // What lies in the other partition may still be on its way.
    while seen.entries.len() != 201 || seen.entries.values().filter(|value| **value == "during").count() != 200 {
        for event in next(&mut watch).await.events {
            seen.take(&event);
        }
    }
    assert_eq!(seen.resets, 0);
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_replicas_serves_watches() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut seeds, peers) = start_three(dir.path(), 4).await;
    let writer = client(&peers[0]).await;
    let map = peers[0].map::<str, u64>("typed").await.expect("opens");
    seeds.extend(common::addresses(&common::free_ports(1)));
    let joiner = start_peer(&seeds, 3, dir.path(), 4).await;
    joiner.wait_ready(PATIENCE).await.expect("serves");
    map.put("a", &1).await.expect("puts");
    let through = client(&joiner).await;
    let mut typed = through.watch("typed").snapshot().typed::<String, u64>();
    let mut event = async || clock::timeout(PATIENCE, typed.next()).await.expect("in time").expect("goes on").change;
    assert_eq!(event().await, TypedChange::Entry("a".to_owned(), 1));
    map.put("a", &2).await.expect("puts");
    assert_eq!(event().await, TypedChange::Put("a".to_owned(), 2));
    map.delete("a").await.expect("deletes");
    assert_eq!(event().await, TypedChange::Removed("a".to_owned(), RemovalCause::Deleted));
    // One key, and what is refused.
    let mut one = through.watch("typed").key("b").start();
    next(&mut one).await;
    map.put("c", &3).await.expect("puts");
    map.put("b", &4).await.expect("puts");
    assert_eq!(&changes(&mut one, 1).await[0].key[..], b"b");
    let none = through.watch("none").start().next().await.expect_err("there is no such map");
    assert_eq!(none.code, Code::NoSuchMap);
    writer.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    let foreign = through.watch("m").from(one.token().expect("a token").clone()).start().next().await;
    assert_eq!(foreign.expect_err("refused").code, Code::InvalidToken);
    joiner.shutdown().await;
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicated_map_is_on_every_peer() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = common::addresses(&common::free_ports(3));
    let mut peers = Vec::new();
    for at in 0..3 {
        let peer = Grid::builder()
            .name(&format!("n{}", at + 1))
            .listen(&seeds[at])
            .seeds(seeds.iter().cloned())
            .data(dir.path().join(format!("n{}", at + 1)))
            .partitions(8)
            .task("enrich", |context, input: String| {
                let rate: Option<String> = context.replicated("rates").get(input.as_bytes())?;
                let rate = rate.unwrap_or_default();
                let key = context.key().to_vec();
                context.put("enriched", &key, &rate)?;
                Ok(rate)
            });
        peers.push(peer.start().await.expect("starts"));
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    let client = client(&peers[0]).await;
    let options = MapOptions::default().replicated();
    let spec = MapSpec::new("rates", KeyCodec::Utf8, ValueCodec::Utf8).options(options);
    client.create_map_as(&spec).await.expect("creates");
    client.create_map("enriched", KeyCodec::Utf8, ValueCodec::Msgpack, 0).await.expect("creates");
    let mut newest = 0;
    for at in 0..50 {
        let written = client.put("rates", format!("k{at}"), Value::utf8(format!("rate {at}"))).await.expect("puts");
        // All keys live in one partition, whatever they are: their revisions grow together.
        assert!(written.revision > newest);
        newest = written.revision;
    }
    for peer in &peers {
        // Every peer's own copy, once it has one's own last write.
        let found = peer.get_local("rates", "k49", newest, PATIENCE).await.expect("reads");
        assert!(found.revision >= newest);
        assert_eq!(found.entry.expect("is there").value, Value::utf8("rate 49"));
        let none = peer.get_local("rates", "none", 0, PATIENCE).await.expect("reads");
        assert_eq!((none.entry, none.revision >= newest), (None, true));
    }
    // The grid's own read agrees, and so does a scan's worth of gets by their keys.
    assert_eq!(client.get("rates", "k7").await.expect("gets").expect("is there").value, Value::utf8("rate 7"));
    // Tasks read the copy wherever their keys live.
    for at in 0..20 {
        let rate: String = client.submit("enrich", format!("event {at}"), &format!("k{at}")).await.expect("runs");
        assert_eq!(rate, format!("rate {at}"));
    }
    let deleted = client.delete("rates", "k1").await.expect("deletes");
    assert!(deleted.existed && deleted.revision > newest);
    let gone = client.get_local("rates", "k1", deleted.revision).await.expect("reads");
    assert_eq!(gone.entry, None);
    let plain = peers[0].get_local("enriched", "x", 0, PATIENCE).await.expect_err("is not replicated");
    assert_eq!(plain.code, Code::NoLocalCopy);
    for peer in peers {
        peer.shutdown().await;
    }
}
