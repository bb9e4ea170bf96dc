//! What nodes say to each other above Raft: kinds of frames and their payloads. Each payload is a
//! version byte and MessagePack with field names.

use crate::error::{Code, Error, Result};
use crate::meta::FoundingRecord;
use crate::types::{GroupId, HybridTime, NodeId, ReplicaId, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The kinds of frames; 1 to 15 are Raft's.
pub mod kind {
    /// A request for the leader of a group.
    pub const FORWARD: u8 = 32;
    /// A [`FORWARD`] that only reads: a kind of its own, so that the transport counts such reads.
    pub const FORWARD_READ: u8 = 38;
    /// Who are you, and what were you started with?
    pub const HELLO: u8 = 33;
    /// The founding record, to be persisted and acknowledged.
    pub const RECORD: u8 = 34;
    /// A node asks to become a member.
    pub const JOIN: u8 = 35;
    /// Which groups do you hold, and how do they stand?
    pub const STATUS: u8 = 36;
    /// What has changed behind these positions? A long poll.
    pub const WATCH: u8 = 44;
    /// A task's id that somebody has cancelled.
    pub const CANCEL: u8 = 48;
    /// A scatter's step, for partitions that the asked peer leads.
    pub const MAP: u8 = 49;
}

/// A request on its one hop.
#[derive(Debug, Serialize, Deserialize)]
pub struct Forward {
    /// The request.
    pub request: Request,
    /// Peers that it has passed, the sender included.
    pub hops: u32,
}

/// What a founder was started with, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its weight.
    pub weight: u32,
    /// The record of the grid that it belongs to, if any; acknowledged by all founders.
    pub grid: Option<FoundingRecord>,
}

/// A node that wants to become a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// Who it is, as in [`Hello`].
    pub hello: Hello,
    /// Its present life.
    pub incarnation: u64,
    /// For a member: its replica of the meta group that lost its log, to be replaced.
    pub lost: Option<ReplicaId>,
}

/// What a new member needs to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The grid's founding record.
    pub record: FoundingRecord,
    /// The id of the member's replica of the meta group.
    pub meta_replica: ReplicaId,
}

/// How one group stands on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// The node that leads it, as known there.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The applied index.
    pub applied: u64,
    /// Rows in its state.
    pub rows: u64,
}

/// How a node stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The groups that it holds.
    pub groups: Vec<GroupReport>,
    /// The grid's time there.
    pub time: HybridTime,
    /// Why it gives up its leaderships, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

const VERSION: u8 = 1;

/// Encodes a payload.
///
/// # Errors
/// `Internal`: plain data that cannot be encoded is a bug.
pub fn encode<T: Serialize>(payload: &T) -> Result<Bytes> {
    let mut out = vec![VERSION];
    payload
        .serialize(&mut rmp_serde::Serializer::new(&mut out).with_struct_map())
        .map_err(|error| Error::internal(format!("a message cannot be encoded: {error}")))?;
    Ok(out.into())
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// `ProtocolMismatch`.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T> {
    let bad = |what: String| Error::new(Code::ProtocolMismatch, what);
    let body =
        payload.strip_prefix(&[VERSION]).ok_or_else(|| bad(format!("a message of version {:?}", payload.first())))?;
    crate::types::msgpack::from_slice(body).map_err(|error| bad(format!("a message that cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AckLevel, Op, ReadLevel, SessionId, SessionStamp};

    #[test]
    fn a_forwarded_request_has_golden_bytes() {
        let request = Request {
            affinity: None,
            op: Op::Get { map: "m".into(), key: Bytes::from_static(b"k") },
            read: ReadLevel::Local,
            ack: AckLevel::MajorityFsync,
            stamp: None,
            deadline_ms: 5,
        };
        let forward = Forward { request: request.clone(), hops: 1 };
        let bytes = encode(&forward).expect("encodes");
        let expected: &[u8] =
            b"\x01\x82\xa7request\x86\xa8affinity\xc0\xa2op\x81\xa3Get\x82\xa3map\xa1m\xa3key\xc4\x01k\
            \xa4read\xa5Local\xa3ack\xadMajorityFsync\xa5stamp\xc0\xabdeadline_ms\x05\xa4hops\x01";
        assert_eq!(&bytes[..], expected);
        assert_eq!(decode::<Forward>(&bytes).expect("decodes").request, request);
        assert_eq!(decode::<Forward>(b"\x02").expect_err("foreign").code, Code::ProtocolMismatch);
    }

    #[test]
    fn a_stamp_has_golden_bytes() {
        let stamp = SessionStamp {
            session: SessionId(1),
            number: 9,
            lowest_unanswered: 2,
            previous: Some(7),
            first_sent: HybridTime(5),
            given_up: Vec::new(),
        };
        let plain: &[u8] = b"\xa7session\x01\xa6number\x09\xb1lowest_unanswered\x02\xa8previous\x07\xaafirst_sent\x05";
        assert_eq!(encode(&stamp).expect("encodes"), [b"\x01\x85", plain].concat());
        let naming = SessionStamp { given_up: vec![(3, 4)], ..stamp.clone() };
        let bytes = encode(&naming).expect("encodes");
        assert_eq!(bytes, [b"\x01\x86", plain, b"\xa8given_up\x91\x92\x03\x04"].concat());
        for stamp in [stamp, naming] {
            assert_eq!(decode::<SessionStamp>(&encode(&stamp).expect("encodes")).expect("decodes"), stamp);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn what_nodes_say_to_each_other_has_golden_bytes() {
        let hello =
            Hello { node: NodeId(1), name: "n".into(), address: "a:1".into(), zone: None, weight: 2, grid: None };
        let join = Join { hello, incarnation: 3, lost: Some(4) };
        assert_eq!(hex(&encode(&join).expect("encodes")), GOLDEN_JOIN);
        assert_eq!(decode::<Join>(&encode(&join).expect("encodes")).expect("decodes"), join);
        let group =
            GroupReport { group: GroupId(1), replica: 2, leader: Some(NodeId(3)), term: 4, applied: 5, rows: 6 };
        let report = StatusReport { groups: vec![group], time: HybridTime(7), trouble: None };
        assert_eq!(hex(&encode(&report).expect("encodes")), GOLDEN_STATUS);
        assert_eq!(decode::<StatusReport>(&encode(&report).expect("encodes")).expect("decodes"), report);
        let record = FoundingRecord {
            grid: crate::types::GridId(1),
            founders: Vec::new(),
            founder_list: Vec::new(),
            partitions: 2,
            replicas: 3,
            created_ms: 4,
        };
        let welcome = Welcome { record, meta_replica: 5 };
        assert_eq!(hex(&encode(&welcome).expect("encodes")), GOLDEN_WELCOME);
    }

    const GOLDEN_JOIN: &str = "0183a568656c6c6f86a46e6f646501a46e616d65a16ea761646472657373a3613a31a47a6f6e65c0a677656967687402\
        a467726964c0ab696e6361726e6174696f6e03a46c6f737404";
    const GOLDEN_STATUS: &str = "0182a667726f7570739186a567726f757001a77265706c69636102a66c656164657203a47465726d04\
        a76170706c69656405a4726f777306a474696d6507";
    const GOLDEN_WELCOME: &str = "0182a67265636f726486a467726964d92030303030303030303030303030303030303030303030303030303030\
        30303031a8666f756e6465727390ac666f756e6465725f6c69737490aa706172746974696f6e7302a87265706c\
        6963617303aa637265617465645f6d7304ac6d6574615f7265706c69636105";
}
