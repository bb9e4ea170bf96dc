//! The pieces of a snapshot that has come in: the first few in RAM, the others in a file, so that a
//! state larger than RAM can be received. In: pieces, in order. Out: the same pieces, verified. The
//! file is only a place to wait: it is never synced, and goes with the snapshot.

use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::storage::disk::{Disk, DiskFile, OpenMode};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where snapshots wait that do not fit into RAM.
#[derive(Clone)]
pub struct SpoolDir {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::DiskFailed,
    };
    Error::new(code, format!("a snapshot that comes in cannot be kept: {error}")).at(path.display().to_string())
}

impl SpoolDir {
    /// Opens the directory and removes what an earlier life left there. Blocks.
    ///
    /// # Errors
    /// `DiskFull`, `DiskFailed`.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self> {
        let fail = |error| failed(dir, &error);
        disk.create_dir_all(dir).map_err(fail)?;
        for name in disk.list(dir).map_err(fail)? {
            disk.remove(&dir.join(name)).map_err(fail)?;
        }
        Ok(SpoolDir { disk, dir: dir.to_owned() })
    }

    /// A new file of this name. Blocks.
    pub(super) fn create(&self, name: &str) -> Result<Arc<SpoolFile>> {
        let path = self.dir.join(name);
        let file = self.disk.open(&path, OpenMode::Truncate).map_err(|error| failed(&path, &error))?;
        Ok(Arc::new(SpoolFile { disk: self.disk.clone(), path, file }))
    }
}

/// A file of pieces; it is removed with its last handle.
pub(super) struct SpoolFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl SpoolFile {
    /// Writes a piece. Blocks.
    pub(super) fn write(&self, piece: &[u8], offset: u64) -> Result<()> {
        let written = failpoint::disk("state-room").and_then(|()| self.file.write_all_at(piece, offset));
        written.map_err(|error| failed(&self.path, &error))
    }

    fn read(&self, spot: &Spot) -> Result<Bytes> {
        let mut piece = vec![0; spot.length as usize];
        self.file.read_exact_at(&mut piece, spot.offset).map_err(|error| failed(&self.path, &error))?;
        if crc32fast::hash(&piece) != spot.crc {
            return Err(Error::new(Code::CorruptRow, "a piece of a received snapshot is damaged")
                .at(self.path.display().to_string()));
        }
        Ok(piece.into())
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // What stays is removed at the next start.
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a received snapshot's file could not be removed");
        }
    }
}

/// Where a piece lies in the file.
struct Spot {
    offset: u64,
    length: u32,
    crc: u32,
}

/// The pieces of a snapshot, in order.
#[derive(Default)]
pub struct Pieces {
    held: Vec<Bytes>,
    held_bytes: usize,
    spots: Vec<Spot>,
    spooled_bytes: u64,
    file: Option<Arc<SpoolFile>>,
}

impl Pieces {
    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.held.len() + self.spots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in RAM.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes in the file.
    pub(super) fn spooled_bytes(&self) -> u64 {
        self.spooled_bytes
    }

    /// Whether pieces go into the file from now on: those in RAM all come before it.
    pub(super) fn file(&self) -> Option<Arc<SpoolFile>> {
        self.file.clone()
    }

    /// Adds a piece in RAM; only before the first in the file.
    pub(super) fn hold(&mut self, piece: Bytes) {
        self.held_bytes += piece.len();
        self.held.push(piece);
    }

    /// Adds a piece that has been written at the end of the file.
    pub(super) fn spooled(&mut self, file: Arc<SpoolFile>, piece: &[u8]) {
        let spot = Spot { offset: self.spooled_bytes, length: piece.len() as u32, crc: crc32fast::hash(piece) };
        self.spooled_bytes += piece.len() as u64;
        self.spots.push(spot);
        self.file = Some(file);
    }

    /// A piece; `None` after the last. Blocks if it is in the file.
    ///
    /// # Errors
    /// `CorruptRow` for damage, or what the disk says.
    pub fn get(&self, number: usize) -> Result<Option<Bytes>> {
        if let Some(piece) = self.held.get(number) {
            return Ok(Some(piece.clone()));
        }
        match (self.spots.get(number - self.held.len()), &self.file) {
            (Some(spot), Some(file)) => file.read(spot).map(Some),
            _ => Ok(None),
        }
    }

    /// All pieces, one after the other. Blocks.
    pub fn iter(&self) -> impl Iterator<Item = Result<Bytes>> {
        (0..self.len()).filter_map(|number| self.get(number).transpose())
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(held: Vec<Bytes>) -> Self {
        let held_bytes = held.iter().map(Bytes::len).sum();
        Pieces { held, held_bytes, ..Pieces::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::StdDisk;

    #[test]
    fn pieces_come_back_in_order_damage_is_found_and_the_file_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("incoming");
        let spool = SpoolDir::open(Arc::new(StdDisk), &path).expect("opens");
        let mut pieces = Pieces::default();
        pieces.hold(Bytes::from_static(b"first"));
        let file = spool.create("3").expect("created");
        for piece in [&b"second"[..], b"", b"fourth"] {
            file.write(piece, pieces.spooled_bytes()).expect("written");
            pieces.spooled(file.clone(), piece);
        }
        let all: Result<Vec<Bytes>> = pieces.iter().collect();
        assert_eq!(all.expect("whole"), ["first", "second", "", "fourth"]);
        assert_eq!(pieces.get(4), Ok(None));
        file.write(b"F", 6).expect("written");
        assert_eq!(pieces.get(3).expect_err("damaged").code, Code::CorruptRow);
        assert!(path.join("3").exists());
        drop((pieces, file));
        assert!(!path.join("3").exists());
        std::fs::write(path.join("left"), b"over").expect("written");
        SpoolDir::open(Arc::new(StdDisk), &path).expect("opens");
        assert!(!path.join("left").exists());
    }
}
