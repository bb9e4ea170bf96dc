//! The log thread's work, one synchronous step at a time: [`LogCore::commit`] writes a batch of
//! requests with one sync and tells everybody; [`LogCore::idle`] seals the tail and looks whether a
//! full disk has room again. Drivers call it; it never waits for anything but the disk.

use super::cache::Cache;
use super::config::LogConfig;
use super::format::{BatchWriter, CHECKPOINT, Kind, Position, RECORD_HEAD, SEAL, SEGMENT_HEADER, segment_header};
use super::group::{GroupCell, GroupState, place};
use super::image::Image;
use super::queue::{Op, Taken};
use super::rebuild::Place;
use super::segment::{Segments, WriteError, disk_error};
use super::shared::{Shared, to_io};
use super::{LogHealth, ReplicaKey};
use crate::error::{Code, Error};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What became of a request while its batch was put together.
enum Verdict {
    /// Its first record begins here in the batch.
    Put(usize),
    Refused(Error),
}

/// Cuts that are still to be written because the disk was full.
#[derive(Default)]
struct Owed {
    truncate: Option<Option<u64>>,
    purge: Option<(u64, Bytes)>,
}

/// The log thread's state.
pub(super) struct LogCore {
    pub(super) config: LogConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) segments: Segments,
    /// Each registered replica as the files have it.
    pub(super) images: BTreeMap<ReplicaKey, Image>,
    pub(super) tombstones: BTreeSet<ReplicaKey>,
    pub(super) writer: BatchWriter,
    /// Images as they were before the batch in hand, should it not be written.
    before: BTreeMap<ReplicaKey, Option<Image>>,
    /// Ids given up by the batch in hand.
    buried: Vec<ReplicaKey>,
    owed: BTreeMap<ReplicaKey, Owed>,
    owed_committed: BTreeMap<ReplicaKey, Bytes>,
    cache: Cache,
    pub(super) sealed: bool,
    full: bool,
    failed: bool,
    /// Something died or a segment began: see whether a segment can go.
    pub(super) clean_up: bool,
    /// There are more entries to be moved.
    pub(super) moving: bool,
}

/// The first bytes of a segment: its header, and all small state.
pub(super) fn segment_start(
    writer: &mut BatchWriter,
    sequence: u64,
    durable: Position,
    images: &BTreeMap<ReplicaKey, Image>,
    tombstones: &BTreeSet<ReplicaKey>,
) -> Vec<u8> {
    writer.begin();
    for key in tombstones {
        writer.record(Kind::Tombstone, *key, 0, &[]);
    }
    for (key, image) in images {
        writer.record(Kind::Replica, *key, 0, &image.encode());
    }
    let mut start = segment_header(sequence).to_vec();
    let at = Position { segment: sequence, offset: SEGMENT_HEADER as u64 };
    start.extend_from_slice(writer.finish(CHECKPOINT, at, durable));
    start
}

impl LogCore {
    pub(super) fn new(
        config: LogConfig,
        shared: Arc<Shared>,
        segments: Segments,
        images: BTreeMap<ReplicaKey, Image>,
        tombstones: BTreeSet<ReplicaKey>,
    ) -> LogCore {
        LogCore {
            cache: Cache::new(config.cache_bytes),
            config,
            shared,
            segments,
            images,
            tombstones,
            writer: BatchWriter::default(),
            before: BTreeMap::new(),
            buried: Vec::new(),
            owed: BTreeMap::new(),
            owed_committed: BTreeMap::new(),
            sealed: false,
            full: false,
            failed: false,
            clean_up: true,
            moving: false,
        }
    }

    /// How long the driver may wait for requests before it calls [`LogCore::idle`].
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            _ if self.failed => None,
            _ if self.moving && !self.full => Some(Duration::ZERO),
            _ if self.full => Some(self.config.probe_every),
            _ if self.sealed => None,
            _ => Some(self.config.seal_after),
        }
    }

    /// Writes all that was taken with one sync, and runs the callbacks.
    pub(super) fn commit(&mut self, taken: Taken) {
        if self.failed {
            return self.refuse(taken.ops, &self.shared.end_error());
        }
        self.before.clear();
        self.buried.clear();
        if let Err(error) = self.begin_segment() {
            return self.unwritten(taken, error);
        }
        self.writer.begin();
        self.put_owed();
        let verdicts: Vec<Verdict> = taken.ops.iter().map(|op| self.put(op)).collect();
        for (key, mark) in &taken.committed {
            self.put_committed(*key, mark.clone());
        }
        if !self.writer.is_empty() {
            if let Err(error) = self.write(0) {
                return self.unwritten(taken, error);
            }
            self.shared.stats().batches += 1;
        }
        self.owed.clear();
        self.owed_committed.clear();
        self.settle(taken.ops, verdicts);
        self.cache.evict();
    }

    /// Nothing was asked for a while: seals the tail; probes a full disk.
    pub(super) fn idle(&mut self) {
        if self.failed || self.moving && !self.full {
            return;
        }
        if self.full {
            if self.segments.probe(self.config.probe_bytes as usize).is_ok() {
                self.set_full(false);
            }
            return;
        }
        self.seal();
    }

    /// Says that all up to here is durable, so that damage to it will be told from a torn write.
    pub(super) fn seal(&mut self) {
        if self.sealed || self.failed {
            return;
        }
        self.writer.begin();
        match self.write(SEAL) {
            Ok(()) => self.sealed = true,
            Err(error) => drop(self.troubled(error)),
        }
    }

    /// Writes and syncs the batch in hand.
    pub(super) fn write(&mut self, flags: u32) -> Result<(), WriteError> {
        let end = self.segments.end();
        let batch = self.writer.finish(flags, end, end);
        self.segments.write(batch)?;
        self.sealed = false;
        self.set_full(false);
        let mut stats = self.shared.stats();
        stats.syncs += 1;
        stats.disk_bytes = self.segments.total_bytes();
        Ok(())
    }

    /// Begins a new segment if the current one is full.
    pub(super) fn begin_segment(&mut self) -> Result<(), WriteError> {
        if self.segments.end().offset < self.config.segment_bytes {
            return Ok(());
        }
        self.roll()
    }

    /// Begins a new segment.
    pub(super) fn roll(&mut self) -> Result<(), WriteError> {
        let next = self.segments.current() + 1;
        let start = segment_start(&mut self.writer, next, self.segments.end(), &self.images, &self.tombstones);
        self.segments.roll(&start)?;
        self.sealed = false;
        self.clean_up = true;
        self.shared.stats().syncs += 1;
        Ok(())
    }

    /// The replica's image, which may now be changed; kept as it was for the case of a full disk.
    fn image(&mut self, key: ReplicaKey) -> Option<&mut Image> {
        if !self.before.contains_key(&key) {
            self.before.insert(key, self.images.get(&key).cloned());
        }
        self.images.get_mut(&key)
    }

    /// Puts a request into the batch and into the images.
    fn put(&mut self, op: &Op) -> Verdict {
        match op {
            Op::Append { cell, entries, .. } => self.put_entries(cell.key, entries),
            Op::Vote { cell, vote, .. } => match self.image(cell.key) {
                None => gone(cell.key),
                Some(image) => {
                    image.vote = Some(vote.clone());
                    Verdict::Put(self.writer.record(Kind::Vote, cell.key, 0, vote))
                }
            },
            Op::Truncate { key, after } => self.put_truncate(*key, *after),
            Op::Purge { key, index, id } => self.put_purge(*key, *index, id.clone()),
            Op::Register { key, .. } => self.put_register(*key),
            Op::Tombstone { key, .. } => {
                self.image(*key);
                self.images.remove(key);
                self.clean_up = true;
                if !self.tombstones.insert(*key) {
                    return Verdict::Put(0);
                }
                self.buried.push(*key);
                Verdict::Put(self.writer.record(Kind::Tombstone, *key, 0, &[]))
            }
        }
    }

    fn put_entries(&mut self, key: ReplicaKey, entries: &[(u64, Bytes)]) -> Verdict {
        let segment = self.segments.current();
        let start = self.writer.len();
        let Some(image) = self.image(key) else { return gone(key) };
        // The handle saw no hole; if there is one now, the entries in between met a full disk.
        let first = entries.first().map(|(index, _)| *index);
        if image.last().is_some_and(|last| first != Some(last + 1)) {
            return Verdict::Refused(Error::new(Code::DiskFull, "an earlier entry met a full disk").at(place(key)));
        }
        for (index, bytes) in entries {
            image.append(segment, *index, (bytes.len() + RECORD_HEAD) as u64);
        }
        for (index, bytes) in entries {
            self.writer.record(Kind::Entry, key, *index, bytes);
        }
        Verdict::Put(start)
    }

    fn put_truncate(&mut self, key: ReplicaKey, after: Option<u64>) -> Verdict {
        let Some(image) = self.image(key) else { return gone(key) };
        image.truncate_after(after);
        self.clean_up = true;
        Verdict::Put(match after {
            Some(after) => self.writer.record(Kind::TruncateAfter, key, after, &[]),
            None => self.writer.record(Kind::TruncateAll, key, 0, &[]),
        })
    }

    fn put_purge(&mut self, key: ReplicaKey, index: u64, id: Bytes) -> Verdict {
        let Some(image) = self.image(key) else { return gone(key) };
        image.purge(index, id.clone());
        self.clean_up = true;
        Verdict::Put(self.writer.record(Kind::Purge, key, index, &id))
    }

    fn put_register(&mut self, key: ReplicaKey) -> Verdict {
        if self.tombstones.contains(&key) {
            let error = Error::new(Code::InvalidRequest, "the replica's id was given up").at(place(key));
            return Verdict::Refused(error.remedy("register the replica under a new id"));
        }
        if self.image(key).is_some() {
            return Verdict::Put(0);
        }
        self.images.insert(key, Image::default());
        Verdict::Put(self.writer.record(Kind::Register, key, 0, &[]))
    }

    fn put_committed(&mut self, key: ReplicaKey, mark: Bytes) {
        if let Some(image) = self.image(key) {
            image.committed = Some(mark.clone());
            self.writer.record(Kind::Committed, key, 0, &mark);
        }
    }

    fn put_owed(&mut self) {
        for (key, owed) in std::mem::take(&mut self.owed) {
            if let Some(after) = owed.truncate {
                self.put_truncate(key, after);
            }
            if let Some((index, id)) = owed.purge.clone() {
                self.put_purge(key, index, id);
            }
            self.owed.insert(key, owed);
        }
        for (key, mark) in self.owed_committed.clone() {
            self.put_committed(key, mark);
        }
    }

    /// Tells everybody about a batch that is durable.
    fn settle(&mut self, ops: Vec<Op>, verdicts: Vec<Verdict>) {
        let base = self.segments.end().offset - self.last_batch_bytes();
        let mut callbacks = Vec::with_capacity(ops.len());
        for (op, verdict) in ops.into_iter().zip(verdicts) {
            let result = match verdict {
                Verdict::Refused(error) => {
                    take_back(&op);
                    Err(to_io(&error))
                }
                Verdict::Put(at) => {
                    self.publish(&op, base + at as u64);
                    Ok(())
                }
            };
            if let Op::Append { done, .. } | Op::Vote { done, .. } | Op::Register { done, .. } | Op::Tombstone { done, .. } =
                op
            {
                callbacks.push((done, result));
            }
        }
        for (done, result) in callbacks {
            done(result);
        }
    }

    fn last_batch_bytes(&self) -> u64 {
        if self.writer.is_empty() { 0 } else { self.writer.len() as u64 }
    }

    /// Shows a durable request to the handles.
    fn publish(&mut self, op: &Op, at: u64) {
        match op {
            Op::Append { cell, epoch, entries, .. } => self.publish_entries(cell, *epoch, entries, at),
            Op::Vote { cell, vote, .. } => cell.lock().vote = Some(vote.clone()),
            Op::Truncate { .. } | Op::Purge { .. } => {}
            Op::Register { key, .. } => {
                let new = || Arc::new(GroupCell::new(*key, GroupState::default()));
                let mut roster = self.shared.roster();
                if !roster.damaged.contains(key) {
                    roster.cells.entry(*key).or_insert_with(new);
                }
            }
            Op::Tombstone { key, .. } => {
                let mut roster = self.shared.roster();
                roster.damaged.remove(key);
                roster.tombstones.insert(*key);
                if let Some(cell) = roster.cells.remove(key) {
                    *cell.lock() = GroupState { gone: true, ..GroupState::default() };
                }
            }
        }
    }

    fn publish_entries(&mut self, cell: &Arc<GroupCell>, epoch: u32, entries: &[(u64, Bytes)], at: u64) {
        let segment = self.segments.current();
        let (mut offset, mut total) = (at as u32, 0);
        let mut state = cell.lock();
        for (index, bytes) in entries {
            let length = bytes.len() as u32;
            if let Some(slot) = state.slot(*index).filter(|slot| slot.epoch == epoch) {
                slot.place = Some(Place { segment, offset, length });
            }
            offset += RECORD_HEAD as u32 + length;
            total += u64::from(length);
        }
        drop(state);
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return };
        self.cache.written(cell.clone(), *first..*last + 1, total);
        let mut stats = self.shared.stats();
        stats.entries += entries.len() as u64;
        stats.entry_bytes += total;
    }

    /// A batch could not be written: nothing of it has happened, and its owners are told.
    fn unwritten(&mut self, taken: Taken, error: WriteError) {
        for key in self.buried.drain(..) {
            self.tombstones.remove(&key);
        }
        for (key, image) in std::mem::take(&mut self.before) {
            match image {
                Some(image) => drop(self.images.insert(key, image)),
                None => drop(self.images.remove(&key)),
            }
        }
        let error = self.troubled(error);
        for op in &taken.ops {
            self.owe(op);
        }
        self.owed_committed.extend(taken.committed);
        self.refuse(taken.ops, &error);
    }

    /// Keeps a cut for the next batch: it has already happened in RAM.
    fn owe(&mut self, op: &Op) {
        match op {
            Op::Truncate { key, after } => {
                let owed = self.owed.entry(*key).or_default();
                owed.truncate = Some(owed.truncate.map_or(*after, |before| before.min(*after)));
            }
            Op::Purge { key, index, id } => {
                self.owed.entry(*key).or_default().purge = Some((*index, id.clone()));
            }
            _ => {}
        }
    }

    /// Tells the owners of requests that nothing came of them.
    fn refuse(&self, ops: Vec<Op>, error: &Error) {
        ops.iter().for_each(take_back);
        for op in ops {
            if let Op::Append { done, .. } | Op::Vote { done, .. } | Op::Register { done, .. } | Op::Tombstone { done, .. } =
                op
            {
                done(Err(to_io(error)));
            }
        }
    }

    /// Notes trouble with the disk; answers what to tell.
    pub(super) fn troubled(&mut self, error: WriteError) -> Error {
        match error {
            WriteError::Full(error) => {
                self.set_full(true);
                disk_error("the log was not written", self.segments.dir(), &error)
            }
            WriteError::Failed(error) => {
                let mut error = disk_error("the log could not be written", self.segments.dir(), &error);
                // Whatever the disk said: a write or sync that half happened is never repeated.
                error.code = Code::DiskFailed;
                self.fail(error.clone());
                error
            }
        }
    }

    fn fail(&mut self, error: Error) {
        tracing::error!(%error, "the log has failed for good");
        self.failed = true;
        self.shared.health.send_replace(LogHealth::Failed(error));
        self.shared.queue.close();
    }

    fn set_full(&mut self, full: bool) {
        if self.full != full {
            tracing::warn!(full, "the log's disk");
            self.full = full;
            self.shared.health.send_replace(if full { LogHealth::DiskFull } else { LogHealth::Ok });
        }
    }
}

impl Drop for LogCore {
    fn drop(&mut self) {
        // However the log thread ends, nobody may wait for it.
        self.shared.queue.close();
        let error = self.shared.end_error();
        let left = self.shared.queue.take();
        self.refuse(left.ops, &error);
        self.shared.stopped.send_replace(true);
    }
}

fn gone(key: ReplicaKey) -> Verdict {
    Verdict::Refused(Error::new(Code::InvalidRequest, "the replica was given up").at(place(key)))
}

/// Takes an append that was not written out of its group again.
fn take_back(op: &Op) {
    if let Op::Append { cell, epoch, entries, .. } = op
        && let Some((first, _)) = entries.first()
    {
        cell.lock().take_back(*first, *epoch);
    }
}
