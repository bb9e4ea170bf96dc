//! What the files hold after a crash, or after worse. All segments are read; each piece is either
//! applied, or judged: damage below the position that some later batch names durable is
//! corruption and is charged to the replicas concerned, damage above it is a torn tail, to be cut.
//! Reads only; the caller cuts.

use super::format::{
    self, BATCH_HEADER, BatchHeader, CHECKPOINT, HeaderVerdict, Position, Record, SEAL, SEGMENT_HEADER,
};
use super::rebuild::Rebuild;
use super::segment::{disk_error, segment_name, segment_sequence};
use crate::error::{Code, Error, Result};
use crate::planted::{Bug, planted};
use crate::storage::disk::{Disk, OpenMode};
use std::collections::BTreeMap;
use std::path::Path;

/// What is to be done with the newest segments before the log goes on.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rebuild: Rebuild,
    /// Segments that go on existing, with their sound length.
    pub(super) segments: BTreeMap<u64, u64>,
    /// Up to here the last segment was known to be durable when its last batch was written.
    pub(super) known_durable: u64,
    /// A segment whose creation was torn; nothing in it was ever durable.
    pub(super) torn_segment: Option<u64>,
    /// Bytes to cut from the newest segment.
    pub(super) torn_tail_bytes: u64,
    /// The newest segment ends in a seal.
    pub(super) sealed: bool,
    /// Segments whose header alone is damaged, to be written again.
    pub(super) headers_lost: Vec<u64>,
    /// Damaged places in bytes that had been durable.
    pub(super) damaged_places: usize,
}

/// A piece of a segment.
enum Piece {
    Batch(BatchHeader),
    /// Bytes up to the next batch that are none.
    Hole,
    /// From here on there is no batch.
    Tail(usize),
}

/// Cuts a segment into pieces.
fn pieces(bytes: &[u8], sequence: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = SEGMENT_HEADER;
    while at < bytes.len() {
        if let Some(batch) = format::batch_at(bytes, sequence, at) {
            at = batch.end();
            pieces.push(Piece::Batch(batch));
        } else if let Some(batch) = format::find_batch(bytes, sequence, at + 1) {
            at = batch.offset;
            pieces.push(Piece::Hole);
        } else {
            break;
        }
    }
    pieces.push(Piece::Tail(at));
    pieces
}

fn read_segment(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let file = disk.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|error| disk_error("a log segment cannot be read", path, &error))
}

fn sequences(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let names = disk.list(dir).map_err(|error| disk_error("the log's directory cannot be read", dir, &error))?;
    let mut found: Vec<u64> = names.iter().filter_map(|name| segment_sequence(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// The furthest position that the batches of a segment name durable.
fn durable_named(pieces: &[Piece]) -> Option<Position> {
    let batches = pieces.iter().filter_map(|piece| match piece {
        Piece::Batch(batch) => Some(batch.durable),
        _ => None,
    });
    batches.max()
}

/// Reads all segments of a directory.
pub(super) fn recover(disk: &dyn Disk, dir: &Path) -> Result<Found> {
    let sequences = sequences(disk, dir)?;
    let mut found = Found::default();
    let Some((&newest, older)) = sequences.split_last() else { return Ok(found) };
    let mut expected = None;
    // Each segment is judged by what the next one says of it, so one is always read ahead.
    let mut ahead = older.first().map(|first| read_segment(disk, &dir.join(segment_name(*first)))).transpose()?;
    for (nth, &sequence) in older.iter().enumerate() {
        let next = older.get(nth + 1).copied().unwrap_or(newest);
        let next_bytes = read_segment(disk, &dir.join(segment_name(next)))?;
        let Some(bytes) = ahead.replace(next_bytes) else { break };
        let durable = durable_end(ahead.as_deref().unwrap_or_default(), next, sequence, next == newest);
        found.gap(expected, sequence);
        found.segment(&bytes, sequence, durable)?;
        expected = Some(sequence + 1);
    }
    let bytes = match ahead {
        Some(bytes) => bytes,
        None => read_segment(disk, &dir.join(segment_name(newest)))?,
    };
    found.gap(expected, newest);
    found.newest(&bytes, newest)?;
    Ok(found)
}

/// How far a segment is known durable, by what its successor says. A successor with any batch was
/// only begun when all of the segment was durable; one without may itself be torn.
fn durable_end(next_bytes: &[u8], next: u64, sequence: u64, newest: bool) -> Option<u64> {
    match durable_named(&pieces(next_bytes, next)) {
        Some(position) if position.segment == sequence => Some(position.offset),
        Some(_) => {
            let first = format::batch_at(next_bytes, next, SEGMENT_HEADER);
            let named = first.filter(|batch| batch.durable.segment == sequence).map(|batch| batch.durable.offset);
            Some(named.unwrap_or(u64::MAX))
        }
        None if newest => None,
        None => Some(u64::MAX),
    }
}

impl Found {
    /// Notes that segments are missing between two. Removals reach the disk in any order, so that
    /// this alone is no damage: the next checkpoint says whether anybody needed them.
    fn gap(&mut self, expected: Option<u64>, sequence: u64) {
        if let Some(expected) = expected.filter(|expected| *expected != sequence) {
            self.rebuild.lost(expected);
        }
    }

    fn header(&mut self, bytes: &[u8], sequence: u64) -> Result<()> {
        match format::read_segment_header(bytes, sequence) {
            HeaderVerdict::Sound => {}
            HeaderVerdict::Unknown(version) => {
                let what = format!("a log segment has format version {version}");
                return Err(Error::new(Code::UnknownFormat, what).at(segment_name(sequence)));
            }
            // Nothing of any replica is in the header; each batch names its segment by itself.
            HeaderVerdict::Damaged => {
                self.headers_lost.push(sequence);
                self.damaged_places += 1;
            }
        }
        Ok(())
    }

    /// A segment that has a successor.
    fn segment(&mut self, bytes: &[u8], sequence: u64, durable: Option<u64>) -> Result<()> {
        self.header(bytes, sequence)?;
        let mut end = SEGMENT_HEADER.min(bytes.len());
        for piece in pieces(bytes, sequence) {
            match piece {
                Piece::Batch(batch) => {
                    end = batch.end();
                    if !self.batch(bytes, sequence, &batch) {
                        self.charge(bytes, sequence, &batch);
                    }
                }
                Piece::Hole => self.hole(sequence),
                Piece::Tail(at) => {
                    let complete = durable == Some(u64::MAX) && at == bytes.len() && at > SEGMENT_HEADER;
                    if !complete && durable.is_some_and(|durable| durable > at as u64) {
                        self.hole(sequence);
                    }
                }
            }
        }
        self.segments.insert(sequence, end as u64);
        Ok(())
    }

    /// The segment that was last written to. Its last batch may be torn; all before it was durable.
    fn newest(&mut self, bytes: &[u8], sequence: u64) -> Result<()> {
        let pieces = pieces(bytes, sequence);
        if !pieces.iter().any(|piece| matches!(piece, Piece::Batch(_))) {
            if let HeaderVerdict::Unknown(_) = format::read_segment_header(bytes, sequence) {
                self.header(bytes, sequence)?;
            }
            self.torn_segment = Some(sequence);
            self.torn_tail_bytes = bytes.len() as u64;
            // The one before it was whole when this one was begun.
            self.known_durable = u64::MAX;
            return Ok(());
        }
        self.header(bytes, sequence)?;
        let durable = durable_named(&pieces).unwrap_or_default();
        let known = if durable.segment == sequence && !planted(Bug::CutTail) { durable.offset } else { 0 };
        self.known_durable = known;
        let mut end = SEGMENT_HEADER;
        for piece in pieces {
            match piece {
                Piece::Batch(batch) if self.batch(bytes, sequence, &batch) => {
                    end = batch.end();
                    self.sealed = batch.flags & SEAL != 0;
                }
                Piece::Batch(batch) if batch.end() as u64 > known => break,
                Piece::Batch(batch) => {
                    end = batch.end();
                    self.charge(bytes, sequence, &batch);
                }
                Piece::Hole => self.hole(sequence),
                Piece::Tail(_) => {}
            }
        }
        if end == SEGMENT_HEADER {
            self.torn_segment = Some(sequence);
            self.known_durable = u64::MAX;
        } else {
            self.segments.insert(sequence, end as u64);
        }
        // Zeros that were written ahead are nothing that tore.
        let written_ahead = bytes[end..].iter().all(|byte| *byte == 0);
        self.torn_tail_bytes = if written_ahead { 0 } else { (bytes.len() - end) as u64 };
        Ok(())
    }

    fn hole(&mut self, sequence: u64) {
        self.rebuild.lost(sequence);
        self.damaged_places += 1;
    }

    /// Applies a batch if all of it is sound.
    fn batch(&mut self, bytes: &[u8], sequence: u64, batch: &BatchHeader) -> bool {
        let (records, complete) = records(bytes, batch);
        if !complete || records.iter().any(|record| !record.sound) || batch.touched(bytes).is_none() {
            return false;
        }
        if batch.flags & CHECKPOINT != 0 {
            return self.rebuild.checkpoint(bytes, &records);
        }
        for record in &records {
            self.rebuild.record(sequence, bytes, record);
        }
        true
    }

    /// Applies what is left of a damaged batch that had been durable, and charges the rest.
    fn charge(&mut self, bytes: &[u8], sequence: u64, batch: &BatchHeader) {
        self.damaged_places += 1;
        if batch.flags & CHECKPOINT != 0 {
            // What it repeats is known, if all before it could be read; else the next one must serve.
            return;
        }
        let (records, complete) = records(bytes, batch);
        for record in &records {
            self.rebuild.record(sequence, bytes, record);
        }
        if complete {
            return;
        }
        match batch.touched(bytes) {
            Some(touched) => self.rebuild.lost_of(sequence, &touched),
            None => self.rebuild.lost(sequence),
        }
    }
}

/// The records of a batch up to one whose head is damaged, and whether there was none such.
fn records(bytes: &[u8], batch: &BatchHeader) -> (Vec<Record>, bool) {
    let range = batch.records();
    debug_assert_eq!(range.start, batch.offset + BATCH_HEADER);
    let mut at = range.start;
    let mut records = Vec::new();
    while at < range.end {
        let Some(record) = format::record_at(bytes, at, range.end) else { return (records, false) };
        at = record.body.end;
        records.push(record);
    }
    (records, true)
}
