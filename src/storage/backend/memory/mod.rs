//! The backend for grids that hold everything in RAM: each checkpoint is a snapshot file.
//!
//! In: all rows of a replica, in key order, and the meta. Out: `snap-<group>-<replica>` in the
//! backend's directory, written to a temporary file, synced, renamed, the directory synced; so
//! after a crash it is the old file or the new one, whole. It never updates a file in place and
//! never skips a damaged block. Memory used is one block, whatever the state's size.

mod format;

use super::{ReplicaKey, Rows, StateBackend, io_error};
use crate::error::{Error, Result};
use crate::storage::disk::{Disk, DiskFile, OpenMode};
use crate::types::GroupId;
use bytes::Bytes;
use format::{SnapshotReader, SnapshotWriter};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

const PREFIX: &str = "snap-";
const TEMPORARY: &str = ".tmp";

/// Checkpoints as snapshot files on the [`Disk`] port.
pub struct MemoryBackend {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

fn parse_name(name: &str) -> Option<ReplicaKey> {
    let (group, replica) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let key = ReplicaKey { group: GroupId(group.parse().ok()?), replica: replica.parse().ok()? };
    // Only the canonical spelling: "snap-01-2" is not ours.
    (format!("{PREFIX}{key}") == name).then_some(key)
}

impl MemoryBackend {
    /// Opens the backend in a directory, which is created if need be; what an interrupted
    /// checkpoint left there is removed.
    ///
    /// # Errors
    /// `DiskFull`, `DiskFailed`.
    pub fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Result<Self> {
        let backend = MemoryBackend { disk, dir: dir.into() };
        let fail = |error| io_error("the checkpoint directory cannot be opened", &backend.dir, &error);
        backend.disk.create_dir_all(&backend.dir).map_err(fail)?;
        for name in backend.disk.list(&backend.dir).map_err(fail)? {
            if name.strip_suffix(TEMPORARY).and_then(parse_name).is_some() {
                backend.disk.remove(&backend.dir.join(name)).map_err(fail)?;
            }
        }
        Ok(backend)
    }

    /// The snapshot file of a replica.
    pub fn path(&self, key: ReplicaKey) -> PathBuf {
        self.dir.join(format!("{PREFIX}{key}"))
    }

    fn write(
        &self,
        file: &dyn DiskFile,
        key: ReplicaKey,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Bytes)>>,
        meta: &mut dyn FnMut() -> Bytes,
    ) -> Result<()> {
        let fail = |error: io::Error| io_error("a snapshot file cannot be written", &self.path(key), &error);
        let mut writer = SnapshotWriter::begin(file, key).map_err(fail)?;
        for row in rows {
            let (row_key, value) = row?;
            writer.row(&row_key, &value).map_err(fail)?;
        }
        writer.finish(&meta()).map_err(fail)?;
        file.sync_data().map_err(fail)
    }
}

impl StateBackend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn takes_changes(&self) -> bool {
        false
    }

    fn load(&self, key: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>> {
        let path = self.path(key);
        let file = match self.disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("a snapshot file cannot be opened", &path, &error)),
        };
        let mut reader = SnapshotReader::begin(file.as_ref(), &path, key)?;
        while let Some(rows) = reader.next_rows()? {
            for (row_key, value) in rows {
                visit(row_key, value);
            }
        }
        reader.finish().map(Some)
    }

    fn checkpoint(&self, key: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()> {
        let Rows::All(rows) = rows else {
            return Err(Error::internal("the memory backend was given changes instead of all rows").at(key.to_string()));
        };
        let path = self.path(key);
        let temporary = self.dir.join(format!("{PREFIX}{key}{TEMPORARY}"));
        let fail = |error: io::Error| io_error("a snapshot file cannot be written", &path, &error);
        let file = self.disk.open(&temporary, OpenMode::Truncate).map_err(fail)?;
        if let Err(error) = self.write(file.as_ref(), key, rows, meta) {
            // A full disk must get its room back; if this fails too, the next open removes it.
            drop(file);
            drop(self.disk.remove(&temporary));
            return Err(error);
        }
        drop(file);
        self.disk.rename(&temporary, &path).map_err(fail)?;
        self.disk.sync_dir(&self.dir).map_err(fail)
    }

    fn remove(&self, key: ReplicaKey) -> Result<()> {
        let path = self.path(key);
        let fail = |error: io::Error| io_error("a snapshot file cannot be removed", &path, &error);
        match self.disk.remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        self.disk.sync_dir(&self.dir).map_err(fail)
    }

    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        let names = self
            .disk
            .list(&self.dir)
            .map_err(|error| io_error("the checkpoint directory cannot be read", &self.dir, &error))?;
        let mut keys: Vec<_> = names.iter().filter_map(|name| parse_name(name)).collect();
        keys.sort_unstable();
        Ok(keys)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
