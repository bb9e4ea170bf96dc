//! How openraft's entries, votes and log ids are laid out in the log: a version byte first, then
//! fixed little-endian fields. Payloads are copied as they are, so that the hot path pays for no
//! serialisation; only memberships, which are rare, are msgpack with field names. Pure functions.

use super::types::{Entry, EntryPayload, LeaderId, LogId, LogPayload, Vote};
use bytes::{BufMut, Bytes, BytesMut};
use std::io;

/// Version of all formats in this file.
const VERSION: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// Version, kind, term, index.
const ENTRY_HEAD: usize = 18;

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Encodes an entry.
///
/// # Errors
/// A membership that msgpack cannot express.
pub fn encode_entry(entry: &Entry) -> io::Result<Bytes> {
    let membership;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(payload) => (NORMAL, &payload.0),
        EntryPayload::Membership(value) => {
            membership = rmp_serde::to_vec_named(value).map_err(io::Error::other)?;
            (MEMBERSHIP, &membership)
        }
    };
    let mut out = BytesMut::with_capacity(ENTRY_HEAD + payload.len());
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u64_le(entry.log_id.leader_id.term);
    out.put_u64_le(entry.log_id.index());
    out.put_slice(payload);
    Ok(out.freeze())
}

/// Decodes an entry; a payload shares the bytes given.
///
/// # Errors
/// Anything that [`encode_entry`] has not made.
pub fn decode_entry(bytes: &Bytes) -> io::Result<Entry> {
    let log_id = decode_entry_id(bytes)?;
    let payload = match bytes[1] {
        BLANK if bytes.len() == ENTRY_HEAD => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(LogPayload(bytes.slice(ENTRY_HEAD..))),
        MEMBERSHIP => {
            let membership = crate::types::msgpack::from_slice(&bytes[ENTRY_HEAD..]);
            EntryPayload::Membership(membership.map_err(|_| invalid("a log entry's membership does not parse"))?)
        }
        _ => return Err(invalid("a log entry is of an unknown kind")),
    };
    Ok(Entry { log_id, payload })
}

/// The log id of an encoded entry.
///
/// # Errors
/// Anything that [`encode_entry`] has not made.
pub fn decode_entry_id(bytes: &[u8]) -> io::Result<LogId> {
    match bytes.get(..ENTRY_HEAD) {
        Some(head) if head[0] == VERSION => Ok(log_id(head, 2)),
        Some(_) => Err(invalid("a log entry is of an unknown version")),
        None => Err(invalid("a log entry is too short")),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn log_id(bytes: &[u8], at: usize) -> LogId {
    LogId::new_term_index(u64_at(bytes, at), u64_at(bytes, at + 8))
}

/// Encodes a vote.
pub fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VERSION);
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
    out.freeze()
}

/// Decodes a vote.
///
/// # Errors
/// Anything that [`encode_vote`] has not made.
pub fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    if bytes.len() != 18 || bytes[0] != VERSION || bytes[17] > 1 {
        return Err(invalid("a vote does not parse"));
    }
    let leader_id = LeaderId { term: u64_at(bytes, 1), voted_for: u64_at(bytes, 9) };
    Ok(Vote { leader_id, committed: bytes[17] == 1 })
}

/// Encodes a log id.
pub fn encode_log_id(id: &LogId) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    out.put_u8(VERSION);
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.index());
    out.freeze()
}

/// Decodes a log id.
///
/// # Errors
/// Anything that [`encode_log_id`] has not made.
pub fn decode_log_id(bytes: &[u8]) -> io::Result<LogId> {
    match bytes.len() == 17 && bytes[0] == VERSION {
        true => Ok(log_id(bytes, 1)),
        false => Err(invalid("a log id does not parse")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::ReplicaNode;
    use crate::types::NodeId;
    use openraft::Membership;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn entry(term: u64, index: u64, payload: EntryPayload) -> Entry {
        Entry { log_id: LogId::new_term_index(term, index), payload }
    }

    fn membership(voters: BTreeSet<u64>, learners: &BTreeSet<u64>) -> EntryPayload {
        let node = |id: &u64| (*id, ReplicaNode { node: NodeId(*id * 3) });
        let nodes: BTreeMap<u64, ReplicaNode> = voters.iter().chain(learners).map(node).collect();
        EntryPayload::Membership(Membership::new(vec![voters], nodes).expect("membership"))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes() {
        let blank = encode_entry(&entry(2, 3, EntryPayload::Blank)).expect("encodes");
        assert_eq!(hex(&blank), "010002000000000000000300000000000000");
        let payload = EntryPayload::Normal(LogPayload(Bytes::from_static(b"xyz")));
        let normal = encode_entry(&entry(2, 3, payload)).expect("encodes");
        assert_eq!(hex(&normal), "01010200000000000000030000000000000078797a");
        let members = membership(BTreeSet::from([1, 2]), &BTreeSet::from([5]));
        let members = encode_entry(&entry(2, 3, members)).expect("encodes");
        assert_eq!(
            hex(&members),
            concat!(
                "010202000000000000000300000000000000",
                "82a7636f6e6669677391920102a56e6f646573830181a46e6f6465030281a46e6f6465060581a46e6f64650f"
            )
        );
        let vote = Vote { leader_id: LeaderId { term: 7, voted_for: 9 }, committed: true };
        assert_eq!(hex(&encode_vote(&vote)), "010700000000000000090000000000000001");
        assert_eq!(hex(&encode_log_id(&LogId::new_term_index(4, 5))), "0104000000000000000500000000000000");
    }

    #[test]
    fn what_was_not_encoded_here_is_refused() {
        let good = encode_entry(&entry(2, 3, EntryPayload::Blank)).expect("encodes");
        assert!(decode_entry(&good).is_ok());
        for bad in
            [&good[..17], &[&good[..], &[0]].concat(), &[&[2], &good[1..]].concat(), &[&[1, 9], &good[2..]].concat()]
        {
            assert!(decode_entry(&Bytes::copy_from_slice(bad)).is_err());
        }
        assert!(decode_vote(&[1; 17]).is_err());
        assert!(decode_log_id(&[2; 17]).is_err());
    }

    fn payloads() -> impl Strategy<Value = EntryPayload> {
        let ids = || proptest::collection::btree_set(0u64..50, 1..6);
        prop_oneof![
            Just(EntryPayload::Blank),
            proptest::collection::vec(any::<u8>(), 0..300)
                .prop_map(|bytes| EntryPayload::Normal(LogPayload(bytes.into()))),
            (ids(), ids()).prop_map(|(voters, learners)| membership(voters, &learners)),
        ]
    }

    proptest! {
        #[test]
        fn everything_reads_back(term: u64, index: u64, voted_for: u64, committed: bool, payload in payloads()) {
            let entry = entry(term, index, payload);
            let bytes = encode_entry(&entry).expect("encodes");
            prop_assert_eq!(decode_entry(&bytes).expect("decodes"), entry);
            prop_assert_eq!(decode_entry_id(&bytes).expect("decodes"), LogId::new_term_index(term, index));
            let vote = Vote { leader_id: LeaderId { term, voted_for }, committed };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)).expect("decodes"), vote);
            let id = LogId::new_term_index(term, index);
            prop_assert_eq!(decode_log_id(&encode_log_id(&id)).expect("decodes"), id);
        }
    }
}
