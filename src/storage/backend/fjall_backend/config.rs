//! How fjall is opened, and what its errors mean here.

use crate::error::{Code, Error, Result};
use fjall::{Database, KeyspaceCreateOptions};
use std::io;
use std::path::Path;

/// Limits for fjall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FjallConfig {
    /// Bytes of fjall's block cache. Default: 64 MiB.
    pub cache_bytes: u64,
    /// Bytes of rows that fjall gathers in RAM before it writes a table. Default: 16 MiB.
    pub memtable_bytes: u64,
    /// Most rows in one batch. Default: 1000.
    pub max_batch_rows: usize,
    /// A batch is closed when it holds this many bytes. Default: 1 MiB.
    pub max_batch_bytes: usize,
}

impl Default for FjallConfig {
    fn default() -> Self {
        FjallConfig { cache_bytes: 64 << 20, memtable_bytes: 16 << 20, max_batch_rows: 1000, max_batch_bytes: 1 << 20 }
    }
}

impl FjallConfig {
    /// The settings beside a limit for the state's RAM.
    pub fn within(memory_limit: Option<u64>) -> Self {
        let default = FjallConfig::default();
        let share = |parts: u64, most: u64| memory_limit.map_or(most, |limit| (limit / parts).clamp(1 << 20, most));
        FjallConfig {
            cache_bytes: share(32, default.cache_bytes),
            memtable_bytes: share(32, default.memtable_bytes),
            ..default
        }
    }

    pub(super) fn rows(&self) -> KeyspaceCreateOptions {
        // Every checkpoint ends with a sync of the journal; batches in between need none.
        KeyspaceCreateOptions::default().max_memtable_size(self.memtable_bytes).manual_journal_persist(true)
    }
}

pub(super) fn open(dir: &Path, config: &FjallConfig) -> Result<Database> {
    if config.max_batch_rows == 0 || config.max_batch_bytes == 0 {
        return Err(Error::new(Code::InvalidConfig, "a batch must be allowed to hold at least one row"));
    }
    let opened = Database::builder(dir)
        .cache_size(config.cache_bytes)
        // The smallest that fjall takes.
        .max_journaling_size(64 << 20)
        .worker_threads(1)
        .manual_journal_persist(true)
        .open();
    opened.map_err(|error| {
        match error {
            fjall::Error::Locked => Error::new(Code::DataDirBusy, "the fjall database is open in another process"),
            error => fjall_error("cannot be opened", &error),
        }
        .at(dir.display().to_string())
    })
}

fn io_code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
        _ => Code::DiskFailed,
    }
}

pub(super) fn fjall_error(what: &str, error: &fjall::Error) -> Error {
    use fjall::Error as E;
    let code = match error {
        E::Io(error) => io_code(error),
        E::Storage(fjall::LsmError::Io(error)) => io_code(error),
        E::Poisoned => Code::DiskFailed,
        E::KeyspaceDeleted | E::Locked => Code::Internal,
        // Everything else says that bytes are not what was written.
        _ => Code::CorruptLog,
    };
    Error::new(code, format!("the fjall database {what}: {error}")).at("fjall")
}
