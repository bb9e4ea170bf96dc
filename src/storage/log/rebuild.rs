//! The replicas as the records tell them, one after another, at start. Records go in, in the order
//! of the log, with news of damage between them; what comes out says of each replica what it holds
//! and whether anything of it may be missing. Pure: no I/O.

use super::ReplicaKey;
use super::format::{Kind, RECORD_HEAD, Record};
use super::image::{Image, Run};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Where an entry's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
    /// Length of the body.
    pub(super) length: u32,
}

/// What the log has said of one replica so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Rebuilt {
    image: Image,
    /// `None` where an entry is known to have been, but is damaged or gone.
    pub(super) entries: BTreeMap<u64, Option<Place>>,
    vote_lost: bool,
    committed_lost: bool,
    purge_lost: bool,
    /// Segments in which records were lost that may have been this replica's.
    suspect: BTreeSet<u64>,
}

impl Rebuilt {
    /// Whether anything may be missing.
    pub(super) fn damaged(&self) -> bool {
        let lost = self.vote_lost || self.committed_lost || self.purge_lost || !self.suspect.is_empty();
        self.image.damaged || lost || self.entries.values().any(Option::is_none) || !self.contiguous()
    }

    fn contiguous(&self) -> bool {
        let (Some((first, _)), Some((last, _))) = (self.entries.first_key_value(), self.entries.last_key_value())
        else {
            return true;
        };
        let follows = self.image.purged.as_ref().is_none_or(|(purged, _)| purged.checked_add(1) == Some(*first));
        follows && last - first == self.entries.len() as u64 - 1
    }

    /// The replica's image, with runs as the entries were found.
    pub(super) fn image(&self) -> Image {
        let mut image = Image { runs: Vec::new(), damaged: self.damaged(), ..self.image.clone() };
        for (index, place) in &self.entries {
            if let Some(place) = place {
                image.append(place.segment, *index, u64::from(place.length) + RECORD_HEAD as u64);
            }
        }
        image
    }

    fn truncate_after(&mut self, after: Option<u64>) {
        match after {
            None => self.entries.clear(),
            Some(after) => drop(self.entries.split_off(&after.saturating_add(1))),
        }
    }

    /// The entries of a checkpoint: those that were found where it says, and gaps for the others.
    fn found(&self, runs: &[Run], bad_segments: &BTreeSet<u64>) -> BTreeMap<u64, Option<Place>> {
        let mut entries = BTreeMap::new();
        for run in runs {
            let doubtful = bad_segments.contains(&run.segment) || self.suspect.contains(&run.segment);
            for index in run.first..=run.last {
                let place = self.entries.get(&index).copied().flatten();
                entries.insert(index, place.filter(|place| place.segment == run.segment && !doubtful));
            }
        }
        entries
    }
}

/// All replicas.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    pub(super) replicas: BTreeMap<ReplicaKey, Rebuilt>,
    pub(super) tombstones: BTreeSet<ReplicaKey>,
    /// A checkpoint was read, so that nothing from before it is missing.
    anchored: bool,
    /// Records were lost since the last checkpoint, and nobody knows whose.
    unattributed: bool,
    bad_segments: BTreeSet<u64>,
}

impl Rebuild {
    /// Whether some replica may have voted, or may exist, without a trace.
    pub(super) fn votes_lost(&self) -> bool {
        !self.anchored || self.unattributed
    }

    /// Records of this segment are lost, and nobody knows whose.
    pub(super) fn lost(&mut self, segment: u64) {
        self.unattributed = true;
        self.bad_segments.insert(segment);
    }

    /// Records of these replicas are lost.
    pub(super) fn lost_of(&mut self, segment: u64, keys: &[ReplicaKey]) {
        for key in keys.iter().filter(|key| !self.tombstones.contains(*key)) {
            self.replicas.entry(*key).or_default().suspect.insert(segment);
        }
    }

    /// Begins anew from a checkpoint, all of whose records are sound. `false` if one makes no sense.
    pub(super) fn checkpoint(&mut self, bytes: &[u8], records: &[Record]) -> bool {
        let mut images = Vec::new();
        let mut tombstones = BTreeSet::new();
        for record in records {
            match record.kind {
                Kind::Tombstone => drop(tombstones.insert(record.key)),
                Kind::Replica => match Image::decode(&bytes[record.body.clone()]) {
                    Some(image) => images.push((record.key, image)),
                    None => return false,
                },
                _ => return false,
            }
        }
        let mut replicas = BTreeMap::new();
        for (key, image) in images {
            let before = self.replicas.remove(&key).unwrap_or_default();
            let entries = before.found(&image.runs, &self.bad_segments);
            replicas.insert(key, Rebuilt { image, entries, ..Rebuilt::default() });
        }
        *self = Rebuild { replicas, tombstones, anchored: true, unattributed: false, ..Rebuild::default() };
        true
    }

    /// Takes in a record of an ordinary batch. One with a damaged body leaves a gap that later
    /// records may close.
    pub(super) fn record(&mut self, segment: u64, bytes: &[u8], record: &Record) {
        match record.kind {
            Kind::Tombstone => {
                self.replicas.remove(&record.key);
                self.tombstones.insert(record.key);
            }
            _ if self.tombstones.contains(&record.key) => {}
            _ => {
                let body = || record.sound.then(|| Bytes::copy_from_slice(&bytes[record.body.clone()]));
                self.replicas.entry(record.key).or_default().take(segment, record, body);
            }
        }
    }
}

impl Rebuilt {
    fn take(&mut self, segment: u64, record: &Record, body: impl Fn() -> Option<Bytes>) {
        let place = || Place { segment, offset: record.offset as u32, length: record.body.len() as u32 };
        match record.kind {
            Kind::Entry => {
                if self.entries.last_key_value().is_some_and(|(last, _)| *last >= record.index) {
                    drop(self.entries.split_off(&record.index));
                }
                self.entries.insert(record.index, record.sound.then(place));
            }
            Kind::Moved => drop(self.entries.insert(record.index, record.sound.then(place))),
            Kind::Vote => {
                self.image.vote = body();
                self.vote_lost = !record.sound;
            }
            Kind::Committed => {
                self.image.committed = body();
                self.committed_lost = !record.sound;
            }
            Kind::TruncateAfter => self.truncate_after(Some(record.index)),
            Kind::TruncateAll => self.truncate_after(None),
            Kind::Purge => {
                self.image.purged = Some((record.index, body().unwrap_or_default()));
                self.purge_lost = !record.sound;
                self.entries = self.entries.split_off(&record.index.saturating_add(1));
            }
            Kind::Register | Kind::Tombstone | Kind::Replica => {}
        }
    }
}
