//! Fuzz targets: entries, votes and log ids of the log; Raft's messages.

use super::rpc_codec::*;
use super::types::{LogPayload, StoredMembership};
use super::*;
use crate::error::Code;
use crate::fuzzing::Fuzz;
use crate::types::NodeId;
use bytes::Bytes;
use openraft::Membership;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use std::collections::{BTreeMap, BTreeSet};

fn membership() -> Membership<u64, ReplicaNode> {
    let nodes: BTreeMap<u64, ReplicaNode> = (1..5).map(|id| (id, ReplicaNode { node: NodeId(id * 3) })).collect();
    let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
    Membership::new(voters, nodes).expect("every voter has a node")
}

fn entries() -> Vec<Entry> {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(LogPayload(Bytes::from_static(b"payload"))),
        EntryPayload::Membership(membership()),
    ];
    let entry = |(at, payload)| Entry { log_id: LogId::new_term_index(3, at), payload };
    (7..).zip(payloads).map(entry).collect()
}

fn vote() -> Vote {
    Vote { leader_id: LeaderId { term: 7, voted_for: 9 }, committed: true }
}

fn bytes(input: &[u8]) -> Bytes {
    Bytes::copy_from_slice(input)
}

#[test]
fn log_entry() {
    let seeds: Vec<Bytes> = entries().iter().map(|entry| encode_entry(entry).expect("encodes")).collect();
    Fuzz::new("log_entry", seeds).run(|input| {
        let read = decode_entry(&bytes(input));
        assert!(read.is_err() || decode_entry_id(input).is_ok());
        match read {
            Ok(entry) => {
                let again = encode_entry(&entry).expect("encodes");
                assert_eq!(decode_entry(&again).expect("decodes"), entry);
                // MessagePack knows several spellings of a membership.
                assert!(again == input || matches!(entry.payload, EntryPayload::Membership(_)));
                format!("kind {:?}", std::mem::discriminant(&entry.payload))
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
                error.to_string()
            }
        }
    });
}

#[test]
fn log_vote_and_id() {
    let seeds = [encode_vote(&vote()), encode_log_id(&LogId::new_term_index(1, u64::MAX))];
    Fuzz::new("log_vote_and_id", seeds).run(|input| {
        let (vote, id) = (decode_vote(input), decode_log_id(input));
        if let Ok(vote) = &vote {
            assert_eq!(encode_vote(vote), input);
        }
        if let Ok(id) = &id {
            assert_eq!(encode_log_id(id), input);
        }
        format!("{} {}", vote.is_ok(), id.is_ok())
    });
}

fn refused(error: &crate::error::Error) -> String {
    assert_eq!(error.code, Code::ProtocolMismatch);
    error.what.clone()
}

#[test]
fn raft_append() {
    let append = |entries: Vec<Entry>| AppendEntriesRequest {
        vote: vote(),
        prev_log_id: Some(log_id(1, 4)),
        leader_commit: None,
        entries,
    };
    let seed = |request: AppendEntriesRequest<TypeConfig>| encode_append(9, &request, 99).expect("encodes");
    let seeds = [seed(append(Vec::new())), seed(append(entries()))];
    Fuzz::new("raft_append", seeds).run(|input| match decode_append(bytes(input)) {
        Ok((target, request)) => {
            let again = encode_append(target, &request, request.entries.len()).expect("encodes");
            let (back, once_more) = decode_append(again).expect("decodes");
            assert_eq!((back, format!("{once_more:?}")), (target, format!("{request:?}")));
            assert!(fitting(&request.entries, 1000) <= request.entries.len());
            format!("{} entries", request.entries.len().min(3))
        }
        Err(error) => refused(&error),
    });
}

#[test]
fn raft_append_answer() {
    let seeds = [
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(vote()),
    ];
    let seeds = seeds.each_ref().map(encode_append_answer);
    Fuzz::new("raft_append_answer", seeds).run(|input| match decode_append_answer(bytes(input)) {
        Ok(answer) => {
            assert_eq!(encode_append_answer(&answer), input, "one spelling");
            format!("{answer}")
        }
        Err(error) => refused(&error),
    });
}

#[test]
fn raft_snapshot_part() {
    let last_membership = StoredMembership::new(Some(log_id(1, 2)), membership());
    let meta = SnapshotMeta { last_log_id: Some(log_id(2, 9)), last_membership };
    let part = |sequence, meta| SnapshotPart {
        transfer: 5,
        vote: vote(),
        sequence,
        meta,
        body: Bytes::from_static(b"\x01\0\0\0\0"),
    };
    let seeds = [part(0, Some(meta)), part(u32::MAX, None)].map(|part| encode_part(3, &part).expect("encodes"));
    Fuzz::new("raft_snapshot_part", seeds).run(|input| match decode_part(bytes(input)) {
        Ok((target, part)) => {
            let again = encode_part(target, &part).expect("encodes");
            assert_eq!(decode_part(again).expect("decodes"), (target, part.clone()));
            format!("a part, {}", part.meta.is_some())
        }
        Err(error) => refused(&error),
    });
}

#[test]
fn raft_vote() {
    let request = VoteRequest::<TypeConfig>::new(vote(), Some(log_id(2, 3)));
    let answer = VoteResponse::<TypeConfig>::new(vote(), Some(log_id(2, 3)), true);
    let seeds = [encode_request(4, &request).expect("encodes"), encode_answer(&answer).expect("encodes")];
    Fuzz::new("raft_vote", seeds).run(|input| {
        let request = decode_request::<VoteRequest<TypeConfig>>(bytes(input));
        let answer = decode_answer::<VoteResponse<TypeConfig>>(bytes(input));
        match (request, answer) {
            (Ok((target, request)), _) => {
                let again = encode_request(target, &request).expect("encodes");
                assert_eq!(decode_request(again).expect("decodes"), (target, request));
                "a request".to_owned()
            }
            (_, Ok(answer)) => {
                let again = encode_answer(&answer).expect("encodes");
                assert_eq!(decode_answer::<VoteResponse<TypeConfig>>(again).expect("decodes"), answer);
                "an answer".to_owned()
            }
            (Err(error), Err(_)) => refused(&error),
        }
    });
}
