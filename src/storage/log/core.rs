//! The log thread's work, one synchronous step at a time: [`LogCore::commit`] writes a batch of
//! requests with one sync and tells everybody; [`LogCore::idle`] seals the tail and looks whether a
//! full disk has room again. Drivers call it; it never waits for anything but the disk.

use super::cache::Cache;
use super::compose::Verdict;
use super::config::LogConfig;
use super::format::{BatchWriter, CHECKPOINT, Kind, Position, SEAL, SEGMENT_HEADER, segment_header};
use super::image::Image;
use super::queue::{Op, Taken};
use super::segment::{Segments, WriteError, disk_error};
use super::shared::{Shared, to_io};
use super::{LogHealth, ReplicaKey};
use crate::error::{Code, Error};
use crate::failpoint;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Cuts that are still to be written because the disk was full.
#[derive(Default)]
pub(super) struct Owed {
    pub(super) truncate: Option<Option<u64>>,
    pub(super) purge: Option<(u64, Bytes)>,
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
    pub(super) before: BTreeMap<ReplicaKey, Option<Image>>,
    /// Ids given up by the batch in hand.
    pub(super) buried: Vec<ReplicaKey>,
    pub(super) owed: BTreeMap<ReplicaKey, Owed>,
    pub(super) owed_committed: BTreeMap<ReplicaKey, Bytes>,
    pub(super) cache: Cache,
    pub(super) sealed: bool,
    /// Length of the current segment's checkpoint, as far as known.
    start_bytes: u64,
    full: bool,
    failed: bool,
    /// It ended because it was to end.
    finished: bool,
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
            start_bytes: 0,
            finished: false,
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
        self.look_for_room();
    }

    /// Nothing was asked for a while: seals the tail; probes a full disk.
    pub(super) fn idle(&mut self) {
        if self.failed || self.moving && !self.full {
            return;
        }
        if self.full {
            return self.look_for_room();
        }
        self.seal();
    }

    /// A full disk counts as full until there is room for more than a small write: else every
    /// small one would call leaderships back that the next large one drives away.
    fn look_for_room(&mut self) {
        if self.full && self.segments.probe(self.config.probe_bytes as usize).is_ok() {
            self.set_full(false);
        }
    }

    /// The last step.
    pub(super) fn finish(&mut self) {
        self.seal();
        self.finished = true;
    }

    /// Says that all up to here is durable, so that damage to it will be told from a torn write.
    pub(super) fn seal(&mut self) {
        if self.sealed || self.failed {
            return;
        }
        self.before.clear();
        self.writer.begin();
        // Since a sync is made anyway, the marks that wait for one come along.
        let marks = self.shared.queue.take_committed();
        for (key, mark) in &marks {
            self.put_committed(*key, mark.clone());
        }
        failpoint::reach("seal-before-write");
        match self.write(SEAL) {
            Ok(()) => {
                failpoint::reach("seal-after-write");
                self.sealed = true;
            }
            Err(error) => {
                self.owed_committed.extend(marks);
                self.troubled(error);
            }
        }
    }

    /// Writes and syncs the batch in hand.
    pub(super) fn write(&mut self, flags: u32) -> Result<(), WriteError> {
        let end = self.segments.end();
        let batch = self.writer.finish(flags, end, end);
        self.segments.write(batch)?;
        self.sealed = false;
        let mut stats = self.shared.stats();
        stats.syncs += 1;
        stats.disk_bytes = self.segments.total_bytes();
        Ok(())
    }

    /// Begins a new segment if the current one is full.
    pub(super) fn begin_segment(&mut self) -> Result<(), WriteError> {
        // Many replicas make a large checkpoint: it must not become most of what is written.
        let enough = self.config.segment_bytes.max(self.start_bytes.saturating_mul(4));
        if self.segments.end().offset < enough { Ok(()) } else { self.roll() }
    }

    /// Begins a new segment.
    pub(super) fn roll(&mut self) -> Result<(), WriteError> {
        let next = self.segments.current() + 1;
        let start = segment_start(&mut self.writer, next, self.segments.end(), &self.images, &self.tombstones);
        self.segments.roll(&start)?;
        self.start_bytes = start.len() as u64;
        self.sealed = false;
        self.clean_up = true;
        self.shared.stats().syncs += 1;
        Ok(())
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
            if let Op::Append { done, .. }
            | Op::Vote { done, .. }
            | Op::Register { done, .. }
            | Op::Tombstone { done, .. } = op
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
        if !self.finished && !self.failed {
            self.fail(Error::internal("the log thread has ended"));
        }
        let error = self.shared.end_error();
        let left = self.shared.queue.take();
        self.refuse(left.ops, &error);
        self.shared.stopped.send_replace(true);
    }
}

/// Takes an append that was not written out of its group again.
pub(super) fn take_back(op: &Op) {
    if let Op::Append { cell, epoch, entries, .. } = op
        && let Some((first, _)) = entries.first()
    {
        cell.lock().take_back(*first, *epoch);
    }
}
