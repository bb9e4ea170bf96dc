//! Refusals by a real peer that need a limit to be reached, or a client that does not keep to the
//! rules: each with its code and its words.

use crate::common::PATIENCE;
use bytes::Bytes;
use futures::FutureExt;
use grid_proto::keystead::v1;
use keystead::Grid;
use keystead::client::Client;
use keystead::config::Limits;
use keystead::error::{Code, Error};
use keystead::types::{Eviction, KeyCodec, MapOptions, MapSpec, Value, ValueCodec};
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// Answers that a session may leave unacknowledged, in a partition.
const SESSION_ANSWERS: u64 = 8_192;

async fn start(limits: Limits) -> (tempfile::TempDir, Grid, Client) {
    let (dir, peer) = crate::requests::start(limits).await;
    let client = peer.client().await.expect("connects");
    (dir, peer, client)
}

async fn channel(peer: &Grid) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", peer.address())).expect("an address");
    endpoint.connect().await.expect("connects")
}

#[track_caller]
fn says(status: &Status, code: &str, words: &[&str]) {
    let said = status.metadata().get("keystead-code").map(|code| code.to_str().expect("text").to_owned());
    assert_eq!(said.as_deref(), Some(code), "{status:?}");
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in {status:?}");
    }
}

#[track_caller]
fn tells(error: &Error, code: Code, words: &[&str]) {
    assert_eq!(error.code, code, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_watch_too_many_is_refused_until_another_ends() {
    let (_dir, peer, _) = start(Limits { max_watches: 1, ..Limits::default() }).await;
    let mut watch = v1::watch_client::WatchClient::new(channel(&peer).await);
    let request = || v1::WatchRequest { map: "m".into(), ..Default::default() };
    let mut first = watch.watch(request()).await.expect("the first").into_inner();
    first.message().await.expect("says something").expect("a message");
    let refused = watch.watch(request()).await.expect_err("one too many");
    says(&refused, "KS7003", &["1 watches are served here already", "watch through another peer", "max_watches"]);
    drop(first);
    let begun = async {
        while let Err(status) = watch.watch(request()).await {
            says(&status, "KS7003", &[]);
            tokio::task::yield_now().await;
        }
    };
    keystead::clock::timeout(PATIENCE, begun).await.expect("its place is free again");
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maps_with_limits_say_what_they_hold_and_make_room_where_they_may() {
    let (_dir, peer, client) = start(Limits { replicated_map_bytes: 10_000, ..Limits::default() }).await;
    let map = |name: &str, options: MapOptions| MapSpec {
        options: Some(options),
        ..MapSpec::new(name, KeyCodec::Utf8, ValueCodec::Bytes)
    };
    let large = map("large", MapOptions { replicated: true, max_bytes: 10_001, ..MapOptions::default() });
    let refused = client.create_map_as(&large).await.expect_err("larger than any copy may be");
    let words =
        ["a replicated map may hold 10000 bytes, 10001 were asked for", "map \"large\"", "replicated_map_bytes"];
    tells(&refused, Code::ReplicatedFull, &words);
    let fits = map("fits", MapOptions { replicated: true, ..MapOptions::default() });
    let fits = client.create_map_as(&fits).await.expect("without a limit of its own it gets that of the peers");
    assert_eq!(fits.options.max_bytes, 10_000);

    // Over gRPC; two partitions, so two entries each.
    let mut kv = v1::kv_client::KvClient::new(channel(&peer).await);
    let put = |map: &str, key: &str| v1::PutRequest {
        map: map.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(v1::Value { codec: v1::ValueCodec::Bytes.into(), schema: 0, data: Bytes::from_static(b"v") }),
        ..Default::default()
    };
    client.create_map_as(&map("strict", MapOptions::default().max_entries(4))).await.expect("creates");
    client
        .create_map_as(&map("lru", MapOptions::default().max_entries(4).eviction(Eviction::Lru)))
        .await
        .expect("creates");
    for name in ["strict", "lru"] {
        for key in ["{a}1", "{a}2"] {
            kv.put(put(name, key)).await.expect("fits");
        }
    }
    let full = kv.put(put("strict", "{a}3")).await.expect_err("full");
    says(&full, "KS2030", &["2 of at most 2 entries", "limit is 4", "map \"strict\"", "eviction lru or lfu"]);
    kv.put(put("lru", "{a}3")).await.expect("makes room");
    assert_eq!(client.size("lru").await.expect("sizes").entries, 2);
    assert!(client.get("lru", "{a}3").await.expect("gets").is_some());
    peer.shutdown().await;
}

fn stamped(session: u64, number: u64, first_sent: u64) -> v1::PutRequest {
    let stamp =
        v1::SessionStamp { session, number, lowest_unanswered: 1, previous: 0, first_sent, given_up: Vec::new() };
    v1::PutRequest {
        options: Some(v1::RequestOptions { stamp: Some(stamp), ..Default::default() }),
        map: "m".into(),
        key: Bytes::from_static(b"k"),
        value: Some(v1::Value { codec: v1::ValueCodec::Bytes.into(), schema: 0, data: Bytes::from_static(b"w") }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_a_clock_that_is_ahead_are_refused() {
    let (_dir, peer, client) = start(Limits::default()).await;
    let now = client.time().await.expect("the grid's time");
    let ahead = |ms: u64| now.0 + (ms << 16);
    let mut kv = v1::kv_client::KvClient::new(channel(&peer).await);
    let refused = kv.put(stamped(7, 1, ahead(60_000))).await.expect_err("a minute ahead");
    says(&refused, "KS3012", &["the write is stamped", "the clock here says", "set the clock"]);
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let kept = client.get("m", "k").await.expect("gets").expect("is there");
    assert_eq!(kept.value, Value::bytes(b"v".to_vec()), "nothing was written");
    kv.put(stamped(7, 1, ahead(5_000))).await.expect("five seconds are within bounds");
    assert!(client.time().await.expect("the grid's time").ms() < now.ms() + 50_000, "nobody's time went along");
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_acknowledges_nothing_is_refused_at_its_limit() {
    let (_dir, peer, client) = start(Limits::default()).await;
    let now = client.time().await.expect("the grid's time").0;
    let mut kv = v1::kv_client::KvClient::new(channel(&peer).await);
    let (sender, batches) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(batches);
    let mut replies = kv.exchange(stream).await.expect("opens").into_inner();
    let numbers: Vec<u64> = (1..=SESSION_ANSWERS + 100).collect();
    let mut full = Vec::new();
    for some in numbers.chunks(256) {
        let request =
            |number: &u64| v1::KvRequest { id: *number, op: Some(v1::kv_request::Op::Put(stamped(7, *number, now))) };
        sender.send(v1::KvBatch { requests: some.iter().map(request).collect() }).await.expect("is read");
        let mut left = some.len();
        while left > 0 {
            for reply in replies.message().await.expect("no error").expect("a message").replies {
                left -= 1;
                if let Some(v1::kv_reply::Result::Error(error)) = reply.result {
                    full.push((reply.id, error));
                }
            }
        }
    }
    assert_eq!(full.iter().map(|(number, _)| *number).min(), Some(SESSION_ANSWERS + 1));
    let (_, error) = &full[0];
    assert_eq!(error.code, "KS3011", "{error:?}");
    assert!(error.what.contains("too many unanswered writes"), "{error:?}");
    // Once it says what it has heard of, it goes on.
    let mut next = stamped(7, SESSION_ANSWERS + 1, now);
    if let Some(stamp) = next.options.as_mut().and_then(|options| options.stamp.as_mut()) {
        stamp.lowest_unanswered = SESSION_ANSWERS + 1;
    }
    kv.put(next).await.expect("there is room again");
    client.put("m", "other", Value::bytes(b"v".to_vec())).await.expect("other sessions never minded");
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_asks_the_grid_is_refused_instead_of_waiting_for_itself() {
    let own: std::sync::Arc<std::sync::OnceLock<Grid>> = Default::default();
    let handlers = own.clone();
    let peer = Grid::builder().listen("127.0.0.1:0").partitions(2).memory().task("ask", move |_, _: ()| {
        let grid = handlers.get().expect("is set");
        let error = grid.client().now_or_never().expect("without waiting").err().expect("is refused");
        Ok(error.to_string())
    });
    let peer = peer.start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    let client = peer.client().await.expect("connects");
    assert!(own.set(peer).is_ok());
    let asked = client.submit::<(), String>("ask", "k", &());
    let said = keystead::clock::timeout(Duration::from_secs(20), asked).await.expect("at once").expect("an answer");
    assert!(said.contains("KS4007: connecting a client was called inside a task"), "{said}");
    assert!(said.contains("read only the task's own slot"), "{said}");
}
