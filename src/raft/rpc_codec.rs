//! Raft's messages on the wire. In: openraft's requests and answers. Out: bytes, and back. Each
//! message opens with a format version and the replica that it is meant for: replica ids are never
//! reused, so a message to a replica that this node no longer holds is refused, not misdelivered.
//!
//! Appends are written by hand, because they carry the payloads and are the hot path; all other
//! messages are small and use MessagePack with field names. Integers are little-endian.

use super::types::{Entry, EntryPayload, LeaderId, LogId, LogPayload, SnapshotMeta, TypeConfig, Vote};
use crate::error::{Code, Error, Result};
use crate::types::ReplicaId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::vote::RaftLeaderId;
use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSION: u8 = 1;
/// An entry's bytes beside its payload.
const ENTRY_HEAD: usize = 8 + 8 + 1 + 4;

fn damaged(what: &str) -> Error {
    Error::new(Code::ProtocolMismatch, format!("a Raft message is damaged: {what}"))
}

/// Reads a message front to back; every read checks that the bytes are there.
struct Reader(Bytes);

impl Reader {
    /// Opens a request and says for whom it is.
    fn request(bytes: Bytes) -> Result<(ReplicaId, Reader)> {
        let mut reader = Reader::answer(bytes)?;
        Ok((reader.u64()?, reader))
    }

    fn answer(bytes: Bytes) -> Result<Reader> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            VERSION => Ok(reader),
            other => Err(damaged(&format!("format version {other}"))),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        if self.0.len() < length {
            return Err(damaged("it is too short"));
        }
        Ok(self.0.split_to(length))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?.get_u8())
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(self.take(8)?.get_u64_le())
    }

    fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(damaged(&format!("flag {other}"))),
        }
    }

    fn vote(&mut self) -> Result<Vote> {
        let (term, voted_for) = (self.u64()?, self.u64()?);
        Ok(Vote { leader_id: LeaderId { term, voted_for }, committed: self.flag()? })
    }

    fn log_id(&mut self) -> Result<LogId> {
        let (term, index) = (self.u64()?, self.u64()?);
        Ok(log_id(term, index))
    }

    fn optional_log_id(&mut self) -> Result<Option<LogId>> {
        if self.flag()? { self.log_id().map(Some) } else { Ok(None) }
    }

    fn block(&mut self) -> Result<Bytes> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn entry(&mut self) -> Result<Entry> {
        let log_id = self.log_id()?;
        let kind = self.u8()?;
        let body = self.block()?;
        let payload = match kind {
            0 => EntryPayload::Blank,
            1 => EntryPayload::Normal(LogPayload(body)),
            2 => EntryPayload::Membership(from_msgpack(&body)?),
            other => return Err(damaged(&format!("entry kind {other}"))),
        };
        Ok(Entry { log_id, payload })
    }

    fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(damaged("it is too long")) }
    }
}

/// The log id of an entry; a term has one leader, so the term names it.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, voted_for: 0 }.to_committed(), index }
}

fn put_head(to: &mut BytesMut, target: ReplicaId) {
    to.put_u8(VERSION);
    to.put_u64_le(target);
}

fn put_vote(to: &mut BytesMut, vote: &Vote) {
    to.put_u64_le(vote.leader_id.term);
    to.put_u64_le(vote.leader_id.voted_for);
    to.put_u8(u8::from(vote.committed));
}

fn put_log_id(to: &mut BytesMut, log_id: &LogId) {
    to.put_u64_le(log_id.leader_id.term);
    to.put_u64_le(log_id.index);
}

fn put_optional_log_id(to: &mut BytesMut, log_id: Option<&LogId>) {
    to.put_u8(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id {
        put_log_id(to, log_id);
    }
}

fn put_block(to: &mut BytesMut, block: &[u8]) -> Result<()> {
    let length = u32::try_from(block.len()).map_err(|_| Error::new(Code::TooLarge, "an entry of over 4 GiB"))?;
    to.put_u32_le(length);
    to.put_slice(block);
    Ok(())
}

fn put_entry(to: &mut BytesMut, entry: &Entry) -> Result<()> {
    put_log_id(to, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => {
            to.put_u8(0);
            put_block(to, &[])
        }
        EntryPayload::Normal(payload) => {
            to.put_u8(1);
            put_block(to, &payload.0)
        }
        EntryPayload::Membership(membership) => {
            to.put_u8(2);
            put_block(to, &to_msgpack(membership)?)
        }
    }
}

/// How many of the entries fit into so many bytes; at least one, if there is one.
pub(super) fn fitting(entries: &[Entry], max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fit = entries.iter().take_while(|entry| {
        bytes += entry_bytes(entry);
        bytes <= max_bytes
    });
    fit.count().max(1).min(entries.len())
}

fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEAD
        + match &entry.payload {
            EntryPayload::Normal(payload) => payload.0.len(),
            // A membership is small, whatever it is exactly.
            EntryPayload::Blank | EntryPayload::Membership(_) => 64,
        }
}

/// Encodes an append of the first `count` of its entries.
pub(super) fn encode_append(
    target: ReplicaId,
    request: &AppendEntriesRequest<TypeConfig>,
    count: usize,
) -> Result<Bytes> {
    let entries = &request.entries[..count.min(request.entries.len())];
    let mut to = BytesMut::with_capacity(80 + entries.iter().map(entry_bytes).sum::<usize>());
    put_head(&mut to, target);
    put_vote(&mut to, &request.vote);
    put_optional_log_id(&mut to, request.prev_log_id.as_ref());
    put_optional_log_id(&mut to, request.leader_commit.as_ref());
    to.put_u32_le(u32::try_from(entries.len()).map_err(|_| Error::internal("over 4 G entries in an append"))?);
    for entry in entries {
        put_entry(&mut to, entry)?;
    }
    Ok(to.freeze())
}

/// Decodes an append.
pub(super) fn decode_append(bytes: Bytes) -> Result<(ReplicaId, AppendEntriesRequest<TypeConfig>)> {
    let (target, mut reader) = Reader::request(bytes)?;
    let vote = reader.vote()?;
    let prev_log_id = reader.optional_log_id()?;
    let leader_commit = reader.optional_log_id()?;
    let count = reader.u32()? as usize;
    // What is announced may be damaged; what is there bounds it.
    let mut entries = Vec::with_capacity(count.min(reader.0.len() / ENTRY_HEAD));
    for _ in 0..count {
        entries.push(reader.entry()?);
    }
    reader.end()?;
    Ok((target, AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }))
}

/// Encodes the answer to an append.
pub(super) fn encode_append_answer(answer: &AppendEntriesResponse<TypeConfig>) -> Bytes {
    let mut to = BytesMut::with_capacity(32);
    to.put_u8(VERSION);
    match answer {
        AppendEntriesResponse::Success => to.put_u8(0),
        AppendEntriesResponse::PartialSuccess(log_id) => {
            to.put_u8(1);
            put_optional_log_id(&mut to, log_id.as_ref());
        }
        AppendEntriesResponse::Conflict => to.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            to.put_u8(3);
            put_vote(&mut to, vote);
        }
    }
    to.freeze()
}

/// Decodes the answer to an append.
pub(super) fn decode_append_answer(bytes: Bytes) -> Result<AppendEntriesResponse<TypeConfig>> {
    let mut reader = Reader::answer(bytes)?;
    let answer = match reader.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(reader.optional_log_id()?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(reader.vote()?),
        other => return Err(damaged(&format!("answer {other}"))),
    };
    reader.end()?;
    Ok(answer)
}

/// One piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotPart {
    /// Tells one transfer of a sender from its next.
    pub(super) transfer: u64,
    /// The sender's vote.
    pub(super) vote: Vote,
    /// The piece's number from 0; in the last message, how many there were.
    pub(super) sequence: u32,
    /// In piece 0 and only there.
    pub(super) meta: Option<SnapshotMeta>,
    /// Rows; in the last message, the trailer.
    pub(super) body: Bytes,
}

/// Encodes a piece or the last message.
pub(super) fn encode_part(target: ReplicaId, part: &SnapshotPart) -> Result<Bytes> {
    let meta = part.meta.as_ref().map(to_msgpack).transpose()?.unwrap_or_default();
    let mut to = BytesMut::with_capacity(64 + meta.len() + part.body.len());
    put_head(&mut to, target);
    to.put_u64_le(part.transfer);
    put_vote(&mut to, &part.vote);
    to.put_u32_le(part.sequence);
    put_block(&mut to, &meta)?;
    to.put_slice(&part.body);
    Ok(to.freeze())
}

/// Decodes a piece or the last message.
pub(super) fn decode_part(bytes: Bytes) -> Result<(ReplicaId, SnapshotPart)> {
    let (target, mut reader) = Reader::request(bytes)?;
    let (transfer, vote, sequence) = (reader.u64()?, reader.vote()?, reader.u32()?);
    let meta = reader.block()?;
    let meta = if meta.is_empty() { None } else { Some(from_msgpack(&meta)?) };
    Ok((target, SnapshotPart { transfer, vote, sequence, meta, body: reader.0 }))
}

/// Encodes a small request.
pub(super) fn encode_request<T: Serialize>(target: ReplicaId, request: &T) -> Result<Bytes> {
    let mut to = BytesMut::new();
    put_head(&mut to, target);
    to.put_slice(&to_msgpack(request)?);
    Ok(to.freeze())
}

/// Decodes a small request.
pub(super) fn decode_request<T: DeserializeOwned>(bytes: Bytes) -> Result<(ReplicaId, T)> {
    let (target, reader) = Reader::request(bytes)?;
    Ok((target, from_msgpack(&reader.0)?))
}

/// Encodes a small answer.
pub(super) fn encode_answer<T: Serialize>(answer: &T) -> Result<Bytes> {
    let mut to = vec![VERSION];
    to.append(&mut to_msgpack(answer)?);
    Ok(to.into())
}

/// Decodes a small answer.
pub(super) fn decode_answer<T: DeserializeOwned>(bytes: Bytes) -> Result<T> {
    from_msgpack(&Reader::answer(bytes)?.0)
}

fn to_msgpack<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|error| Error::internal(format!("a Raft message is not encodable: {error}")))
}

fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    crate::types::msgpack::from_slice(bytes).map_err(|error| damaged(&error.to_string()))
}

#[cfg(test)]
mod tests;
