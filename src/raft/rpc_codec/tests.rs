//! Golden bytes, round trips and damage.

use super::*;
use openraft::Membership;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use crate::raft::types::ReplicaNode;
use crate::types::NodeId;
use openraft::raft::VoteRequest;

fn vote(term: u64, voted_for: u64, committed: bool) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for }, committed }
}

fn membership(replicas: &[u64]) -> Membership<u64, ReplicaNode> {
    let nodes: BTreeMap<u64, ReplicaNode> =
        replicas.iter().map(|replica| (*replica, ReplicaNode { node: NodeId(replica * 10) })).collect();
    Membership::new(vec![replicas.iter().copied().collect::<BTreeSet<_>>()], nodes).expect("every voter has a node")
}

fn entry(term: u64, index: u64, payload: EntryPayload) -> Entry {
    Entry { log_id: log_id(term, index), payload }
}

fn normal(bytes: Vec<u8>) -> EntryPayload {
    EntryPayload::Normal(LogPayload(bytes.into()))
}

fn le(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

#[test]
fn the_append_format_is_fixed() {
    let request = AppendEntriesRequest {
        vote: vote(2, 7, true),
        prev_log_id: Some(log_id(1, 4)),
        leader_commit: None,
        entries: vec![entry(2, 5, EntryPayload::Blank), entry(2, 6, normal(b"xy".to_vec()))],
    };
    let golden = [
        vec![1],
        le(9),
        le(2),
        le(7),
        vec![1],
        vec![1],
        le(1),
        le(4),
        vec![0],
        vec![2, 0, 0, 0],
        [le(2), le(5), vec![0], vec![0; 4]].concat(),
        [le(2), le(6), vec![1], vec![2, 0, 0, 0], b"xy".to_vec()].concat(),
    ]
    .concat();
    assert_eq!(encode_append(9, &request, 2).expect("encodes"), golden);
    assert_eq!(encode_append(9, &request, 9).expect("encodes"), golden, "no more than there are");
    let (target, back) = decode_append(golden.into()).expect("decodes");
    assert_eq!((target, format!("{back:?}")), (9, format!("{request:?}")));
}

#[test]
fn the_membership_format_is_fixed() {
    let entry = entry(1, 0, EntryPayload::Membership(membership(&[3])));
    let request =
        AppendEntriesRequest { vote: vote(1, 3, true), prev_log_id: None, leader_commit: None, entries: vec![entry] };
    let bytes = encode_append(3, &request, 1).expect("encodes");
    let golden = b"\x82\xA7configs\x91\x91\x03\xA5nodes\x81\x03\x81\xA4node\x1E";
    assert_eq!(&bytes[bytes.len() - golden.len()..], golden);
    assert_eq!(format!("{:?}", decode_append(bytes).expect("decodes").1), format!("{request:?}"));
}

#[test]
fn the_answer_formats_are_fixed() {
    let higher = AppendEntriesResponse::HigherVote(vote(3, 1, false));
    let cases = [
        (AppendEntriesResponse::Success, vec![1, 0]),
        (AppendEntriesResponse::PartialSuccess(None), vec![1, 1, 0]),
        (AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2))), [vec![1, 1, 1], le(1), le(2)].concat()),
        (AppendEntriesResponse::Conflict, vec![1, 2]),
        (higher, [vec![1, 3], le(3), le(1), vec![0]].concat()),
    ];
    for (answer, golden) in cases {
        assert_eq!(encode_append_answer(&answer), golden);
        assert_eq!(decode_append_answer(golden.into()), Ok(answer));
    }
}

#[test]
fn the_vote_format_is_fixed() {
    let mut request = VoteRequest::<TypeConfig>::new(vote(2, 7, false), Some(log_id(1, 4)));
    request.leadership_transfer = true;
    let bytes = encode_request(9, &request).expect("encodes");
    let golden =
        b"\x01\x09\0\0\0\0\0\0\0\x83\xA4vote\x82\xA9leader_id\x82\xA4term\x02\xA9voted_for\x07\xA9committed\xC2\
        \xABlast_log_id\x82\xA9leader_id\x01\xA5index\x04\xB3leadership_transfer\xC3";
    assert_eq!(bytes, golden.as_slice(), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(decode_request(bytes), Ok((9, request)));
}

#[test]
fn the_snapshot_format_is_fixed() {
    let part = SnapshotPart { transfer: 2, vote: vote(3, 4, true), sequence: 5, meta: None, body: "rows".into() };
    let golden =
        [vec![1], le(9), le(2), le(3), le(4), vec![1], vec![5, 0, 0, 0], vec![0; 4], b"rows".to_vec()].concat();
    assert_eq!(encode_part(9, &part).expect("encodes"), golden);
    assert_eq!(decode_part(golden.into()), Ok((9, part.clone())));
    let stored = openraft::StoredMembership::new(Some(log_id(1, 1)), membership(&[1, 2]));
    let first = SnapshotPart {
        sequence: 0,
        meta: Some(SnapshotMeta { last_log_id: Some(log_id(3, 8)), last_membership: stored }),
        ..part
    };
    assert_eq!(decode_part(encode_part(1, &first).expect("encodes")), Ok((1, first)));
}

#[test]
fn another_format_version_is_refused() {
    assert_eq!(decode_append_answer(Bytes::from_static(&[2, 0])).expect_err("version 2").code, Code::ProtocolMismatch);
}

#[test]
fn what_fits_is_a_prefix_and_at_least_one_entry() {
    let entries: Vec<Entry> = (0..5).map(|index| entry(1, index, normal(vec![0; 79]))).collect();
    assert_eq!(fitting(&entries, 1000), 5);
    assert_eq!(fitting(&entries, 250), 2);
    assert_eq!(fitting(&entries, 1), 1);
    assert_eq!(fitting(&[], 1), 0);
}

fn payloads() -> impl Strategy<Value = EntryPayload> {
    prop_oneof![
        Just(EntryPayload::Blank),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(normal),
        proptest::collection::btree_set(any::<u64>().prop_map(|id| id / 10), 1..5)
            .prop_map(|ids| EntryPayload::Membership(membership(&ids.into_iter().collect::<Vec<_>>()))),
    ]
}

fn requests() -> impl Strategy<Value = AppendEntriesRequest<TypeConfig>> {
    let ids = || proptest::option::of((any::<u64>(), any::<u64>()).prop_map(|(term, index)| log_id(term, index)));
    let entries = proptest::collection::vec((any::<u64>(), any::<u64>(), payloads()), 0..6);
    (any::<(u64, u64, bool)>(), ids(), ids(), entries).prop_map(|(v, prev_log_id, leader_commit, entries)| {
        let entries = entries.into_iter().map(|(term, index, payload)| entry(term, index, payload)).collect();
        AppendEntriesRequest { vote: vote(v.0, v.1, v.2), prev_log_id, leader_commit, entries }
    })
}

proptest! {
    #[test]
    fn any_append_comes_back(target: u64, request in requests()) {
        let bytes = encode_append(target, &request, request.entries.len()).expect("encodes");
        let (to, back) = decode_append(bytes).expect("decodes");
        prop_assert_eq!((to, format!("{back:?}")), (target, format!("{request:?}")));
    }

    #[test]
    fn a_cut_append_is_an_error(request in requests(), cut in 0usize..10_000) {
        let bytes = encode_append(1, &request, request.entries.len()).expect("encodes");
        prop_assert!(decode_append(bytes.slice(..cut % bytes.len())).is_err());
    }

    #[test]
    fn damage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let bytes = Bytes::from(bytes);
        drop((decode_append(bytes.clone()), decode_append_answer(bytes.clone()), decode_part(bytes.clone())));
        drop((decode_request::<VoteRequest<TypeConfig>>(bytes.clone()), decode_answer::<Vote>(bytes)));
    }
}
