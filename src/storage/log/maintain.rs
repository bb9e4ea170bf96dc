//! Keeping the files small, between two batches: segments in which nothing lives are removed, and
//! when the files exceed their bound, the live entries of the oldest segment are written again at
//! the end, a step at a time.

use super::core::LogCore;
use super::format::{Kind, RECORD_HEAD};
use super::group::GroupCell;
use super::image::Run;
use super::read::{self, Wanted};
use super::rebuild::Place;
use super::segment::segment_name;
use super::{LogStats, ReplicaKey};
use crate::failpoint;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

impl LogCore {
    /// One step of cleaning up; `moving` says whether another is due at once.
    pub(super) fn maintain(&mut self) {
        if !self.clean_up && !self.moving {
            return;
        }
        self.remove_dead_segments();
        let live: u64 = self.images.values().map(|image| image.live_bytes()).sum();
        let total = self.segments.total_bytes();
        let garbage = total.saturating_sub(live.saturating_mul(2));
        // The owners are told at half the slack, so that they can purge before the log must move.
        let pinning = if garbage > self.config.slack_bytes / 2 { self.in_oldest() } else { Vec::new() };
        self.shared.roster().pinning = pinning;
        self.moving = garbage > self.config.slack_bytes && self.move_oldest();
        self.clean_up = false;
        self.note_sizes(live);
    }

    fn note_sizes(&self, live: u64) {
        let mut stats = self.shared.stats();
        let (segments, current) = (self.segments.current() - self.segments.oldest() + 1, self.segments.current());
        let disk_bytes = self.segments.total_bytes();
        *stats = LogStats { disk_bytes, live_bytes: live, segments, current_segment: current, ..stats.clone() };
    }

    /// The segments with live entries; the oldest one with any, and all behind it, are kept.
    fn remove_dead_segments(&mut self) {
        let runs = self.images.values().flat_map(|image| &image.runs);
        let live: BTreeSet<u64> = runs.map(|run| run.segment).collect();
        for sequence in self.segments.sequences() {
            if sequence == self.segments.current() || live.contains(&sequence) {
                return;
            }
            // If it stays, it is found dead again at the next turn or the next start.
            if let Err(error) = self.segments.remove(sequence) {
                tracing::warn!(%error, segment = segment_name(sequence), "a dead log segment could not be removed");
                return;
            }
        }
    }

    fn in_oldest(&self) -> Vec<ReplicaKey> {
        let oldest = self.segments.oldest();
        let pins = |key: &&ReplicaKey| self.images[*key].runs.iter().any(|run| run.segment == oldest);
        self.images.keys().filter(pins).copied().collect()
    }

    /// Moves some entries out of the oldest segment; `false` if none could be moved now.
    fn move_oldest(&mut self) -> bool {
        let oldest = self.segments.oldest();
        if oldest == self.segments.current() {
            return self.roll_away();
        }
        let pinned = self.in_oldest();
        for key in pinned {
            let run = self.images[&key].runs.iter().find(|run| run.segment == oldest).cloned();
            let cell = self.shared.roster().cells.get(&key).cloned();
            if let (Some(run), Some(cell)) = (run, cell)
                && let Some(entries) = self.entries_of(&cell, &run)
            {
                return self.move_entries(&cell, run.segment, entries);
            }
        }
        false
    }

    /// Even the segment that is written to is mostly dead: begin another, so that it can go.
    fn roll_away(&mut self) -> bool {
        match self.roll() {
            Ok(()) => true,
            Err(error) => {
                self.troubled(error);
                false
            }
        }
    }

    /// The first entries of a run, as many as one step moves. `None` while requests that cut them
    /// wait in the queue, or if they cannot be read.
    fn entries_of(&self, cell: &GroupCell, run: &Run) -> Option<Vec<(u64, Bytes)>> {
        let mut wanted = Vec::new();
        {
            let mut state = cell.lock();
            let mut bytes = 0;
            for index in run.first..=run.last {
                if bytes >= self.config.move_bytes {
                    break;
                }
                let slot = state.slot(index)?;
                let place = slot.place.filter(|place| place.segment == run.segment)?;
                bytes += u64::from(place.length) + RECORD_HEAD as u64;
                wanted.push(Wanted::of(index, slot, &self.shared.files));
            }
        }
        match read::fetch_now(cell.key, wanted) {
            Ok(entries) => Some(entries),
            Err(error) => {
                tracing::error!(%error, "a live log entry cannot be moved");
                None
            }
        }
    }

    fn move_entries(&mut self, cell: &Arc<GroupCell>, from: u64, entries: Vec<(u64, Bytes)>) -> bool {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return false };
        let (first, last) = (*first, *last);
        if let Err(error) = self.begin_segment() {
            self.troubled(error);
            return false;
        }
        self.writer.begin();
        let starts: Vec<usize> =
            entries.iter().map(|(index, bytes)| self.writer.record(Kind::Moved, cell.key, *index, bytes)).collect();
        let end = self.segments.end();
        failpoint::reach("move-before-write");
        if let Err(error) = self.write(0) {
            self.troubled(error);
            return false;
        }
        failpoint::reach("move-after-write");
        let bytes: usize = entries.iter().map(|(_, bytes)| bytes.len() + RECORD_HEAD).sum();
        if let Some(image) = self.images.get_mut(&cell.key) {
            image.moved(first, last, end.segment, bytes as u64);
        }
        let mut state = cell.lock();
        for ((index, bytes), start) in entries.iter().zip(starts) {
            let moved =
                Place { segment: end.segment, offset: (end.offset + start as u64) as u32, length: bytes.len() as u32 };
            // Another entry may stand there by now; it lies, or will lie, somewhere else.
            if let Some(slot) = state.slot(*index)
                && slot.place.is_some_and(|place| place.segment == from)
            {
                slot.place = Some(moved);
            }
        }
        self.shared.stats().moved_bytes += bytes as u64;
        true
    }
}
