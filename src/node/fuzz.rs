//! Fuzz targets: the identity file, and what nodes say to each other above Raft.

use super::identity::{Identity, decode as decode_identity};
use super::watching::{Pull, Pulled};
use super::wire::{self, Forward, GroupReport, Hello, Join, StatusReport, Welcome};
use super::{MapCall, MapReply};
use crate::error::Code;
use crate::fuzzing::{Fuzz, reseal_json};
use crate::types::*;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn record() -> crate::meta::FoundingRecord {
    let json = r#"{"grid":"00000000000000000000000000000007","founders":[{"node":"0000000000000001","name":"n","address":"h:1","weight":1}],"founder_list":[],"partitions":64,"replicas":3,"created_ms":9}"#;
    serde_json::from_str(json).expect("a record")
}

#[test]
fn identity_file() {
    let identity = Identity {
        node: NodeId(u64::MAX),
        incarnation: Incarnation(3),
        record: Some(record()),
        founded: true,
        meta_replica: Some(4),
        log_created: true,
    };
    let mut seed = [b"\x01\0\0\0\0", &serde_json::to_vec(&identity).expect("JSON")[..]].concat();
    reseal_json(&mut seed);
    Fuzz::new("identity_file", [seed]).reseal(reseal_json).run(|input| match decode_identity(input) {
        Ok(identity) => format!("an identity, {} {}", identity.record.is_some(), identity.founded),
        Err(error) => {
            assert!(matches!(error.code, Code::CorruptLog | Code::UnknownFormat), "{error}");
            error.what
        }
    });
}

fn requests() -> Vec<Request> {
    let (map, key, value) = (|| "orders".to_owned(), || Bytes::from_static(b"{7}:k"), || Value::utf8("v"));
    let payload = || TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"{}") };
    let cursor = Cursor { map: MapId(1), slot: Slot(2), after: Some(key()) };
    let ops = vec![
        Op::Get { map: map(), key: key() },
        Op::GetMany { map: map(), keys: vec![key(), key()] },
        Op::Put {
            map: map(),
            key: key(),
            value: value(),
            condition: Condition::Value(value()),
            previous: true,
            ttl_ms: Some(5),
        },
        Op::PutMany { map: map(), entries: vec![(key(), value())] },
        Op::Increment { map: map(), key: key(), delta: i64::MIN },
        Op::Transact {
            map: map(),
            checks: vec![(key(), Condition::Revision(3)), (key(), Condition::Absent)],
            writes: vec![(key(), None), (key(), Some(value()))],
        },
        Op::Clear { map: map(), from: Some(cursor), until: Slot(SLOTS - 1), limit: 9 },
        Op::Task { name: "task".to_owned(), key: key(), payload: payload(), id: 3 },
    ];
    let stamp = SessionStamp {
        session: SessionId(1),
        number: 2,
        lowest_unanswered: 1,
        previous: Some(1),
        first_sent: HybridTime(1 << 40),
        given_up: Vec::new(),
    };
    let request = |op| Request {
        affinity: Some(key()),
        op,
        read: ReadLevel::Local,
        ack: AckLevel::Accepted,
        stamp: Some(stamp.clone()),
        deadline_ms: 500,
    };
    ops.into_iter().map(request).collect()
}

/// Decodes, encodes, decodes: gives what came, if it is such a message.
fn again<T: Serialize + DeserializeOwned>(input: &[u8]) -> Result<T, String> {
    match wire::decode::<T>(input) {
        Ok(message) => {
            let bytes = wire::encode(&message).expect("encodes");
            let back: T = wire::decode(&bytes).expect("decodes");
            assert_eq!(wire::encode(&back).expect("encodes"), bytes);
            Ok(message)
        }
        Err(error) => {
            assert_eq!(error.code, Code::ProtocolMismatch);
            Err(error.what)
        }
    }
}

#[test]
fn node_request() {
    let seeds = requests().into_iter().map(|request| wire::encode(&Forward { request, hops: 1 }).expect("encodes"));
    Fuzz::new("node_request", seeds).run(|input| match again::<Forward>(input) {
        Ok(Forward { request, .. }) => {
            request.op.target();
            format!("{:?} {}", std::mem::discriminant(&request.op), request.stamp.is_some())
        }
        Err(what) => what,
    });
}

#[test]
fn node_reply() {
    let stored = StoredValue::new(4, Value::i64(3));
    let bodies = [
        ReplyBody::Entries(vec![None, Some(stored.clone())]),
        ReplyBody::Deleted { existed: true, revision: 3, previous: Some(stored.clone()) },
        ReplyBody::CheckFailed { key: "k".into(), present: Some(stored) },
        ReplyBody::Size { entries: 1, bytes: u64::MAX },
        ReplyBody::Jobs(Vec::new()),
    ];
    let seeds = bodies.map(|body| wire::encode(&Reply { body, served: Served::default() }).expect("encodes"));
    Fuzz::new("node_reply", seeds).run(|input| match again::<Reply>(input) {
        Ok(reply) => format!("{:?}", std::mem::discriminant(&reply.body)),
        Err(what) => what,
    });
}

#[test]
fn node_message() {
    let hello = Hello {
        node: NodeId(1),
        name: "n1".to_owned(),
        address: "h:1".to_owned(),
        zone: Some("z".to_owned()),
        weight: 1,
        grid: Some(record()),
    };
    let report = GroupReport { group: GroupId(1), replica: 2, leader: Some(NodeId(3)), term: 4, applied: 5, rows: 6 };
    let status = StatusReport { groups: vec![report], time: HybridTime(9), trouble: Some("full".to_owned()) };
    let scan = Position::Scan { revision: 7, after: Bytes::from_static(b"r") };
    let pull = Pull {
        map: MapId(1),
        keys: WatchKeys::Prefix("p".into()),
        slot: Some(Slot(2)),
        positions: vec![(PartitionId(u32::MAX), scan.clone()), (PartitionId(3), Position::Now)],
        max_bytes: 5,
        wait_ms: 6,
    };
    let event = WatchEvent {
        partition: PartitionId(3),
        key: "k".into(),
        revision: 5,
        time_ms: 6,
        kind: WatchKind::Put(Value::utf8("v")),
    };
    let pulled = vec![(PartitionId(3), Pulled::On(vec![event], scan)), (PartitionId(4), Pulled::Compacted(9))];
    let seeds = [
        wire::encode(&Join { hello: hello.clone(), incarnation: 3, lost: Some(4) }),
        wire::encode(&hello),
        wire::encode(&Welcome { record: record(), meta_replica: 3 }),
        wire::encode(&status),
        wire::encode(&pull),
        wire::encode(&pulled),
        wire::encode(&7u64),
    ];
    Fuzz::new("node_message", seeds.map(|seed| seed.expect("encodes"))).run(|input| {
        let told = [
            again::<Join>(input).map(|_| "join"),
            again::<Hello>(input).map(|_| "hello"),
            again::<Welcome>(input).map(|_| "welcome"),
            again::<StatusReport>(input).map(|_| "status"),
            again::<u64>(input).map(|_| "cancel"),
            again::<MapCall>(input).map(|_| "map"),
            again::<MapReply>(input).map(|_| "mapped"),
            again::<Vec<(PartitionId, Pulled)>>(input).map(|_| "pulled"),
            again::<Pull>(input).map(|pull| {
                // Whatever number a partition has, its group is not the meta group.
                let groups = pull.positions.iter().map(|(partition, _)| partition.group());
                assert!(groups.into_iter().all(|group| group != GroupId::META));
                "pull"
            }),
        ];
        let known: Vec<&str> = told.iter().filter_map(|told| told.as_ref().ok().copied()).collect();
        match known.is_empty() {
            true => told.into_iter().filter_map(Result::err).next().unwrap_or_default(),
            false => format!("{known:?}"),
        }
    });
}
