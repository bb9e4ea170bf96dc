//! The bytes of a segment: a header, then batches. Encoders append to a buffer; decoders take a
//! whole segment and a position and answer `None` for whatever is not exactly right. No I/O here.
//!
//! All numbers are little-endian, all checksums CRC-32 of the bytes before them.
//! - Segment header: magic (8), version u16, zero u16, sequence u64, zero u64, crc.
//! - Batch: a header (magic u32, flags u32, own segment u64, own offset u64, durable segment u64,
//!   durable offset u64, length of the records u32, replicas touched u32, crc), the records, and
//!   the trailer: the replicas touched (group u32, replica u64, each) and a crc.
//! - Record: body length u32, kind u8, group u32, replica u64, index u64, crc of the body, crc of
//!   this head, body.
//!
//! A batch names its own position, so that one found while looking past damage is certainly a
//! batch of this segment and not a part of somebody's value. It names the position known durable
//! before it was written: damage below that is no torn write.

use super::ReplicaKey;
use crate::planted::{Bug, planted};
use crate::types::GroupId;
use std::ops::Range;

pub(super) const SEGMENT_HEADER: usize = 32;
pub(super) const BATCH_HEADER: usize = 52;
pub(super) const RECORD_HEAD: usize = 33;
/// Version of the format in segment headers.
pub(super) const VERSION: u16 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"KEYSTLOG";
const BATCH_MAGIC: [u8; 4] = *b"KSB\x01";
const TOUCHED: usize = 12;
const CRC: usize = 4;

/// The batch is the state of all replicas, in full; what was before matters no more, but for the
/// entries that it names.
pub(super) const CHECKPOINT: u32 = 1;
/// The batch only says that all before it is durable.
pub(super) const SEAL: u32 = 2;

/// What a record says. Numbers are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// An entry; what stood at its index and behind is gone.
    Entry = 1,
    /// An entry written again, further on, so that an old segment can go.
    Moved = 2,
    Vote = 3,
    Committed = 4,
    /// Entries behind the index are gone.
    TruncateAfter = 5,
    /// Entries up to the index are gone; the body is the owner's name for that entry.
    Purge = 6,
    Register = 7,
    Tombstone = 8,
    /// In a checkpoint: all small state of one replica.
    Replica = 9,
    /// All entries are gone.
    TruncateAll = 10,
}

impl Kind {
    pub(super) const ALL: [Kind; 10] = [
        Kind::Entry,
        Kind::Moved,
        Kind::Vote,
        Kind::Committed,
        Kind::TruncateAfter,
        Kind::Purge,
        Kind::Register,
        Kind::Tombstone,
        Kind::Replica,
        Kind::TruncateAll,
    ];

    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Whether the four bytes after the range are its checksum.
fn sound(bytes: &[u8], range: Range<usize>) -> bool {
    let (Some(covered), Some(crc)) = (bytes.get(range.clone()), u32_at(bytes, range.end)) else { return false };
    crc32fast::hash(covered) == crc
}

/// The header of a segment.
pub(super) fn segment_header(sequence: u64) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(SEGMENT_MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What the first bytes of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderVerdict {
    Sound,
    /// A sound header of another version of the format.
    Unknown(u16),
    Damaged,
}

/// Judges the header of the segment with this sequence.
pub(super) fn read_segment_header(bytes: &[u8], sequence: u64) -> HeaderVerdict {
    if !bytes.starts_with(SEGMENT_MAGIC) || !sound(bytes, 0..28) {
        return HeaderVerdict::Damaged;
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    match u64_at(bytes, 12) {
        _ if version != VERSION => HeaderVerdict::Unknown(version),
        Some(found) if found == sequence => HeaderVerdict::Sound,
        _ => HeaderVerdict::Damaged,
    }
}

/// Builds one batch in a buffer that is used again.
#[derive(Default)]
pub(super) struct BatchWriter {
    buffer: Vec<u8>,
    /// In the order of writing, with repetitions until the end.
    touched: Vec<ReplicaKey>,
}

impl BatchWriter {
    /// Begins a batch.
    pub(super) fn begin(&mut self) {
        self.buffer.clear();
        self.buffer.resize(BATCH_HEADER, 0);
        self.touched.clear();
    }

    /// Adds a record; answers where in the batch it begins.
    pub(super) fn record(&mut self, kind: Kind, key: ReplicaKey, index: u64, body: &[u8]) -> usize {
        let at = self.buffer.len();
        let mut head = [0; RECORD_HEAD];
        head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[4] = kind as u8;
        head[5..9].copy_from_slice(&key.0.0.to_le_bytes());
        head[9..17].copy_from_slice(&key.1.to_le_bytes());
        head[17..25].copy_from_slice(&index.to_le_bytes());
        head[25..29].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let crc = crc32fast::hash(&head[..29]);
        head[29..].copy_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(body);
        if self.touched.last() != Some(&key) {
            self.touched.push(key);
        }
        at
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Length so far, without the trailer.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Ends the batch that will stand at `at`.
    pub(super) fn finish(&mut self, flags: u32, at: Position, durable: Position) -> &[u8] {
        let records = self.buffer.len() - BATCH_HEADER;
        self.touched.sort_unstable();
        self.touched.dedup();
        let trailer = self.buffer.len();
        for (group, replica) in &self.touched {
            self.buffer.extend_from_slice(&group.0.to_le_bytes());
            self.buffer.extend_from_slice(&replica.to_le_bytes());
        }
        let crc = crc32fast::hash(&self.buffer[trailer..]);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        let header = &mut self.buffer[..BATCH_HEADER];
        header[..4].copy_from_slice(&BATCH_MAGIC);
        header[4..8].copy_from_slice(&flags.to_le_bytes());
        header[8..16].copy_from_slice(&at.segment.to_le_bytes());
        header[16..24].copy_from_slice(&at.offset.to_le_bytes());
        header[24..32].copy_from_slice(&durable.segment.to_le_bytes());
        header[32..40].copy_from_slice(&durable.offset.to_le_bytes());
        header[40..44].copy_from_slice(&(records as u32).to_le_bytes());
        header[44..48].copy_from_slice(&(self.touched.len() as u32).to_le_bytes());
        let crc = crc32fast::hash(&header[..48]);
        header[48..].copy_from_slice(&crc.to_le_bytes());
        &self.buffer
    }
}

/// A batch whose header is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) offset: usize,
    pub(super) flags: u32,
    pub(super) durable: Position,
    records: usize,
    touched: usize,
}

impl BatchHeader {
    /// Where its records lie in the segment.
    pub(super) fn records(&self) -> Range<usize> {
        let start = self.offset + BATCH_HEADER;
        start..start + self.records
    }

    /// Where the next batch begins.
    pub(super) fn end(&self) -> usize {
        self.records().end + self.touched * TOUCHED + CRC
    }

    /// The replicas that it touches; `None` if that list is damaged.
    pub(super) fn touched(&self, bytes: &[u8]) -> Option<Vec<ReplicaKey>> {
        let range = self.records().end..self.end() - CRC;
        if !sound(bytes, range.clone()) {
            return None;
        }
        let keys = bytes[range].chunks_exact(TOUCHED);
        keys.map(|key| Some((GroupId(u32_at(key, 0)?), u64_at(key, 4)?))).collect()
    }
}

/// The batch at this offset of a segment; `None` unless its header is sound and all of it is there.
pub(super) fn batch_at(bytes: &[u8], segment: u64, offset: usize) -> Option<BatchHeader> {
    let head = bytes.get(offset..offset + BATCH_HEADER)?;
    if head[..4] != BATCH_MAGIC || !sound(head, 0..48) {
        return None;
    }
    if u64_at(head, 8)? != segment || u64_at(head, 16)? != offset as u64 {
        return None;
    }
    let header = BatchHeader {
        offset,
        flags: u32_at(head, 4)?,
        durable: Position { segment: u64_at(head, 24)?, offset: u64_at(head, 32)? },
        records: u32_at(head, 40)? as usize,
        touched: u32_at(head, 44)? as usize,
    };
    (header.end() <= bytes.len()).then_some(header)
}

/// The first whole batch at or behind an offset, for going on behind damage.
pub(super) fn find_batch(bytes: &[u8], segment: u64, from: usize) -> Option<BatchHeader> {
    let places = bytes.get(from..)?.windows(BATCH_MAGIC.len()).enumerate();
    places.filter(|(_, window)| *window == BATCH_MAGIC).find_map(|(at, _)| batch_at(bytes, segment, from + at))
}

/// A record, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) key: ReplicaKey,
    pub(super) index: u64,
    /// Where it begins in the bytes that it was read from.
    pub(super) offset: usize,
    /// Where its body lies.
    pub(super) body: Range<usize>,
    /// Whether the body is what was written.
    pub(super) sound: bool,
}

/// The record at this offset, if its head is sound and it ends before `end`.
pub(super) fn record_at(bytes: &[u8], offset: usize, end: usize) -> Option<Record> {
    let head = bytes.get(offset..offset + RECORD_HEAD)?;
    if !sound(head, 0..29) {
        return None;
    }
    let start = offset + RECORD_HEAD;
    let body = start..start + u32_at(head, 0)? as usize;
    if body.end > end {
        return None;
    }
    let sound = crc32fast::hash(bytes.get(body.clone())?) == u32_at(head, 25)? || planted(Bug::IgnoreChecksum);
    Some(Record {
        kind: Kind::from_byte(head[4])?,
        key: (GroupId(u32_at(head, 5)?), u64_at(head, 9)?),
        index: u64_at(head, 17)?,
        offset,
        body,
        sound,
    })
}
