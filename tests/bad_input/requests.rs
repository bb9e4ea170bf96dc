//! Requests over gRPC that are too large, name what is not there, or are no requests at all.

use crate::common::PATIENCE;
use crate::process::{at, keystead};
use bytes::{Buf, BufMut, Bytes};
use grid_proto::keystead::v1;
use keystead::Grid;
use keystead::client::{Client, ClientConfig};
use keystead::config::{Limits, NodeConfig};
use keystead::types::{KeyCodec, Value, ValueCodec};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};

/// A grid of one within these limits, with a map `m` that has an entry `k`.
pub async fn start(limits: Limits) -> (tempfile::TempDir, Grid) {
    let dir = tempfile::tempdir().expect("a directory");
    let listen = "127.0.0.1:0".to_owned();
    let config = NodeConfig { listen, data: dir.path().to_owned(), partitions: 2, limits, ..NodeConfig::default() };
    let peer = Grid::builder().config(config).start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    let client = peer.client().await.expect("connects");
    client.create_map("m", KeyCodec::Bytes, ValueCodec::Bytes, 0).await.expect("creates");
    client.put("m", "k", Value::bytes(b"v".to_vec())).await.expect("puts");
    (dir, peer)
}

async fn channel(peer: &Grid) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", peer.address())).expect("an address");
    endpoint.connect().await.expect("connects")
}

async fn kv(peer: &Grid) -> v1::kv_client::KvClient<Channel> {
    v1::kv_client::KvClient::new(channel(peer).await).max_encoding_message_size(usize::MAX)
}

/// The status' code, in its metadata, and its words.
#[track_caller]
fn says(status: &Status, grpc: tonic::Code, words: &[&str]) {
    assert_eq!(status.code(), grpc, "{status:?}");
    let code = status.metadata().get("keystead-code").map(|code| code.to_str().expect("text").to_owned());
    assert!(code.is_some_and(|code| words.contains(&code.as_str())), "{status:?}");
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in {status:?}");
    }
}

fn put(key: Vec<u8>, value: Vec<u8>) -> v1::PutRequest {
    let value = Some(v1::Value { codec: v1::ValueCodec::Bytes.into(), schema: 0, data: value.into() });
    v1::PutRequest { map: "m".into(), key: key.into(), value, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_up_to_the_limits_are_kept_and_beyond_are_refused() {
    let (_dir, peer) = start(Limits::default()).await;
    let mut kv = kv(&peer).await.max_decoding_message_size(usize::MAX);
    // Every byte of this key has to be escaped in its row.
    let (key, value) = (vec![0; 64 << 10], vec![7; 512 << 10]);
    kv.put(put(key.clone(), value.clone())).await.expect("both are at their limit");
    let get = v1::GetRequest { map: "m".into(), key: key.clone().into(), ..Default::default() };
    let found = kv.get(get).await.expect("gets").into_inner().entry.expect("is there");
    assert_eq!(found.value.map(|value| value.data), Some(Bytes::from(value.clone())));

    let long_key = kv.put(put([key, vec![0]].concat(), vec![1])).await.expect_err("too long");
    says(
        &long_key,
        tonic::Code::InvalidArgument,
        &["KS1003", "the key has 65537 bytes; the limit is 65536", "[limits]"],
    );
    let long_value = kv.put(put(b"k".to_vec(), [value, vec![7]].concat())).await.expect_err("too long");
    says(&long_value, tonic::Code::InvalidArgument, &["KS1003", "the value has 524289 bytes; the limit is 524288"]);
    let said = at(peer.address(), &["put", "m", "k", &"x".repeat(100_000)]);
    said.says(0, &[]);
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_and_too_many_keys_are_refused_with_a_code() {
    let (_dir, peer) = start(Limits { max_message_bytes: 100_000, ..Limits::default() }).await;
    let mut kv = kv(&peer).await;
    let words = ["KS1003", "the limit is 100000", "max_message_bytes"];
    let large = kv.put(put(b"k".to_vec(), vec![7; 200_000])).await.expect_err("over the limit");
    says(&large, tonic::Code::InvalidArgument, &words);
    let op = Some(v1::kv_request::Op::Put(put(b"k".to_vec(), vec![7; 200_000])));
    let batch = v1::KvBatch { requests: vec![v1::KvRequest { id: 1, op }] };
    let mut replies = kv.exchange(tokio_stream::iter([batch])).await.expect("opens").into_inner();
    says(&replies.message().await.expect_err("over the limit"), tonic::Code::InvalidArgument, &words);

    let keys = vec![Bytes::from_static(b"k"); 4097];
    let many = v1::GetManyRequest { map: "m".into(), keys, ..Default::default() };
    let status = kv.get_many(many).await.expect_err("too many");
    says(&status, tonic::Code::InvalidArgument, &["KS1003", "the request has 4097 keys; the limit is 4096"]);
    kv.put(put(b"k".to_vec(), vec![8])).await.expect("the peer goes on");
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_named() {
    let (_dir, peer) = start(Limits::default()).await;
    let mut kv = kv(&peer).await;
    let get = v1::GetRequest { map: "nowhere".into(), key: Bytes::from_static(b"k"), ..Default::default() };
    says(&kv.get(get).await.expect_err("no map"), tonic::Code::NotFound, &["KS2001", "nowhere"]);
    let address = peer.address().to_owned();
    let run = |arguments: &[&str]| at(&address, arguments);
    run(&["get", "nowhere", "k"]).says(3, &["KS2001", "nowhere"]);
    run(&["get", "m", "no-such-key"]).says(3, &["KS2003", "no-such-key"]);
    run(&["task", "no-such-task", "--key", "k"]).says(3, &["KS2002", "no-such-task"]);
    run(&["task", "rolling-total", "--key", "k", "--payload", "{"]).says(2, &["KS1007", "--payload"]);
    run(&["get", "a b", "k"]).says(2, &["KS1002", "1 to 128 letters"]);
    run(&["get", "$meta", "k"]).says(2, &["KS1002"]);
    keystead(["get", "m", "k", "--endpoint", &format!("127.0.0.1:1,{address}")]).says(0, &[]);
    peer.shutdown().await;
}

/// Sends bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

async fn send_raw(channel: &Channel, path: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(tonic::Request::new(bytes), path, Raw).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_are_answered_and_do_no_harm() {
    let (_dir, peer) = start(Limits::default()).await;
    let channel = channel(&peer).await;
    let status = send_raw(&channel, "/keystead.v1.Kv/Put", vec![0xFF; 30]).await.expect_err("no message");
    says(&status, tonic::Code::InvalidArgument, &["KS1001", "cannot be read", ".proto"]);
    // Every service, with bytes that look random and are the same each time.
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for path in [
        "/keystead.v1.Kv/Get",
        "/keystead.v1.Kv/Put",
        "/keystead.v1.Kv/PutMany",
        "/keystead.v1.Kv/GetMany",
        "/keystead.v1.Kv/Increment",
        "/keystead.v1.Kv/Delete",
        "/keystead.v1.Kv/Exchange",
        "/keystead.v1.Tasks/Submit",
        "/keystead.v1.Tasks/Exchange",
        "/keystead.v1.Cluster/CreateMap",
        "/keystead.v1.Cluster/Explain",
        "/keystead.peer.v1.Peer/Exchange",
        "/keystead.v1.Kv/NoSuchCall",
    ] {
        for length in [0, 1, 2, 3, 5, 8, 13, 40] {
            let bytes: Vec<u8> = (0..length).map(|_| next()).collect();
            if let Err(status) = send_raw(&channel, path, bytes.clone()).await {
                assert_ne!(status.code(), tonic::Code::Unknown, "{path} {bytes:?}: {status:?}");
            }
        }
    }
    let client = Client::connect(vec![peer.address().to_owned()], ClientConfig::default()).await.expect("connects");
    assert_eq!(client.get("m", "k").await.expect("gets").expect("is there").value, Value::bytes(b"v".to_vec()));
    peer.shutdown().await;
}
