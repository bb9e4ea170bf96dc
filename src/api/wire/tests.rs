//! Round trips, refusals, and the error table on the wire.

use super::*;
use crate::config::Limits;
use crate::error::{Code, Error};
use crate::types::MAX_TTL_MS;
use crate::types::{
    AckLevel, Condition, Cursor, HybridTime, MapId, NodeId, Op, ReadLevel, Reply, ReplyBody, Request, SLOTS, Served,
    SessionId, SessionStamp, Slot, StoredValue, TaskPayload, Value, ValueCodec,
};
use bytes::Bytes;
use grid_proto::keystead::v1;
use proptest::prelude::*;
use prost::Message;
use v1::kv_request::Op as WireOp;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::i64),
        "[a-zé]{0,9}".prop_map(Value::utf8),
        any::<Vec<u8>>().prop_map(|data| Value { codec: ValueCodec::Msgpack, schema: 3, data: data.into() }),
    ]
}

fn key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 1..20).prop_map(Bytes::from)
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (any::<u32>(), 0..SLOTS, proptest::option::of(key())).prop_map(|(map, slot, after)| Cursor {
        map: MapId(map),
        slot: Slot(slot),
        after,
    })
}

fn checks() -> impl Strategy<Value = Vec<(Bytes, Condition)>> {
    let condition = prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Present),
        value().prop_map(Condition::Value),
        any::<u64>().prop_map(Condition::Revision)
    ];
    proptest::collection::vec((key(), condition), 1..4)
}

fn changes() -> impl Strategy<Value = Vec<(Bytes, Option<Value>)>> {
    proptest::collection::vec((key(), proptest::option::of(value())), 0..4)
}

fn op() -> impl Strategy<Value = Op> {
    let condition = || {
        prop_oneof![
            Just(Condition::Always),
            Just(Condition::Absent),
            Just(Condition::Present),
            value().prop_map(Condition::Value),
            any::<u64>().prop_map(Condition::Revision)
        ]
    };
    let payload = any::<Vec<u8>>().prop_map(|data| TaskPayload { codec: ValueCodec::Json, data: data.into() });
    let map = || "[a-z]{1,8}".prop_map(String::from);
    prop_oneof![
        (map(), key()).prop_map(|(map, key)| Op::Get { map, key }),
        (map(), proptest::collection::vec(key(), 1..5)).prop_map(|(map, keys)| Op::GetMany { map, keys }),
        (map(), key(), value(), condition(), any::<bool>(), proptest::option::of(0..=MAX_TTL_MS)).prop_map(
            |(map, key, value, condition, previous, ttl_ms)| Op::Put { map, key, value, condition, previous, ttl_ms }
        ),
        (map(), key(), proptest::option::of(0..=MAX_TTL_MS)).prop_map(|(map, key, ttl_ms)| Op::Touch {
            map,
            key,
            ttl_ms
        }),
        (map(), proptest::collection::vec((key(), value()), 1..5))
            .prop_map(|(map, entries)| Op::PutMany { map, entries }),
        (map(), key(), condition(), any::<bool>()).prop_map(|(map, key, condition, previous)| Op::Delete {
            map,
            key,
            condition,
            previous
        }),
        (map(), checks(), changes()).prop_map(|(map, checks, writes)| Op::Transact { map, checks, writes }),
        (map(), key(), proptest::option::of(cursor()), 1u32..4000).prop_map(|(map, prefix, from, limit)| Op::Scan {
            map,
            prefix,
            from,
            until: Slot(SLOTS - 1),
            limit,
            max_bytes: 1 << 20,
        }),
        map().prop_map(|map| Op::Size { map, slot: None }),
        (map(), proptest::option::of(cursor()), 1u32..4000).prop_map(|(map, from, limit)| Op::Clear {
            map,
            from,
            until: Slot(SLOTS - 1),
            limit
        }),
        (map(), key(), any::<i64>()).prop_map(|(map, key, delta)| Op::Increment { map, key, delta }),
        (map(), key(), payload, any::<u64>()).prop_map(|(name, key, payload, id)| Op::Task { name, key, payload, id }),
    ]
}

fn stamp() -> impl Strategy<Value = SessionStamp> {
    (1u64.., 2u64..1000, any::<u64>()).prop_map(|(session, number, time)| SessionStamp {
        session: SessionId(session),
        number,
        lowest_unanswered: number - 1,
        previous: Some(number - 1).filter(|previous| previous % 2 == 1),
        first_sent: HybridTime(time),
        given_up: if number > 9 { vec![(1, 2), (5, number - 2)] } else { Vec::new() },
    })
}

proptest! {
    #[test]
    fn requests_round_trip(op in op(), local: bool, accepted: bool, stamp in proptest::option::of(stamp()),
                           affinity in proptest::option::of(key()), deadline_ms in 1u32..60_000) {
        let request = Request {
            affinity, op, stamp, deadline_ms,
            read: if local { ReadLevel::Local } else { ReadLevel::Linearizable },
            ack: if accepted { AckLevel::Accepted } else { AckLevel::MajorityFsync },
        };
        let limits = Limits::default();
        let back = match kv_request_to_wire(request.clone()) {
            Some(op) => kv_request_from_wire(Some(op), &limits).map(|(_, request)| request),
            None => task_request_from_wire(task_request_to_wire(request.clone()), &limits),
        };
        prop_assert_eq!(back.expect("a good request"), request);
    }

    #[test]
    fn replies_round_trip(value in proptest::option::of(value()), revision: u64, number: i64, next in proptest::option::of(cursor()),
                          which in 0usize..16, expires_ms: u64) {
        let entry = value.map(|value| StoredValue { revision, value, expires_ms });
        let key = Bytes::from_static(b"k");
        let (kind, body) = [
            (Kind::Get, ReplyBody::Entry(entry.clone())),
            (Kind::GetMany, ReplyBody::Entries(vec![entry.clone(), None])),
            (Kind::Put, ReplyBody::Written { revision, previous: None }),
            (Kind::Put, ReplyBody::Written { revision, previous: entry.clone() }),
            (Kind::Put, ReplyBody::ConditionFailed(entry.clone())),
            (Kind::Delete, ReplyBody::Deleted { existed: number > 0, revision, previous: None }),
            (Kind::Delete, ReplyBody::Deleted { existed: true, revision, previous: entry.clone() }),
            (Kind::Delete, ReplyBody::ConditionFailed(entry.clone())),
            (Kind::Touch, ReplyBody::Touched { existed: number > 0, revision }),
            (Kind::Increment, ReplyBody::Number { value: number, revision }),
            (Kind::PutMany, ReplyBody::Written { revision, previous: None }),
            (Kind::Transact, ReplyBody::Written { revision, previous: None }),
            (Kind::Transact, ReplyBody::CheckFailed { key: key.clone(), present: entry.clone() }),
            (Kind::Scan, ReplyBody::Page { entries: entry.map(|entry| (key, entry)).into_iter().collect(),
                                           next: next.clone() }),
            (Kind::Size, ReplyBody::Size { entries: revision, bytes: 7 }),
            (Kind::Clear, ReplyBody::Cleared { deleted: revision, next }),
        ][which].clone();
        let served = Served { node: NodeId(revision), term: 3, hops: 1, time: HybridTime(4), applied: 5,
                              ack: AckLevel::MajorityFsync };
        let reply = Reply { body, served };
        let back = kv_reply_from_wire(Some(kv_reply_to_wire(kind, Ok(reply.clone()))));
        prop_assert_eq!(back.expect("a good reply"), reply);
    }
}

#[test]
fn a_task_reply_round_trips_and_names_its_level() {
    let answer = TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"1") };
    let served = Served { ack: AckLevel::Accepted, ..Served::default() };
    let reply = Reply { body: ReplyBody::Task(answer), served };
    assert_eq!(task_reply_from_wire(Some(task_reply_to_wire(Ok(reply.clone())))), Ok(reply));
}

#[test]
fn a_reply_of_another_kind_is_an_error_not_a_panic() {
    let reply =
        Reply { body: ReplyBody::Deleted { existed: true, revision: 7, previous: None }, served: Served::default() };
    let error = kv_reply_from_wire(Some(kv_reply_to_wire(Kind::Get, Ok(reply)))).expect_err("another kind");
    assert_eq!(error.code, Code::Internal);
}

fn put() -> v1::PutRequest {
    v1::PutRequest {
        options: None,
        map: "m".into(),
        key: Bytes::from_static(b"k"),
        value: Some(v1::Value { codec: 2, schema: 0, data: Bytes::from_static(b"v") }),
        condition: None,
        return_previous: false,
        ttl_ms: None,
    }
}

fn refused(op: Option<WireOp>) -> Code {
    let limits = Limits {
        max_key_bytes: 8,
        max_value_bytes: 16,
        max_write_bytes: 16,
        max_keys_per_request: 2,
        ..Limits::default()
    };
    kv_request_from_wire(op, &limits).expect_err("refused").code
}

#[test]
fn bad_input_gives_coded_errors() {
    let put_with = |change: &dyn Fn(&mut v1::PutRequest)| {
        let mut request = put();
        change(&mut request);
        refused(Some(WireOp::Put(request)))
    };
    let long = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
    let value = |codec, data| Some(v1::Value { codec, schema: 0, data });
    assert_eq!(refused(None), Code::InvalidRequest);
    assert_eq!(put_with(&|p| p.key = Bytes::new()), Code::InvalidRequest);
    assert_eq!(put_with(&|p| p.key = long(9)), Code::TooLarge);
    assert_eq!(put_with(&|p| p.map = String::new()), Code::InvalidName);
    assert_eq!(put_with(&|p| p.map = "a b".into()), Code::InvalidName);
    assert_eq!(put_with(&|p| p.value = None), Code::InvalidRequest);
    assert_eq!(put_with(&|p| p.value = value(0, long(1))), Code::InvalidRequest);
    assert_eq!(put_with(&|p| p.value = value(99, long(1))), Code::InvalidRequest);
    assert_eq!(put_with(&|p| p.value = value(2, long(17))), Code::TooLarge);
    assert_eq!(put_with(&|p| p.value = value(2, Bytes::from_static(&[0xff]))), Code::WrongCodec);
    assert_eq!(put_with(&|p| p.value = value(5, long(7))), Code::WrongCodec);
    assert_eq!(put_with(&|p| p.condition = Some(v1::Condition { is: None })), Code::InvalidRequest);
    let options = |options: v1::RequestOptions| put_with(&|p| p.options = Some(options.clone()));
    assert_eq!(options(v1::RequestOptions { read: 7, ..Default::default() }), Code::InvalidRequest);
    assert_eq!(options(v1::RequestOptions { ack: 7, ..Default::default() }), Code::InvalidRequest);
    assert_eq!(
        options(v1::RequestOptions { affinity: Some(Bytes::new()), ..Default::default() }),
        Code::InvalidRequest
    );
    for (session, number, lowest, previous) in [(0, 1, 1, 0), (1, 0, 0, 0), (1, 2, 3, 0), (1, 2, 0, 0), (1, 2, 1, 2)] {
        let stamp = v1::SessionStamp {
            session,
            number,
            lowest_unanswered: lowest,
            previous,
            first_sent: 0,
            given_up: Vec::new(),
        };
        let stamp = v1::RequestOptions { stamp: Some(stamp), ..Default::default() };
        assert_eq!(options(stamp), Code::InvalidRequest);
    }
    let named = |given_up: &[(u64, u64)]| {
        let given_up = given_up.iter().map(|&(first, last)| v1::NumberRange { first, last }).collect();
        let (session, number, lowest_unanswered) = (1, 1000, 1);
        let stamp = v1::SessionStamp { session, number, lowest_unanswered, previous: 0, first_sent: 0, given_up };
        options(v1::RequestOptions { stamp: Some(stamp), ..Default::default() })
    };
    let too_many: Vec<(u64, u64)> = (1..=257).map(|number| (2 * number, 2 * number)).collect();
    for given_up in [&[(0, 1)][..], &[(3, 2)], &[(5, 6), (2, 3)], &[(2, 3), (3, 4)], &[(2, 1000)], &too_many] {
        assert_eq!(named(given_up), Code::InvalidRequest, "{given_up:?}");
    }
    let many = |count| v1::GetManyRequest { options: None, map: "m".into(), keys: vec![long(1); count] };
    assert_eq!(refused(Some(WireOp::GetMany(many(0)))), Code::InvalidRequest);
    assert_eq!(refused(Some(WireOp::GetMany(many(3)))), Code::TooLarge);
    let entry = v1::KeyValue { key: long(1), value: value(1, long(10)) };
    let many = v1::PutManyRequest { options: None, map: "m".into(), entries: vec![entry.clone(), entry] };
    assert_eq!(refused(Some(WireOp::PutMany(many))), Code::TooLarge);
    let task = |codec| v1::SubmitRequest {
        task_id: 5,
        options: None,
        name: "t".into(),
        key: long(1),
        payload: Some(v1::Payload { codec, data: long(1) }),
    };
    let limits = Limits::default();
    assert_eq!(task_request_from_wire(Some(task(2)), &limits).expect_err("utf8").code, Code::TaskCodec);
    assert_eq!(task_request_from_wire(None, &limits).expect_err("none").code, Code::InvalidRequest);
}

#[test]
fn deadlines_are_filled_and_bounded() {
    let limits = Limits { default_deadline_ms: 5, max_deadline_ms: 9, ..Limits::default() };
    for (asked, given) in [(0, 5), (7, 7), (100, 9)] {
        let mut request = put();
        request.options = Some(v1::RequestOptions { deadline_ms: asked, ..Default::default() });
        let (_, request) = kv_request_from_wire(Some(WireOp::Put(request)), &limits).expect("good");
        assert_eq!(request.deadline_ms, given);
    }
}

#[test]
fn every_code_survives_a_status_and_a_stream() {
    for code in Code::ALL {
        let error = Error::new(*code, "what happened").at("peer n1").leader("127.0.0.1:7");
        let status = status(&error);
        assert_eq!(i32::from(status.code()), code.grpc(), "{code}");
        let metadata = status.metadata().get(CODE_METADATA).and_then(|code| code.to_str().ok());
        assert_eq!(metadata, Some(code.to_string().as_str()));
        assert_eq!(error_from_status(&status), error);
        assert_eq!(error_from_wire(error_to_wire(&error)), error);
    }
}

#[test]
fn an_unknown_code_keeps_its_retry_advice() {
    let unknown = |retry: v1::Retry| v1::Error { code: "KS9999".into(), retry: retry.into(), ..Default::default() };
    assert_eq!(error_from_wire(unknown(v1::Retry::Never)).code, Code::Internal);
    assert_eq!(error_from_wire(unknown(v1::Retry::SamePeer)).code, Code::Overloaded);
    assert_eq!(error_from_wire(unknown(v1::Retry::OtherPeer)).code, Code::PeerUnreachable);
    assert!(error_from_wire(unknown(v1::Retry::Never)).what.contains("KS9999"));
}

#[test]
fn a_status_without_details_is_judged_by_its_grpc_code() {
    assert_eq!(error_from_status(&tonic::Status::unavailable("gone")).code, Code::PeerUnreachable);
    assert_eq!(error_from_status(&tonic::Status::unimplemented("no")).code, Code::ProtocolMismatch);
}

/// Bytes of a request that were changed here and there, or are no request at all.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let changed = (op(), proptest::option::of(stamp()), changes);
    let of_request = changed.prop_map(|(op, stamp, changes)| {
        let (read, ack) = (ReadLevel::Linearizable, AckLevel::Accepted);
        let request = Request { affinity: None, op, read, ack, stamp, deadline_ms: 5 };
        let requests = vec![v1::KvRequest { id: 1, op: kv_request_to_wire(request) }];
        let mut bytes = v1::KvBatch { requests }.encode_to_vec();
        for (place, byte) in changes {
            if !bytes.is_empty() {
                let at = place.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    });
    prop_oneof![3 => of_request, 1 => any::<Vec<u8>>()]
}

proptest! {
    /// Whatever can be decoded is either a request or refused with a code: nothing panics.
    #[test]
    fn no_bytes_make_the_translation_panic(bytes in mangled()) {
        let limits = Limits::default();
        if let Ok(batch) = v1::KvBatch::decode(&bytes[..]) {
            for request in batch.requests {
                if let Err(error) = kv_request_from_wire(request.op, &limits) {
                    prop_assert!(!error.what.is_empty() && error.code != Code::Internal);
                }
            }
        }
        if let Ok(batch) = v1::TaskBatch::decode(&bytes[..]) {
            for request in batch.requests {
                let _ = task_request_from_wire(request.submit, &limits);
            }
        }
    }
}
