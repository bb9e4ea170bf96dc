//! The services over real loopback connections, against a grid in memory.

use super::testing::{FakePeer, Trouble, World};
use super::wire::{CODE_METADATA, error_from_status};
use crate::clock;
use crate::config::Limits;
use crate::error::{Code, Error};
use crate::net::{Network, TcpNetwork};
use bytes::Bytes;
use grid_proto::keystead::v1;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

pub(super) async fn channel(address: &str) -> Channel {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    crate::net::grpc::channel(network, address, &Default::default()).await.expect("connects")
}

fn utf8(text: &str) -> Option<v1::Value> {
    Some(v1::Value { codec: v1::ValueCodec::Utf8.into(), schema: 0, data: Bytes::copy_from_slice(text.as_bytes()) })
}

fn put(key: &str, value: &str) -> v1::PutRequest {
    v1::PutRequest {
        options: None,
        map: "m".into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: utf8(value),
        condition: None,
        return_previous: false,
        ttl_ms: None,
    }
}

fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { options: None, map: "m".into(), key: Bytes::copy_from_slice(key.as_bytes()) }
}

#[tokio::test]
async fn unary_calls_do_what_they_say() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let mut kv = v1::kv_client::KvClient::new(channel(&address).await);
    let written = kv.put(put("k", "1")).await.expect("put").into_inner();
    let served = written.served.expect("served");
    assert_eq!(served.ack(), v1::AckLevel::MajorityFsync);
    assert_eq!(served.served_by, "0000000000000007");
    let found = kv.get(get("k")).await.expect("get").into_inner();
    assert_eq!(found.entry.map(|entry| (entry.revision, entry.value)), Some((written.revision, utf8("1"))));
    assert_eq!(kv.get(get("none")).await.expect("get").into_inner().entry, None);

    let condition = Some(v1::Condition { is: Some(v1::condition::Is::Absent(true)) });
    let refused = kv.put(v1::PutRequest { condition, ..put("k", "2") }).await.expect("put").into_inner();
    assert!(refused.condition_failed && refused.revision == 0);
    assert_eq!(refused.entry.and_then(|entry| entry.value), utf8("1"));

    let increment = v1::IncrementRequest { options: None, map: "m".into(), key: Bytes::from_static(b"k"), delta: -4 };
    assert_eq!(kv.increment(increment).await.expect("increment").into_inner().value, -3);
    let keys = vec![Bytes::from_static(b"k"), Bytes::from_static(b"none")];
    let many = v1::GetManyRequest { options: None, map: "m".into(), keys };
    let entries = kv.get_many(many).await.expect("get many").into_inner().entries;
    assert!(entries.len() == 2 && entries[0].entry.is_some() && entries[1].entry.is_none());
    let entries = vec![v1::KeyValue { key: Bytes::from_static(b"a"), value: utf8("x") }];
    kv.put_many(v1::PutManyRequest { options: None, map: "m".into(), entries }).await.expect("put many");
    let delete = v1::DeleteRequest { map: "m".into(), key: Bytes::from_static(b"a"), ..Default::default() };
    assert!(kv.delete(delete.clone()).await.expect("delete").into_inner().existed);
    assert!(!kv.delete(delete).await.expect("delete").into_inner().existed);
}

#[tokio::test]
async fn unary_errors_carry_code_details_and_metadata() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let mut kv = v1::kv_client::KvClient::new(channel(&address).await);
    let status = kv.get(v1::GetRequest { map: "nowhere".into(), ..get("k") }).await.expect_err("no such map");
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(status.metadata().get(CODE_METADATA).map(|code| code.as_bytes()), Some(&b"KS2001"[..]));
    assert_eq!(error_from_status(&status).code, Code::NoSuchMap);
    let status = kv.get(get("")).await.expect_err("empty key");
    assert_eq!((status.code(), error_from_status(&status).code), (tonic::Code::InvalidArgument, Code::InvalidRequest));
}

fn batch(requests: Vec<(u64, Option<v1::kv_request::Op>)>) -> v1::KvBatch {
    v1::KvBatch { requests: requests.into_iter().map(|(id, op)| v1::KvRequest { id, op }).collect() }
}

#[tokio::test]
async fn a_stream_answers_every_request_and_survives_bad_ones() {
    use v1::kv_reply::Result as Reply;
    use v1::kv_request::Op;
    let world = World::new();
    let (address, _stop) = FakePeer::new(&world).serve().await;
    let mut kv = v1::kv_client::KvClient::new(channel(&address).await);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut replies = kv.exchange(UnboundedReceiverStream::new(receiver)).await.expect("opens").into_inner();
    sender.send(batch(vec![(1, Some(Op::Put(put("k", "1")))), (2, None), (3, Some(Op::Get(get(""))))])).expect("sent");
    sender.send(batch(vec![(4, Some(Op::Get(get("k"))))])).expect("sent");
    drop(sender);
    let mut got = std::collections::BTreeMap::new();
    while let Some(message) = replies.message().await.expect("message") {
        got.extend(message.replies.into_iter().map(|reply| (reply.id, reply.result.expect("result"))));
    }
    assert_eq!(got.len(), 4);
    assert!(matches!(&got[&1], Reply::Put(put) if put.revision == 1));
    for id in [2, 3] {
        assert!(
            matches!(&got[&id], Reply::Error(error) if error.code == "KS1001" && error.retry() == v1::Retry::Never)
        );
    }
    assert!(matches!(&got[&4], Reply::Get(get) if get.entry.is_some()), "started after the put: {got:?}");
}

/// The replies to a batch, by id.
async fn exchanged(
    peer: &Arc<FakePeer>,
    requests: Vec<(u64, Option<v1::kv_request::Op>)>,
) -> std::collections::BTreeMap<u64, v1::kv_reply::Result> {
    let (address, _stop) = peer.serve().await;
    let mut kv = v1::kv_client::KvClient::new(channel(&address).await);
    let mut replies = kv.exchange(tokio_stream::iter([batch(requests)])).await.expect("opens").into_inner();
    let mut got = std::collections::BTreeMap::new();
    while let Some(message) = replies.message().await.expect("message") {
        got.extend(message.replies.into_iter().map(|reply| (reply.id, reply.result.expect("result"))));
    }
    got
}

#[tokio::test]
async fn a_write_that_the_short_way_lost_is_not_said_to_have_been_refused() {
    use v1::kv_reply::Result as Reply;
    use v1::kv_request::Op;
    let refuse = |code| Some(Trouble::Refuse(Error::new(code, "x")));
    for (short, long, said) in [
        (Code::OutcomeUnknown, Code::NoMajority, "KS3008"),
        (Code::NotLeader, Code::NoMajority, "KS3013"),
        (Code::OutcomeUnknown, Code::MapFull, "KS2030"),
    ] {
        let peer = FakePeer::new(&World::new());
        peer.trouble([refuse(short), refuse(long)]);
        let got = exchanged(&peer, vec![(1, Some(Op::Put(put("short", "1"))))]).await;
        assert!(matches!(&got[&1], Reply::Error(error) if error.code == said), "{said}: {got:?}");
    }
}

#[tokio::test]
async fn requests_of_a_stream_start_in_its_order_whatever_way_they_go() {
    use v1::kv_request::Op;
    let peer = FakePeer::new(&World::new());
    let keys = ["long 1", "short 2", "long 3", "long 4", "short 5"];
    let puts = (1..).zip(keys).map(|(id, key)| (id, Some(Op::Put(put(key, "1")))));
    assert_eq!(exchanged(&peer, puts.collect()).await.len(), keys.len());
    let seen = peer.seen.lock().expect("lock");
    let started: Vec<_> = seen.iter().filter_map(|request| request.op.routing_key()).collect();
    assert_eq!(started, keys);
}

#[tokio::test]
async fn requests_in_flight_are_bounded_per_stream() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve_with(&Limits { stream_in_flight: 4, ..Limits::default() }).await;
    peer.door.forget_permits(1 << 20);
    let mut kv = v1::kv_client::KvClient::new(channel(&address).await);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut replies = kv.exchange(UnboundedReceiverStream::new(receiver)).await.expect("opens").into_inner();
    let puts = (0..32).map(|id| (id, Some(v1::kv_request::Op::Put(put("k", "v"))))).collect();
    sender.send(batch(puts)).expect("sent");
    while peer.inside.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    peer.door.add_permits(1 << 20);
    let mut answered = 0;
    while answered < 32 {
        answered += replies.message().await.expect("message").expect("more").replies.len();
    }
    assert_eq!(peer.inside_max.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn calls_under_way_are_bounded_over_all_connections() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve_with(&Limits { max_calls: 2, ..Limits::default() }).await;
    peer.door.forget_permits(1 << 20);
    let call = |key: &'static str| {
        let address = address.clone();
        clock::spawn(async move { v1::kv_client::KvClient::new(channel(&address).await).get(get(key)).await })
    };
    let under_way = [call("a"), call("b")];
    while peer.inside.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let refused = call("c").await.expect("no panic").expect_err("over the limit");
    let error = error_from_status(&refused);
    assert_eq!((refused.code(), error.code), (tonic::Code::ResourceExhausted, Code::Overloaded));
    assert!(error.what.contains("2 calls under way, its limit"), "{error}");
    peer.door.add_permits(1 << 20);
    for call in under_way {
        call.await.expect("no panic").expect("is answered");
    }
    call("d").await.expect("no panic").expect("its place is free again");
}

#[tokio::test]
async fn a_refusal_at_the_door_keeps_its_code_and_words() {
    let mut status = tonic::Status::resource_exhausted("KS3006: this peer serves 2 connections, its limit; wait");
    status.metadata_mut().insert(CODE_METADATA, "KS3006".parse().expect("text"));
    let error = error_from_status(&status);
    assert_eq!(error.to_string(), "KS3006: this peer serves 2 connections, its limit; wait");
}

#[tokio::test]
async fn answers_are_bounded_and_large_ones_travel_in_several_messages() {
    use v1::kv_request::Op;
    let peer = FakePeer::new(&World::new());
    let limits = Limits { stream_reply_bytes: 1000, max_answer_bytes: 2500, ..Limits::default() };
    let (address, _stop) = peer.serve_with(&limits).await;
    let mut kv = v1::kv_client::KvClient::new(channel(&address).await);
    kv.put(put("k", &"x".repeat(900))).await.expect("put");
    let many =
        |count| v1::GetManyRequest { options: None, map: "m".into(), keys: vec![Bytes::from_static(b"k"); count] };
    let status = kv.get_many(many(3)).await.expect_err("too large");
    assert_eq!(error_from_status(&status).code, Code::TooLarge);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut replies = kv.exchange(UnboundedReceiverStream::new(receiver)).await.expect("opens").into_inner();
    let mut requests: Vec<_> = (0..20).map(|id| (id, Some(Op::Get(get("k"))))).collect();
    requests.push((20, Some(Op::GetMany(many(3)))));
    sender.send(batch(requests)).expect("sent");
    drop(sender);
    let mut got = Vec::new();
    while let Some(message) = replies.message().await.expect("message") {
        assert!(message.replies.len() <= 3, "{} replies of 900 bytes", message.replies.len());
        got.extend(message.replies);
    }
    assert_eq!(got.len(), 21);
    let large = got.iter().find(|reply| reply.id == 20).and_then(|reply| reply.result.clone());
    assert!(matches!(large, Some(v1::kv_reply::Result::Error(error)) if error.code == "KS1003"));
}

#[tokio::test]
async fn a_grid_that_hangs_is_answered_for_at_the_deadline() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    peer.door.forget_permits(1 << 20);
    let mut kv = v1::kv_client::KvClient::new(channel(&address).await);
    let options = || Some(v1::RequestOptions { deadline_ms: 50, ..Default::default() });
    let read = kv.get(v1::GetRequest { options: options(), ..get("k") }).await.expect_err("hangs");
    assert_eq!(error_from_status(&read).code, Code::DeadlineExceeded);
    let write = kv.put(v1::PutRequest { options: options(), ..put("k", "v") }).await.expect_err("hangs");
    assert_eq!(error_from_status(&write).code, Code::OutcomeUnknown);
}

#[tokio::test]
async fn tasks_run_over_streams_and_unary_calls() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let mut tasks = v1::tasks_client::TasksClient::new(channel(&address).await);
    let payload = v1::Payload { codec: v1::ValueCodec::Json.into(), data: Bytes::from_static(b"7") };
    let submit = v1::SubmitRequest {
        task_id: 5,
        options: None,
        name: "echo".into(),
        key: Bytes::from_static(b"k"),
        payload: Some(payload.clone()),
    };
    let reply = tasks.submit(submit.clone()).await.expect("runs").into_inner();
    assert_eq!(reply.answer, Some(payload));
    let missing = tasks.submit(v1::SubmitRequest { name: "no".into(), ..submit.clone() }).await.expect_err("missing");
    assert_eq!(error_from_status(&missing).code, Code::NoSuchTask);
    let requests = vec![v1::TaskRequest { id: 9, submit: Some(submit) }];
    let mut replies =
        tasks.exchange(tokio_stream::iter([v1::TaskBatch { requests }])).await.expect("opens").into_inner();
    let first = replies.message().await.expect("message").expect("a reply").replies.remove(0);
    assert!(first.id == 9 && matches!(first.result, Some(v1::task_reply::Result::Submit(_))));
    let names = tasks.list(v1::ListTasksRequest {}).await.expect("list").into_inner().names;
    assert_eq!(names, ["echo"]);
}

#[tokio::test]
async fn health_follows_readiness_and_reflection_names_the_services() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    let channel = channel(&address).await;
    let mut health = HealthClient::new(channel.clone());
    let ask = |name: &str| HealthCheckRequest { service: name.into() };
    let mut watch = health.watch(ask("")).await.expect("watch").into_inner();
    assert_eq!(watch.message().await.expect("message").expect("status").status(), ServingStatus::Serving);
    *peer.not_ready.lock().expect("lock") = Some("founding".into());
    let now = health.check(ask("keystead.v1.Kv")).await.expect("check").into_inner();
    assert_eq!(now.status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.expect("message").expect("status").status(), ServingStatus::NotServing);
    assert_eq!(health.check(ask("other")).await.expect_err("unknown").code(), tonic::Code::NotFound);

    // In both versions: there are clients that know the older one only.
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version as reflection;
            let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let list = reflection::server_reflection_request::MessageRequest::ListServices(String::new());
            let request = reflection::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
            let answers = client.server_reflection_info(tokio_stream::iter([request])).await;
            let answer = answers.expect("asks").into_inner().message().await.expect("message").expect("answer");
            match answer.message_response {
                Some(reflection::server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<String>>()
                }
                other => panic!("another answer: {other:?}"),
            }
        }};
    }
    for names in [services!(v1), services!(v1alpha)] {
        for name in ["Kv", "Tasks", "Cluster", "Watch"] {
            let name = format!("keystead.v1.{name}");
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
    }
}

async fn http_get(address: &str, path: &str) -> String {
    let mut io = TcpNetwork.connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.expect("asks");
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.expect("answers");
    answer
}

#[tokio::test]
async fn http_tells_health_readiness_and_metrics() {
    let peer = FakePeer::new(&World::new());
    let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr();
    let stop = tokio_util::sync::CancellationToken::new();
    let server = clock::spawn(super::http::serve(listener, peer.clone(), stop.clone().cancelled_owned()));
    assert!(http_get(&address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(&address, "/readyz").await.starts_with("HTTP/1.1 200"));
    *peer.not_ready.lock().expect("lock") = Some("no grid yet".into());
    let answer = http_get(&address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no grid yet"), "{answer}");
    let answer = http_get(&address, "/metrics").await;
    assert!(answer.contains("text/plain; version=0.0.4") && answer.ends_with("keystead_up 1\n"), "{answer}");
    assert!(http_get(&address, "/other").await.starts_with("HTTP/1.1 404"));
    stop.cancel();
    clock::timeout(Duration::from_secs(5), server).await.expect("stops").expect("no panic").expect("no error");
}
