//! Whole maps over three peers: pages of a scan while a leader goes, transactions, clearing,
//! dropping.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, addresses, free_ports, start_peer, start_three};
use futures::TryStreamExt;
use grid_proto::keystead::v1::{self, kv_client::KvClient};
use keystead::Grid;
use keystead::client::{Client, ClientConfig, Json, Transacted, TypedOptions};
use keystead::error::Code;
use keystead::node::GridService;
use keystead::types::{Condition, Cursor, KeyCodec, ReadLevel, Value, ValueCodec, slot_of};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

async fn fill(client: &Client, map: &str, count: usize) -> BTreeMap<String, u64> {
    client.create_map(map, KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    let keys: Vec<String> = (0..count).map(|at| format!("k{at:05}")).collect();
    let entries = keys.iter().map(|key| (key.clone(), Value::utf8(format!("v-{key}"))));
    let written = client.put_many(map, entries).await.expect("puts");
    keys.into_iter().zip(written).map(|(key, written)| (key, written.revision)).collect()
}

fn text(key: &[u8]) -> String {
    String::from_utf8(key.to_vec()).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_goes_on_through_any_peer_while_a_leader_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = start_three(dir.path(), 8).await;
    let client = peers[0].client().await.expect("connects");
    let written = fill(&client, "m", 3000).await;
    fill(&client, "other", 50).await;

    // Every page through another peer than the last; one peer goes on the way.
    let (mut found, mut token, mut pages) = (Vec::new(), None::<bytes::Bytes>, 0);
    loop {
        let alive: Vec<String> = peers.iter().map(|peer| peer.address().to_owned()).collect();
        let through = Client::connect(vec![alive[pages % alive.len()].clone()], ClientConfig::default());
        let through = through.await.expect("connects");
        let from = token.as_ref().map(|token| Cursor::from_token(token).expect("a token"));
        let page = through.scan_page("m", "", from, 100, ReadLevel::Linearizable).await.expect("a page");
        assert!(page.entries.len() <= 100);
        found.extend(page.entries);
        pages += 1;
        if pages == 10 {
            peers.remove(1).shutdown().await;
        }
        match page.next {
            Some(next) => token = Some(next.to_token()),
            None => break,
        }
    }
    assert!(pages >= 30);
    let keys: BTreeMap<String, u64> = found.iter().map(|(key, entry)| (text(key), entry.revision)).collect();
    assert_eq!(found.len(), 3000, "no entry twice");
    assert_eq!(keys, written, "no entry missed, and each at its revision");

    let by_prefix: Vec<_> = client.scan("m", "k001").try_collect().await.expect("scans");
    assert_eq!(by_prefix.len(), 100);
    assert!(by_prefix.iter().all(|(key, _)| key.starts_with(b"k001")));
    let size = client.size("m").await.expect("sizes");
    assert!(size.entries == 3000 && size.bytes > 3000 * (6 + 8), "{size:?}");
    let local = client.scan_page("m", "k00001", None, 0, ReadLevel::Local).await.expect("a page");
    assert!(local.entries.len() <= 1);

    let back = start_peer(&seeds, 1, dir.path(), 8).await;
    back.wait_ready(PATIENCE).await.expect("serves");
    let through = back.client().await.expect("connects");
    assert_eq!(through.clear("m").await.expect("clears"), 3000);
    assert_eq!(through.size("m").await.expect("sizes").entries, 0);
    assert_eq!(through.size("other").await.expect("sizes").entries, 50);
    back.shutdown().await;
    for peer in peers {
        peer.shutdown().await;
    }
}

/// Partitions without copies: when a peer is gone, so are its partitions.
async fn start_uncopied(seeds: &[String], at: usize, dir: &Path) -> Grid {
    let name = format!("n{}", at + 1);
    let peer = Grid::builder().name(&name).listen(&seeds[at]).seeds(seeds.iter().cloned()).data(dir.join(&name));
    peer.partitions(8).replicas(1).start().await.expect("starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_gone_is_named_and_the_others_are_cleared() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let mut peers = Vec::new();
    for at in 0..3 {
        peers.push(start_uncopied(&seeds, at, dir.path()).await);
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    let client = peers[0].client().await.expect("connects");
    let written = fill(&client, "m", 400).await;
    // The first partition's peer goes, with whatever else it has.
    let partitions = client.partitions().await.expect("lists");
    let gone = partitions[0].leader.clone().expect("is led");
    let lost = |key: &str| {
        let slot = slot_of(key.as_bytes()).0;
        let at = partitions.partition_point(|partition| partition.first_slot <= slot) - 1;
        partitions[at].leader.as_ref() == Some(&gone)
    };
    let kept = written.keys().filter(|key| lost(key)).count();
    assert!(kept > 0 && kept < 400, "{kept} of 400 on {gone}");
    let at: usize = gone[1..].parse().expect("n and a number");
    peers.remove(at - 1).shutdown().await;

    let config = ClientConfig { deadline: Duration::from_secs(3), ..ClientConfig::default() };
    let client = Client::connect(vec![peers[0].address().to_owned()], config).await.expect("connects");
    let error = client.clear("m").await.expect_err("a partition is gone");
    assert!(error.what.contains(&format!("{} entries were deleted, others stay", 400 - kept)), "{error}");
    let back = start_uncopied(&seeds, at - 1, dir.path()).await;
    back.wait_ready(PATIENCE).await.expect("serves");
    let client = back.client().await.expect("connects");
    let left: BTreeSet<String> = client.scan("m", "").map_ok(|(key, _)| text(&key)).try_collect().await.expect("scans");
    assert!(left.len() == kept && left.iter().all(|key| lost(key)), "{left:?}");

    // Over plain gRPC, without a stamp: as much as the time allows, and where to go on.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", back.address())).expect("an address");
    let mut kv = KvClient::new(channel.connect().await.expect("connects"));
    let (mut deleted, mut token) = (0, bytes::Bytes::new());
    loop {
        let options = v1::RequestOptions { deadline_ms: 600, ..Default::default() };
        let request = v1::ClearRequest { options: Some(options), map: "m".to_owned(), limit: 3, token };
        let reply = kv.clear(request).await.expect("clears").into_inner();
        deleted += reply.deleted;
        token = reply.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((deleted, client.size("m").await.expect("sizes").entries), (kept as u64, 0));
    back.shutdown().await;
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_racing_clients_lose_no_update() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_seeds, mut peers) = start_three(dir.path(), 4).await;
    let first = peers[0].client().await.expect("connects");
    first.create_map("m", KeyCodec::Utf8, ValueCodec::I64, 0).await.expect("creates");
    let number = |value: &Value| i64::from_le_bytes(value.data[..].try_into().expect("8 bytes"));
    // Moves one from `{t}a` to `{t}b`, again and again; the sum never changes.
    let begun = first.transaction("m").put("{t}a", Value::i64(90)).put("{t}b", Value::i64(0)).commit().await;
    assert!(matches!(begun, Ok(Transacted::Written(_))));
    let mut workers = Vec::new();
    for peer in &peers {
        let client = peer.client().await.expect("connects");
        workers.push(async move {
            let mut done = 0;
            while done < 30 {
                let entries = client.get_many("m", &["{t}a", "{t}b"]).await.expect("reads");
                let (a, b) = (entries[0].clone().expect("a"), entries[1].clone().expect("b"));
                let step = client
                    .transaction("m")
                    .check("{t}a", a.revision)
                    .check("{t}b", b.revision)
                    .put("{t}a", Value::i64(number(&a.value) - 1))
                    .put("{t}b", Value::i64(number(&b.value) + 1));
                if matches!(step.commit().await.expect("answers"), Transacted::Written(_)) {
                    done += 1;
                }
            }
        });
    }
    futures::future::join_all(workers).await;
    let entries = first.get_many("m", &["{t}a", "{t}b"]).await.expect("reads");
    let numbers: Vec<i64> = entries.iter().flatten().map(|entry| number(&entry.value)).collect();
    assert_eq!(numbers, [0, 90]);
    let previous = first.get_and_put("m", "{t}a", Value::i64(5)).await.expect("puts").previous;
    assert_eq!(previous.map(|entry| number(&entry.value)), Some(0));
    let removed = first.remove_if("m", "{t}a", Condition::Value(Value::i64(4))).await.expect("answers");
    assert!(matches!(removed, keystead::client::Removed::Refused { present: Some(_), .. }));
    while let Some(peer) = peers.pop() {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_map_is_gone_at_once_and_its_entries_soon() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_seeds, mut peers) = start_three(dir.path(), 4).await;
    let client = peers[0].client().await.expect("connects");
    let other = peers[1].client().await.expect("connects");
    fill(&client, "m", 2000).await;
    fill(&client, "kept", 20).await;
    let rows = |partitions: Vec<keystead::node::PartitionInfo>| partitions.iter().map(|info| info.rows).sum::<u64>();

    let (dropped, pending) = client.drop_map("m").await.expect("drops");
    assert_eq!(pending, 0);
    for peer in &peers {
        let through = peer.client().await.expect("connects");
        let error = through.put("m", "k1", Value::utf8("late")).await.expect_err("dropped");
        assert_eq!(error.code, Code::NoSuchMap);
        assert_eq!(through.get("m", "k1").await.expect_err("dropped").code, Code::NoSuchMap);
    }
    // Whoever missed the answer asks again, by name and id, through any peer, and is told the same.
    for peer in &peers {
        assert_eq!(peer.node().drop_map("m", Some(dropped.id)).await.expect("drops"), (dropped.clone(), 0));
    }
    assert_eq!(client.drop_map("m").await.expect_err("there is none to drop").code, Code::NoSuchMap);
    assert_eq!(client.drop_map("never").await.expect_err("not there").code, Code::NoSuchMap);

    // A later map of the same name is another one, whatever is left of the first.
    let again = other.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    assert!(again.id > dropped.id);
    // A request for the first that comes late leaves the second alone.
    assert_eq!(peers[2].node().drop_map("m", Some(dropped.id)).await.expect("was dropped").0.id, dropped.id);
    assert_eq!(client.get("m", "k00001").await.expect("reads"), None);
    client.put("m", "k00001", Value::utf8("new")).await.expect("puts");
    let found: Vec<_> = client.scan("m", "").try_collect().await.expect("scans");
    assert_eq!(found.len(), 1);

    // The entries go in the background, and the note some time after the last of them.
    let mut view = peers[2].node().watch_facts();
    let gone = keystead::clock::timeout(PATIENCE, view.wait_for(|view| view.dropped.is_empty())).await;
    gone.expect("in time").expect("the node lives");
    let left = rows(client.partitions().await.expect("partitions"));
    assert!(left < 200, "{left} rows are left");
    assert_eq!(client.size("kept").await.expect("sizes").entries, 20);
    let names: BTreeSet<String> = client.maps().await.expect("maps").into_iter().map(|map| map.name).collect();
    assert_eq!(names, BTreeSet::from(["kept".to_owned(), "m".to_owned()]));
    while let Some(peer) = peers.pop() {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_an_unknown_map_is_answered_quickly_and_creates_it_when_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = start_three(dir.path(), 4).await;
    let client = peers[0].client().await.expect("connects");
    let error = client.put("nowhere", "k", Value::utf8("v")).await.expect_err("unknown");
    assert_eq!(error.code, Code::NoSuchMap);
    let creating = ClientConfig { create_maps: true, ..ClientConfig::default() };
    let creating = Client::connect(seeds.clone(), creating).await.expect("connects");
    creating.put("made", "k", Value::utf8("v")).await.expect("creates and puts");
    // Whoever is asked knows of it, though nobody waited for the news.
    for peer in &peers {
        let through = peer.client().await.expect("connects");
        assert!(through.get("made", "k").await.expect("reads").is_some());
    }
    while let Some(peer) = peers.pop() {
        peer.shutdown().await;
    }
}

/// An order as its first version has it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    item: String,
    pieces: u32,
}

/// And as a later one has it, in another program.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct LaterOrder {
    item: String,
    pieces: u32,
    #[serde(default)]
    note: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_writer_beside_a_new_reader_on_different_peers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_seeds, mut peers) = start_three(dir.path(), 4).await;
    let options = |schema| TypedOptions { schema, ..TypedOptions::default() };
    let old = peers[0].map_with::<i64, Order, Json>("orders", options(1)).await.expect("opens");
    let new = peers[1].map_with::<i64, LaterOrder, Json>("orders", options(2)).await.expect("opens");
    old.put(&7, &Order { item: "mug".into(), pieces: 1 }).await.expect("puts");
    let noted = |present: Option<LaterOrder>| present.map(|order| LaterOrder { note: Some("gift".into()), ..order });
    new.update(&7, noted).await.expect("updates");
    // Both change it at once, each what it knows of; nothing is lost.
    let more = async {
        for _ in 0..20 {
            old.update(&7, |order| order.map(|order| Order { pieces: order.pieces + 1, ..order }))
                .await
                .expect("updates");
        }
    };
    let other = async {
        for _ in 0..20 {
            let add = |order: LaterOrder| LaterOrder { pieces: order.pieces + 1, ..order };
            new.update(&7, move |order| order.map(add)).await.expect("updates");
        }
    };
    futures::future::join(more, other).await;
    let read = new.entry(&7).await.expect("reads").expect("there");
    assert_eq!(read.value, LaterOrder { item: "mug".into(), pieces: 41, note: Some("gift".into()) });
    assert_eq!(read.schema, 2);
    while let Some(peer) = peers.pop() {
        peer.shutdown().await;
    }
}
