//! The disk as a port. [`StdDisk`] is the machine's; the simulator's forgets at a crash whatever
//! was not synced: bytes without [`DiskFile::sync_data`], names without [`Disk::sync_dir`].
//!
//! All calls block; they are made on threads of their own (see `clock::Threads`).

use crate::failpoint;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Whether the disk, or the owner's share of it, is full; a limit on the size of files is one too.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; created, must not exist.
    CreateNew,
    /// For reading and writing; created, or emptied if it exists.
    Truncate,
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads exactly `buffer.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end; else what the disk says.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes at `offset`, extending the file if needed. Not durable before a sync.
    ///
    /// # Errors
    /// What the disk says.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// What the disk says; after an error nothing may be assumed of what was written.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the disk says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// What the disk says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends (with zeros) to this length. Not durable before a sync.
    ///
    /// # Errors
    /// What the disk says.
    fn set_len(&self, length: u64) -> io::Result<()>;
}

/// Keeps a data directory for one process; released when dropped.
pub trait DirLock: Send + Sync {}

/// Files and directories.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and its parents, durably: what is later synced inside is not lost
    /// with the directory's own name.
    ///
    /// # Errors
    /// What the disk says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the disk says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, replacing the target. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the disk says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory's entries durable.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a directory for this process.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it; what is inside says who, if that is known.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>>;

    /// How long a simulated disk, which never blocks, wants the next write to be put off. A real one
    /// takes its time itself.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// `NotFound`, or what the disk says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces a small file in one step: after a crash it is the old one or the new one, and
    /// the new one if this returned.
    ///
    /// # Errors
    /// What the disk says.
    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let file = self.open(&temporary, OpenMode::Truncate)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        failpoint::reach("identity-before-rename");
        self.rename(&temporary, path)?;
        failpoint::reach("identity-before-sync-dir");
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdDisk;

impl DiskFile for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }
}

/// The error of a lock that another process holds, with its number if it is readable.
fn held_by(file: &mut File) -> io::Error {
    let mut text = String::new();
    let number = file.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    match number {
        Some(number) => io::Error::new(io::ErrorKind::WouldBlock, format!("process {number}")),
        None => io::ErrorKind::WouldBlock.into(),
    }
}

struct StdLock {
    _file: File,
}

impl DirLock for StdLock {}

impl Disk for StdDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        // A relative path ends at the working directory, whose name is the empty path.
        let parent = dir.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        std::fs::create_dir_all(dir)?;
        parent.map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
            OpenMode::Truncate => options.write(true).create(true).truncate(true),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        // The system drops the lock with the process, however that ends; the number inside only
        // tells people whom to stop.
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("lock"))?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => held_by(&mut file),
            std::fs::TryLockError::Error(error) => error,
        })?;
        let noted = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        if let Err(error) = noted {
            tracing::debug!(%error, "the lock file does not name this process");
        }
        Ok(Box::new(StdLock { _file: file }))
    }
}
