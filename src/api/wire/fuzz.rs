//! Fuzz targets: messages of the gRPC services as clients send them and as a client gets them, from the
//! bytes on: what prost makes of them is checked and translated as the services do it.

use super::*;
use crate::config::Limits;
use crate::error::{Code, Error};
use crate::fuzzing::Fuzz;
use crate::node::{Broadcast, Scatter, StartJob};
use crate::types::*;
use bytes::Bytes;
use grid_proto::keystead::v1;
use prost::Message;

/// Small limits, so that they are met.
fn limits() -> Limits {
    Limits {
        max_key_bytes: 64,
        max_value_bytes: 256,
        max_payload_bytes: 128,
        max_write_bytes: 300,
        ..Limits::default()
    }
}

fn value() -> v1::Value {
    v1::Value { codec: v1::ValueCodec::Json.into(), schema: 1, data: "{}".into() }
}

fn options() -> Option<v1::RequestOptions> {
    Some(v1::RequestOptions {
        affinity: Some("a".into()),
        read: v1::ReadLevel::Local.into(),
        ack: v1::AckLevel::Accepted.into(),
        stamp: Some(v1::SessionStamp {
            session: 1,
            number: 3,
            lowest_unanswered: 1,
            previous: 2,
            first_sent: 1 << 40,
            given_up: Vec::new(),
        }),
        deadline_ms: 500,
    })
}

fn operations() -> Vec<v1::kv_request::Op> {
    use v1::condition::Is;
    use v1::kv_request::Op;
    let (map, key) = (|| "orders".to_owned(), || Bytes::from_static(b"{7}:k"));
    let when = |is| Some(v1::Condition { is: Some(is) });
    let token = Cursor { map: MapId(3), slot: Slot(9), after: Some(key()) }.to_token();
    let put = |condition, ttl_ms| {
        let (map, key, value) = (map(), key(), Some(value()));
        Op::Put(v1::PutRequest { options: options(), map, key, value, condition, return_previous: true, ttl_ms })
    };
    let check = v1::Check { key: key(), is: Some(v1::check::Is::Revision(3)) };
    let change = |does| v1::Change { key: key(), does: Some(does) };
    let changes = vec![change(v1::change::Does::Put(value())), change(v1::change::Does::Delete(true))];
    vec![
        Op::Get(v1::GetRequest { options: options(), map: map(), key: key() }),
        put(None, None),
        put(when(Is::Value(value())), Some(1000)),
        put(when(Is::Absent(true)), Some(u64::MAX)),
        Op::Touch(v1::TouchRequest { options: None, map: map(), key: key(), ttl_ms: Some(7) }),
        Op::Delete(v1::DeleteRequest {
            options: options(),
            map: map(),
            key: key(),
            condition: when(Is::Revision(9)),
            return_previous: true,
        }),
        Op::Increment(v1::IncrementRequest { options: None, map: map(), key: key(), delta: i64::MIN }),
        Op::GetMany(v1::GetManyRequest { options: None, map: map(), keys: vec![key(), key()] }),
        Op::PutMany(v1::PutManyRequest {
            options: None,
            map: map(),
            entries: vec![v1::KeyValue { key: key(), value: Some(value()) }],
        }),
        Op::Transact(v1::TransactRequest { options: None, map: map(), checks: vec![check], changes }),
        Op::Scan(v1::ScanRequest {
            options: None,
            map: map(),
            prefix: "p".into(),
            limit: u32::MAX,
            token: token.clone(),
        }),
        Op::Size(v1::SizeRequest { options: None, map: map() }),
        Op::Clear(v1::ClearRequest { options: None, map: map(), limit: 0, token }),
    ]
}

fn refused(error: &Error) -> String {
    let known = [Code::InvalidRequest, Code::InvalidName, Code::TooLarge, Code::WrongCodec, Code::TaskCodec];
    let known = known.contains(&error.code) || error.code == Code::InvalidToken;
    assert!(known, "{error}");
    // What is refused can be said, and is heard as it was said.
    let heard = error_from_status(&status(error));
    assert_eq!((heard.code, &heard.what), (error.code, &error.what));
    error.what.clone()
}

fn check_request(request: &Request, limits: &Limits) {
    let key = match request.op.target() {
        Target::Key(key) => Some(key),
        _ => None,
    };
    assert!(key.is_none_or(|key| !key.is_empty() && key.len() <= limits.max_key_bytes));
    assert!((1..=limits.max_deadline_ms).contains(&request.deadline_ms));
    if let Some(stamp) = &request.stamp {
        assert!(stamp.lowest_unanswered <= stamp.number && stamp.lowest_unanswered > 0);
        assert!(stamp.previous.is_none_or(|previous| previous > 0 && previous < stamp.number));
    }
}

#[test]
fn kv_request() {
    let request = |(id, op)| v1::KvRequest { id, op: Some(op) };
    let mut seeds: Vec<Vec<u8>> =
        operations().into_iter().map(|op| v1::KvBatch { requests: vec![request((1, op))] }.encode_to_vec()).collect();
    seeds.push(v1::KvBatch { requests: (1..).zip(operations()).map(request).collect() }.encode_to_vec());
    // A message is taken apart into what may be much larger in RAM: an empty request takes two bytes.
    Fuzz::new("kv_request", seeds).protobuf().bytes_per_byte(1024).run(|input| {
        let batch = match v1::KvBatch::decode(input) {
            Ok(batch) => batch,
            Err(error) => return error.to_string(),
        };
        let limits = limits();
        let mut said = String::new();
        for request in batch.requests {
            match kv_request_from_wire(request.op, &limits) {
                Ok((kind, request)) => {
                    check_request(&request, &limits);
                    let wire = kv_request_to_wire(request.clone()).expect("a Kv request");
                    let again = kv_request_from_wire(Some(wire), &limits).expect("is let pass again");
                    assert_eq!(again, (kind, request));
                    said = format!("{kind:?}");
                }
                Err(error) => said = refused(&error),
            }
        }
        said
    });
}

fn payload() -> Option<v1::Payload> {
    Some(v1::Payload { codec: v1::ValueCodec::Msgpack.into(), data: "\u{1}".into() })
}

#[test]
fn task_request() {
    let submit = v1::SubmitRequest {
        options: options(),
        name: "task".to_owned(),
        key: "k".into(),
        payload: payload(),
        task_id: 7,
    };
    let batch = v1::TaskBatch { requests: vec![v1::TaskRequest { id: 1, submit: Some(submit) }] };
    Fuzz::new("task_request", [batch.encode_to_vec()]).protobuf().bytes_per_byte(512).run(|input| {
        let batch = match v1::TaskBatch::decode(input) {
            Ok(batch) => batch,
            Err(error) => return error.to_string(),
        };
        let limits = limits();
        let mut said = String::new();
        for request in batch.requests {
            match task_request_from_wire(request.submit, &limits) {
                Ok(request) => {
                    check_request(&request, &limits);
                    let wire = task_request_to_wire(request.clone());
                    assert_eq!(task_request_from_wire(wire, &limits).as_ref(), Ok(&request));
                    said = format!("a task, {}", request.stamp.is_some());
                }
                Err(error) => said = refused(&error),
            }
        }
        said
    });
}

#[test]
fn compute_request() {
    let name = || "count".to_owned();
    let start = v1::StartJobRequest { name: name(), key: "k".into(), payload: payload(), random: 3, time_ms: u64::MAX };
    let seeds = [
        v1::BroadcastRequest { options: options(), name: name(), payload: payload(), task_id: 1 }.encode_to_vec(),
        v1::ScatterRequest { name: name(), payload: payload(), deadline_ms: 9, parts: true, ..Default::default() }
            .encode_to_vec(),
        start.encode_to_vec(),
    ];
    Fuzz::new("compute_request", seeds).protobuf().bytes_per_byte(256).run(|input| {
        let limits = limits();
        let mut said = Vec::new();
        if let Ok(request) = v1::BroadcastRequest::decode(input) {
            said.push(broadcast_from_wire(request, &limits).map_or_else(
                |error| refused(&error),
                |Broadcast { deadline_ms, .. }| {
                    assert!((1..=limits.max_deadline_ms).contains(&deadline_ms));
                    "broadcast".to_owned()
                },
            ));
        }
        if let Ok(request) = v1::ScatterRequest::decode(input) {
            said.push(scatter_from_wire(request, &limits).map_or_else(
                |error| refused(&error),
                |Scatter { deadline_ms, .. }| {
                    assert!(deadline_ms <= limits.max_scatter_deadline_ms);
                    "scatter".to_owned()
                },
            ));
        }
        if let Ok(request) = v1::StartJobRequest::decode(input) {
            said.push(start_job_from_wire(request, &limits).map_or_else(
                |error| refused(&error),
                |StartJob { time_ms, .. }| {
                    assert!(time_ms <= limits.max_job_time_ms);
                    "job".to_owned()
                },
            ));
        }
        said.join(", ")
    });
}

#[test]
fn watch_request() {
    use v1::watch_request::Keys;
    let token = WatchToken { map: MapId(3), positions: [(PartitionId(1), Position::Live { revision: 9 })].into() };
    let request = |keys, token| v1::WatchRequest { map: "m".to_owned(), keys, affinity: None, token, snapshot: true };
    let seeds = [
        request(Some(Keys::Prefix("p".into())), None),
        request(Some(Keys::Key("k".into())), Some(token.encode())),
        request(None, Some(Bytes::new())),
    ];
    Fuzz::new("watch_request", seeds.map(|seed| seed.encode_to_vec())).protobuf().run(|input| {
        let request = match v1::WatchRequest::decode(input) {
            Ok(request) => request,
            Err(error) => return error.to_string(),
        };
        match watch_request_from_wire(request, &limits()) {
            Ok(request) => {
                let again = watch_request_from_wire(watch_request_to_wire(&request), &limits()).expect("again");
                assert_eq!(again, request);
                format!("{:?}", std::mem::discriminant(&request.start))
            }
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn map_request() {
    let options = v1::MapOptions { ttl_ms: 5, max_entries: 6, max_bytes: 7, eviction: 1, replicated: true };
    let request = v1::CreateMapRequest {
        name: "m".to_owned(),
        key_codec: v1::KeyCodec::I64.into(),
        value_codec: v1::ValueCodec::I64.into(),
        schema: 3,
        options: Some(options),
    };
    Fuzz::new("map_request", [request.encode_to_vec()]).protobuf().run(|input| {
        let request = match v1::CreateMapRequest::decode(input) {
            Ok(request) => request,
            Err(error) => return error.to_string(),
        };
        match map_spec_from_wire(request) {
            Ok(spec) => {
                assert_eq!(map_spec_from_wire(map_spec_to_wire(&spec)).as_ref(), Ok(&spec));
                check_name("map", &spec.name).map_or_else(|error| refused(&error), |()| "a map".to_owned())
            }
            Err(error) => refused(&error),
        }
    });
}

/// What a peer may answer, as a client reads it.
#[test]
fn reply() {
    let served = Served { node: NodeId(3), term: 4, hops: 1, time: HybridTime(5), applied: 6, ack: AckLevel::Accepted };
    let stored = || StoredValue { expires_ms: 9, ..StoredValue::new(4, Value::utf8("v")) };
    let error = || Error::new(Code::NotLeader, "another leads").leader("h:1");
    let next = Some(Cursor { map: MapId(1), slot: Slot(2), after: None });
    let bodies = [
        (Kind::Get, Ok(ReplyBody::Entry(Some(stored())))),
        (Kind::Put, Ok(ReplyBody::ConditionFailed(Some(stored())))),
        (Kind::Transact, Ok(ReplyBody::CheckFailed { key: "k".into(), present: None })),
        (Kind::Scan, Ok(ReplyBody::Page { entries: vec![("k".into(), stored())], next })),
        (Kind::Clear, Ok(ReplyBody::Cleared { deleted: 3, next: None })),
        (Kind::Size, Err(error())),
    ];
    let replies = bodies.map(|(kind, body)| {
        let outcome = body.map(|body| Reply { body, served: served.clone() });
        v1::KvReply { id: 1, result: Some(kv_reply_to_wire(kind, outcome)) }.encode_to_vec()
    });
    let message = WatchMessage {
        events: vec![WatchEvent {
            partition: PartitionId(1),
            key: "k".into(),
            revision: 2,
            time_ms: 3,
            kind: WatchKind::Removed(RemovalCause::Evicted),
        }],
        token: WatchToken::default(),
        live: true,
    };
    let ranges = vec![v1::LeaderRange { first_slot: 8192, leader: "h:1".to_owned(), term: 2 }];
    let placement = v1::PlacementReply { grid: format!("{:032x}", 7), version: 3, partitions: ranges };
    let others = [
        watch_message_to_wire(message).encode_to_vec(),
        placement.encode_to_vec(),
        error_to_wire(&error()).encode_to_vec(),
        v1::Member { name: "n".to_owned(), id: format!("{:016x}", 7), ..Default::default() }.encode_to_vec(),
        v1::Job { id: 5, state: 3, node: format!("{:016x}", 7), payload: payload(), ..Default::default() }
            .encode_to_vec(),
    ];
    let seeds: Vec<Vec<u8>> = replies.into_iter().chain(others).collect();
    Fuzz::new("reply", seeds).protobuf().bytes_per_byte(512).run(|input| {
        let mut said = Vec::new();
        let mut told = |what: &str, good: Option<bool>| said.extend(good.map(|good| format!("{what} {good}")));
        let kv = v1::KvReply::decode(input).ok().map(|reply| kv_reply_from_wire(reply.result).is_ok());
        told("kv", kv);
        told("task", v1::TaskReply::decode(input).ok().map(|reply| task_reply_from_wire(reply.result).is_ok()));
        told("watch", v1::WatchMessage::decode(input).ok().map(|message| watch_message_from_wire(message).is_ok()));
        told("local", v1::GetLocalReply::decode(input).ok().map(|reply| local_entry_from_wire(reply).is_ok()));
        told("placed", v1::PlacementReply::decode(input).ok().map(|reply| placement_from_wire(reply).is_ok()));
        told("member", v1::Member::decode(input).ok().map(|member| member_from_wire(member).is_ok()));
        told("partition", v1::Partition::decode(input).ok().map(|reply| partition_from_wire(reply).is_ok()));
        told("explained", v1::ExplainReply::decode(input).ok().map(|reply| explanation_from_wire(reply).is_ok()));
        told("map", v1::MapDescriptor::decode(input).ok().map(|map| map_from_wire(map).is_ok()));
        told("job", v1::Job::decode(input).ok().map(|job| job_from_wire(job).is_ok()));
        told(
            "broadcast",
            v1::BroadcastReply::decode(input).ok().map(|reply| partition_answer_from_wire(reply).is_ok()),
        );
        told("scatter", v1::ScatterReply::decode(input).ok().map(|reply| scatter_event_from_wire(reply).is_ok()));
        if let Ok(error) = v1::Error::decode(input) {
            let error = error_from_wire(error);
            assert_eq!(error_from_wire(error_to_wire(&error)), error, "it is passed on as it came");
        }
        let status = tonic::Status::with_details(tonic::Code::Unavailable, "broken", Bytes::copy_from_slice(input));
        error_from_status(&status);
        format!("{said:?}")
    });
}
