//! Reading entries: from RAM, or from segments, checked. A read is planned under the group's lock
//! and done outside it.

use super::ReplicaKey;
use super::format::{self, Kind, RECORD_HEAD};
use super::group::{Slot, place};
use super::rebuild::Place;
use super::segment::{Files, segment_name};
use crate::clock::{ThreadKind, Threads, run_on};
use crate::error::{Code, Error, Result};
use crate::storage::disk::DiskFile;
use bytes::Bytes;
use std::sync::Arc;

/// Neighbours in a segment are read together up to this many bytes.
const WINDOW: u64 = 64 << 10;
/// Reads of more entries from disk than this leave the asynchronous threads.
const MANY: usize = 64;

/// An entry to be read.
pub(super) struct Wanted {
    index: u64,
    source: Source,
}

enum Source {
    Ram(Bytes),
    Disk(Place, Option<Arc<dyn DiskFile>>),
    /// Neither in RAM nor on disk.
    Nowhere,
}

impl Wanted {
    /// Plans the read of a slot.
    pub(super) fn of(index: u64, slot: &Slot, files: &Files) -> Wanted {
        let source = match (&slot.bytes, slot.place) {
            (Some(bytes), _) => Source::Ram(bytes.clone()),
            (None, Some(place)) => Source::Disk(place, files.get(place.segment)),
            (None, None) => Source::Nowhere,
        };
        Wanted { index, source }
    }
}

/// Does the reads.
pub(super) async fn fetch(
    key: ReplicaKey,
    wanted: Vec<Wanted>,
    threads: &Arc<dyn Threads>,
) -> Result<Vec<(u64, Bytes)>> {
    let cold = wanted.iter().filter(|wanted| matches!(wanted.source, Source::Disk(..))).count();
    if cold <= MANY {
        return fetch_now(key, wanted);
    }
    run_on(threads, ThreadKind::Backend, move || fetch_now(key, wanted)).await?
}

/// Does the reads on this thread.
pub(super) fn fetch_now(key: ReplicaKey, wanted: Vec<Wanted>) -> Result<Vec<(u64, Bytes)>> {
    let mut window = Window::default();
    let mut entries = Vec::with_capacity(wanted.len());
    for nth in 0..wanted.len() {
        let Wanted { index, source } = &wanted[nth];
        let bytes = match source {
            Source::Ram(bytes) => bytes.clone(),
            Source::Nowhere => return Err(Error::internal(format!("entry {index} is nowhere")).at(place(key))),
            Source::Disk(at, None) => return Err(damaged(key, *index, *at, "its segment is gone")),
            Source::Disk(at, Some(file)) => {
                let end = run_end(&wanted[nth..]);
                window.load(&**file, *at, end).map_err(|error| damaged(key, *index, *at, &error.to_string()))?;
                window.entry(key, *index, *at).ok_or_else(|| damaged(key, *index, *at, "its checksum is wrong"))?
            }
        };
        entries.push((*index, bytes));
    }
    Ok(entries)
}

fn record_end(place: Place) -> u64 {
    u64::from(place.offset) + RECORD_HEAD as u64 + u64::from(place.length)
}

/// How far the first of these and its neighbours can be read in one go.
fn run_end(wanted: &[Wanted]) -> u64 {
    let mut places = wanted.iter().map_while(|wanted| match wanted.source {
        Source::Disk(place, _) => Some(place),
        _ => None,
    });
    let Some(first) = places.next() else { return 0 };
    let limit = u64::from(first.offset) + WINDOW;
    let near = places.take_while(|place| {
        place.segment == first.segment && place.offset > first.offset && record_end(*place) <= limit
    });
    near.last().map_or(record_end(first), record_end)
}

/// Bytes of a segment, read ahead.
#[derive(Default)]
struct Window {
    segment: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn load(&mut self, file: &dyn DiskFile, at: Place, end: u64) -> std::io::Result<()> {
        let start = u64::from(at.offset);
        let held = self.start..self.start + self.bytes.len() as u64;
        if self.segment == at.segment && held.contains(&start) && record_end(at) <= held.end {
            return Ok(());
        }
        (self.segment, self.start) = (at.segment, start);
        self.bytes.clear();
        self.bytes.resize((end - start) as usize, 0);
        file.read_exact_at(&mut self.bytes, start)
    }

    /// The entry there, if it is the one that is looked for and sound.
    fn entry(&self, key: ReplicaKey, index: u64, at: Place) -> Option<Bytes> {
        let record = format::record_at(&self.bytes, (u64::from(at.offset) - self.start) as usize, self.bytes.len())?;
        let right = matches!(record.kind, Kind::Entry | Kind::Moved) && record.key == key && record.index == index;
        (right && record.sound).then(|| Bytes::copy_from_slice(&self.bytes[record.body]))
    }
}

fn damaged(key: ReplicaKey, index: u64, at: Place, why: &str) -> Error {
    let what = format!("entry {index} of {} is damaged: {why}", place(key));
    Error::new(Code::CorruptLog, what).at(format!("segment {}, offset {}", segment_name(at.segment), at.offset))
}
