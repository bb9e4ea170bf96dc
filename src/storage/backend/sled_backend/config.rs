//! How sled is opened, and what its errors mean here.

use crate::error::{Code, Error, Result};
use crate::storage::disk::is_full;
use sled::{Db, Mode};
use std::path::Path;
use std::time::Duration;

/// Between two attempts to get sled's lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Limits for sled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledConfig {
    /// Bytes of sled's page cache, which sled exceeds at times. Default: 64 MiB; rows are served
    /// from RAM, so it matters only for writing and loading.
    pub cache_bytes: u64,
    /// Most rows in one batch. Default: 1000.
    pub max_batch_rows: usize,
    /// A batch is closed when it holds this many bytes. Default: 1 MiB.
    pub max_batch_bytes: usize,
    /// How long to wait at the start for sled's lock: sled gives it back on threads of its own, a
    /// little after the last handle in this process was dropped. Default: 2 s.
    pub lock_wait: Duration,
}

impl Default for SledConfig {
    fn default() -> Self {
        SledConfig {
            cache_bytes: 64 * 1024 * 1024,
            max_batch_rows: 1000,
            max_batch_bytes: 1024 * 1024,
            lock_wait: Duration::from_secs(2),
        }
    }
}

impl SledConfig {
    /// The settings beside a limit for the state's RAM: sled exceeds its cache bound several times
    /// over, so that it gets little.
    pub fn within(memory_limit: Option<u64>) -> Self {
        let default = SledConfig::default();
        let cache_bytes = memory_limit.map_or(default.cache_bytes, |limit| (limit / 32).min(default.cache_bytes));
        SledConfig { cache_bytes: cache_bytes.max(1 << 20), ..default }
    }
}

pub(super) fn open(dir: &Path, config: &SledConfig) -> Result<Db> {
    if config.max_batch_rows == 0 || config.max_batch_bytes == 0 {
        return Err(Error::new(Code::InvalidConfig, "a sled batch must be allowed to hold at least one row"));
    }
    let mut waited = Duration::ZERO;
    loop {
        match open_once(dir, config) {
            Err(error) if error.code == Code::DataDirBusy && waited < config.lock_wait => {
                std::thread::sleep(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            outcome => return outcome,
        }
    }
}

fn open_once(dir: &Path, config: &SledConfig) -> Result<Db> {
    let opened = sled::Config::new()
        .path(dir)
        .cache_capacity(config.cache_bytes)
        .mode(Mode::LowSpace)
        .use_compression(false)
        // Durability is asked for at the end of each checkpoint; a timer would only add writes.
        .flush_every_ms(None)
        .open();
    opened.map_err(|error| match &error {
        // sled has no kind of its own for a database that another process has open.
        sled::Error::Io(cause) if cause.to_string().contains("could not acquire lock") => {
            Error::new(Code::DataDirBusy, "the sled database is open in another process").at(dir.display().to_string())
        }
        _ => sled_error("cannot be opened", &error).at(dir.display().to_string()),
    })
}

pub(super) fn sled_error(what: &str, error: &sled::Error) -> Error {
    let code = match error {
        sled::Error::Corruption { .. } => Code::CorruptLog,
        sled::Error::Io(error) if is_full(error) => Code::DiskFull,
        sled::Error::Io(_) => Code::DiskFailed,
        sled::Error::ReportableBug(_) | sled::Error::Unsupported(_) | sled::Error::CollectionNotFound(_) => {
            Code::Internal
        }
    };
    Error::new(code, format!("the sled database {what}: {error}")).at("sled")
}
