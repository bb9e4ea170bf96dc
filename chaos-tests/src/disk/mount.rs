//! The disk port over a [`SimDisk`], for one life of a process.

use super::database::{Batch, Trees};
use super::files::FileId;
use super::{SimDisk, State};
use keystead::storage::disk::{DirLock, Disk, DiskFile, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process's view of its disk. After a crash all calls fail.
#[derive(Clone, Debug)]
pub struct Mount {
    disk: SimDisk,
    generation: u64,
}

impl Mount {
    pub(super) fn new(disk: SimDisk, generation: u64) -> Self {
        Mount { disk, generation }
    }

    /// Whether the power went at a change.
    pub(crate) fn has_lost_power(&self) -> bool {
        self.disk.has_lost_power()
    }

    /// Runs a change that happens as a whole or, when the power goes, not at all.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        state.change_or_off(self.generation)?;
        change(&mut state)
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        let state = self.disk.state();
        state.alive(self.generation)?;
        read(&state)
    }

    /// Reads the model database.
    pub(crate) fn database<T>(&self, read: impl FnOnce(&Trees) -> T) -> io::Result<T> {
        self.read(|state| Ok(read(state.database.trees())))
    }

    /// Whether a write or a sync has failed in this life of the machine.
    pub(crate) fn has_failed(&self) -> bool {
        self.disk.has_failed()
    }

    /// Whether only so many bytes fit on it.
    pub(crate) fn has_limit(&self) -> bool {
        self.disk.has_limit()
    }

    /// Whether bytes of the disk were damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.disk.is_damaged()
    }

    /// Whether this is not the machine's first disk.
    pub(crate) fn is_new(&self) -> bool {
        self.disk.replaced() > 0
    }

    /// Changes the model database.
    pub(crate) fn apply_batch(&self, batch: Batch) -> io::Result<()> {
        self.change(|state| {
            if matches!(batch, Batch::Rows(..)) && state.faults.capacity.is_some_and(|all| state.files.used() >= all) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.database.apply(batch);
            Ok(())
        })
    }

    /// Makes the model database's changes durable.
    pub(crate) fn flush_database(&self) -> io::Result<()> {
        self.change(|state| {
            state.database.flush();
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<FileId> {
        self.change(|state| {
            let file = state.files.create();
            state.names.link(path, file).map(|()| file)
        })
    }

    fn file(&self, path: &Path, mode: OpenMode) -> io::Result<FileId> {
        let found = self.read(|state| state.names.file(path));
        match (mode, found) {
            (OpenMode::Read | OpenMode::ReadWrite, found) => found,
            (OpenMode::CreateNew, Ok(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::Truncate, Ok(file)) => {
                self.change(|state| state.files.set_len(file, 0))?;
                Ok(file)
            }
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => self.create(path),
            (_, Err(error)) => Err(error),
        }
    }
}

impl Disk for Mount {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| state.names.create_dir_all(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.read(|state| state.names.list(dir))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.file(path, mode)?;
        Ok(Box::new(OpenFile { mount: self.clone(), file, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| state.names.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.names.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| {
            state.counts.dir_syncs += 1;
            state.names.sync(dir)
        })
    }

    fn lag(&self) -> Duration {
        self.disk.state().faults.lag
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        self.read(|state| state.names.list(dir).map(drop))?;
        let mut state = self.disk.state();
        if !state.locks.insert(dir.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { mount: self.clone(), dir: dir.to_owned() }))
    }
}

struct Lock {
    mount: Mount,
    dir: PathBuf,
}

impl DirLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.mount.disk.state();
        if state.generation == self.mount.generation {
            state.locks.remove(&self.dir);
        }
    }
}

struct OpenFile {
    mount: Mount,
    file: FileId,
    writable: bool,
}

impl OpenFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// How many of the bytes fit on the disk.
    fn room(&self, state: &State, length: usize, offset: u64) -> io::Result<usize> {
        let Some(capacity) = state.faults.capacity else { return Ok(length) };
        let present = state.files.len(self.file)?;
        let free = capacity.saturating_sub(state.files.used());
        let end = (offset + length as u64).min(present.max(offset) + free);
        // Past the end of the file the gap takes room as well.
        Ok(if offset > present + free { 0 } else { (end - offset) as usize })
    }
}

impl DiskFile for OpenFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.mount.read(|state| state.files.read(self.file, buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.mount.disk.state();
        if state.change(self.mount.generation)? {
            // The power goes in the middle of the write.
            let part = state.dice.index(bytes.len() + 1);
            state.files.write(self.file, &bytes[..part], offset)?;
            return Err(io::Error::other("the disk has no power"));
        }
        state.counts.writes += 1;
        state.last_write = crate::trace::now();
        if state.faults.fail_write.is_some_and(|at| state.counts.writes >= at) {
            state.faults.fail_write = None;
            state.failed = true;
            let part = state.dice.index(bytes.len() + 1);
            state.files.write(self.file, &bytes[..part], offset)?;
            return Err(io::Error::other("the disk could not write"));
        }
        let room = self.room(&state, bytes.len(), offset)?;
        if room > 0 {
            state.files.write(self.file, &bytes[..room], offset)?;
        }
        if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.mount.change(|state| {
            state.counts.file_syncs += 1;
            if state.faults.fail_sync.is_some_and(|at| state.counts.file_syncs >= at) {
                state.faults.fail_sync = None;
                state.failed = true;
                state.files.drop_unsynced(self.file)?;
                return Err(io::Error::other("the disk could not write"));
            }
            if state.faults.lying {
                return Ok(());
            }
            state.files.sync(self.file)
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.mount.read(|state| state.files.len(self.file))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check_writable()?;
        self.mount.change(|state| {
            let present = state.files.len(self.file)?;
            let free = state.faults.capacity.map_or(u64::MAX, |all| all.saturating_sub(state.files.used()));
            if length.saturating_sub(present) > free {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.files.set_len(self.file, length)
        })
    }
}
