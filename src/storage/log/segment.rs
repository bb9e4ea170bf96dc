//! The log's files: names, open handles, lengths. Writes, syncs, creates and removes segments when
//! the log thread says so; decides nothing and knows no records.

use super::format::{Position, SEGMENT_HEADER};
use crate::error::{Code, Error};
use crate::failpoint;
use crate::planted::{Bug, planted};
use crate::storage::disk::{Disk, DiskFile, OpenMode};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SUFFIX: &str = ".log";

/// The file name of a segment; names sort as the segments do.
pub(super) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}{SUFFIX}")
}

/// The sequence in a segment's file name.
pub(super) fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// An error of the disk, in the project's terms.
pub(super) fn disk_error(what: &str, path: &Path, error: &io::Error) -> Error {
    let code = if is_full(error) { Code::DiskFull } else { Code::DiskFailed };
    Error::new(code, format!("{what}: {error}")).at(path.display().to_string())
}

/// Whether the disk, or the owner's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    crate::storage::disk::is_full(error)
}

/// Why a write did not happen.
#[derive(Debug)]
pub(super) enum WriteError {
    /// No room; the files are as before.
    Full(io::Error),
    /// Nothing may be assumed of the disk any more.
    Failed(io::Error),
}

/// Open segments, for whoever reads.
#[derive(Default)]
pub(super) struct Files(Mutex<BTreeMap<u64, Arc<dyn DiskFile>>>);

impl Files {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<dyn DiskFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a segment.
    pub(super) fn get(&self, sequence: u64) -> Option<Arc<dyn DiskFile>> {
        self.lock().get(&sequence).cloned()
    }
}

/// The segments, of which the last is written to.
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    files: Arc<Files>,
    /// Length of each segment.
    lengths: BTreeMap<u64, u64>,
    current: u64,
    file: Arc<dyn DiskFile>,
    /// So many zeros are written ahead of the batches...
    prepare: u64,
    /// ... and the current file has bytes up to here.
    prepared: u64,
    /// The disk had no room for zeros; asked again with the next segment.
    no_room: bool,
}

impl Segments {
    /// How long a simulated disk wants the next write to be put off.
    pub(super) fn lag(&self) -> Duration {
        self.disk.lag()
    }

    /// Opens segments that exist, the last one for writing, and cuts that one to its length; up to
    /// `known` it is known to be durable.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        lengths: BTreeMap<u64, u64>,
        known: u64,
        prepare: u64,
    ) -> io::Result<Segments> {
        let files = Arc::new(Files::default());
        let mut last = None;
        for (&sequence, &length) in &lengths {
            let mode =
                if lengths.range(sequence + 1..).next().is_none() { OpenMode::ReadWrite } else { OpenMode::Read };
            let file: Arc<dyn DiskFile> = Arc::from(disk.open(&dir.join(segment_name(sequence)), mode)?);
            files.lock().insert(sequence, file.clone());
            last = Some((sequence, file, length));
        }
        let Some((current, file, length)) = last else { return Err(io::ErrorKind::NotFound.into()) };
        if file.len()? > length {
            file.set_len(length)?;
        }
        // What was read may never have been synced: a process can die without the machine. After a
        // sync that failed the system even takes such bytes for written, so they are written again.
        if known < length {
            let mut tail = vec![0; (length - known) as usize];
            file.read_exact_at(&mut tail, known)?;
            file.write_all_at(&tail, known)?;
        }
        file.sync_data()?;
        disk.sync_dir(dir)?;
        Ok(Segments {
            disk,
            dir: dir.to_owned(),
            files,
            lengths,
            current,
            file,
            prepare,
            prepared: length,
            no_room: false,
        })
    }

    /// Begins the very first segment, with its first batch.
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        sequence: u64,
        start: &[u8],
        prepare: u64,
    ) -> Result<Segments, WriteError> {
        let file = new_segment(&*disk, dir, sequence, start)?;
        let files = Arc::new(Files::default());
        files.lock().insert(sequence, file.clone());
        let prepared = start.len() as u64;
        let lengths = BTreeMap::from([(sequence, prepared)]);
        Ok(Segments {
            disk,
            dir: dir.to_owned(),
            files,
            lengths,
            current: sequence,
            file,
            prepare,
            prepared,
            no_room: false,
        })
    }

    /// Handles for readers.
    pub(super) fn files(&self) -> Arc<Files> {
        self.files.clone()
    }

    /// The segment that is written to.
    pub(super) fn current(&self) -> u64 {
        self.current
    }

    /// The oldest segment.
    pub(super) fn oldest(&self) -> u64 {
        self.lengths.keys().next().copied().unwrap_or(self.current)
    }

    /// Where the next batch goes.
    pub(super) fn end(&self) -> Position {
        Position { segment: self.current, offset: self.lengths.get(&self.current).copied().unwrap_or(0) }
    }

    /// All segments, oldest first.
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.lengths.keys().copied().collect()
    }

    /// All bytes of all segments.
    pub(super) fn total_bytes(&self) -> u64 {
        self.lengths.values().sum()
    }

    /// Writes a batch at the end and makes it durable.
    pub(super) fn write(&mut self, batch: &[u8]) -> Result<(), WriteError> {
        let end = self.end().offset;
        if let Err(error) = self.put(batch, end) {
            if !is_full(&error) {
                return Err(WriteError::Failed(error));
            }
            self.cut().map_err(WriteError::Failed)?;
            return Err(WriteError::Full(error));
        }
        self.prepare(end + batch.len() as u64)?;
        failpoint::reach("log-before-sync");
        // After a failed sync the kernel may have dropped the pages: no second try can help.
        if !planted(Bug::SkipFsync) {
            self.file.sync_data().map_err(WriteError::Failed)?;
        }
        failpoint::reach("log-after-sync");
        self.lengths.insert(self.current, end + batch.len() as u64);
        Ok(())
    }

    fn put(&self, batch: &[u8], at: u64) -> io::Result<()> {
        failpoint::reach("log-before-write");
        for step in ["log-half-written", "log-room"] {
            if failpoint::is_armed(step) {
                self.file.write_all_at(&batch[..batch.len() / 2], at)?;
            }
        }
        failpoint::reach("log-half-written");
        failpoint::disk("log-room")?;
        self.file.write_all_at(batch, at)
    }

    /// Sees to it that there are zeros behind a batch that is written and not yet synced. A sync of
    /// bytes that take the place of others need not commit a new length to the file system's journal:
    /// that halves its cost (`docs/PERFORMANCE.md`). The zeros become durable with the batch. Where
    /// there is no room for them the batch goes without.
    fn prepare(&mut self, upto: u64) -> Result<(), WriteError> {
        if upto <= self.prepared || self.prepare == 0 || self.no_room {
            self.prepared = self.prepared.max(upto);
            return Ok(());
        }
        self.prepared = upto;
        match self.file.write_all_at(&vec![0; self.prepare as usize], upto) {
            Ok(()) => self.prepared += self.prepare,
            Err(error) if is_full(&error) => {
                self.no_room = true;
                self.file.set_len(upto).map_err(WriteError::Failed)?;
            }
            Err(error) => return Err(WriteError::Failed(error)),
        }
        Ok(())
    }

    /// Takes away what is behind the last batch of the current segment.
    fn cut(&mut self) -> io::Result<()> {
        let end = self.end().offset;
        self.file.set_len(end)?;
        self.prepared = end;
        Ok(())
    }

    /// Begins the next segment, with its first batch.
    pub(super) fn roll(&mut self, start: &[u8]) -> Result<(), WriteError> {
        if self.prepared > self.end().offset {
            // The room is given back; and of a segment with a successor, bytes behind the last batch may
            // be taken for damage.
            self.cut().and_then(|()| self.file.sync_data()).map_err(WriteError::Failed)?;
        }
        let next = self.current + 1;
        failpoint::reach("roll-before-create");
        let file = new_segment(&*self.disk, &self.dir, next, start)?;
        self.files.lock().insert(next, file.clone());
        self.lengths.insert(next, start.len() as u64);
        self.current = next;
        self.file = file;
        self.prepared = start.len() as u64;
        self.no_room = false;
        Ok(())
    }

    /// Removes a segment; who is reading it keeps it.
    pub(super) fn remove(&mut self, sequence: u64) -> io::Result<()> {
        failpoint::reach("segment-before-remove");
        self.disk.remove(&self.dir.join(segment_name(sequence)))?;
        failpoint::reach("segment-after-remove");
        self.files.lock().remove(&sequence);
        self.lengths.remove(&sequence);
        Ok(())
    }

    /// Writes so many bytes beside the log to see whether there is room again.
    pub(super) fn probe(&self, bytes: usize) -> io::Result<()> {
        let path = self.dir.join("probe.tmp");
        let probe = || {
            let file = self.disk.open(&path, OpenMode::Truncate)?;
            failpoint::disk("log-room")?;
            file.write_all_at(&vec![0; bytes], 0)?;
            file.sync_data()
        };
        let result = probe();
        // A leftover does no harm: the next probe empties it.
        let _ = self.disk.remove(&path);
        result
    }

    /// The directory, for messages.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Creates a segment whose name and first batch are durable when this returns.
fn new_segment(disk: &dyn Disk, dir: &Path, sequence: u64, start: &[u8]) -> Result<Arc<dyn DiskFile>, WriteError> {
    debug_assert!(start.len() > SEGMENT_HEADER);
    let path = dir.join(segment_name(sequence));
    let write = || {
        let file = disk.open(&path, OpenMode::CreateNew)?;
        if failpoint::is_armed("roll-half-written") {
            file.write_all_at(&start[..start.len() / 2], 0)?;
        }
        failpoint::reach("roll-half-written");
        failpoint::disk("log-room")?;
        file.write_all_at(start, 0)?;
        io::Result::Ok(file)
    };
    let file = match write() {
        Ok(file) => file,
        Err(error) if is_full(&error) => {
            return match disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WriteError::Failed(error)),
                _ => Err(WriteError::Full(error)),
            };
        }
        Err(error) => return Err(WriteError::Failed(error)),
    };
    file.sync_data().map_err(WriteError::Failed)?;
    failpoint::reach("roll-before-sync-dir");
    disk.sync_dir(dir).map_err(WriteError::Failed)?;
    failpoint::reach("roll-after-sync-dir");
    Ok(Arc::from(file))
}
