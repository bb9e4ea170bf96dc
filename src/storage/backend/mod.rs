//! State backends: where a replica's checkpoints are kept, behind the Raft log.
//!
//! State itself lives in RAM, in the partition. From time to time the partition hands a backend
//! its rows (all of them, or those that changed) and an opaque `meta`: the applied index and
//! whatever decides about later entries. At a start it gets them back and replays the log from
//! there. All calls block; they are made on threads of kind `Backend`, one at a time per replica.
//!
//! A backend never interprets rows or meta, never reads the log, and never serves bytes whose
//! checksum is wrong: damage is an error that names the file or tree, and never passes for "no
//! checkpoint".

pub mod conformance;
#[cfg(feature = "fjall")]
mod fjall_backend;
#[cfg(test)]
mod fuzz;
mod memory;
mod reopening;
mod row_value;
mod sled_backend;

#[cfg(feature = "fjall")]
pub use fjall_backend::{FjallBackend, FjallConfig};
pub use memory::MemoryBackend;
pub use reopening::ReopeningBackend;
pub use sled_backend::{SledBackend, SledConfig};

use crate::error::{Code, Error, Result};
use crate::storage::disk::is_full;
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::path::Path;

/// Key of a replica's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey {
    /// The Raft group.
    pub group: GroupId,
    /// The replica within it.
    pub replica: ReplicaId,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.group, self.replica)
    }
}

/// The rows of a checkpoint. A row that is an error ends the attempt with that error.
pub enum Rows<'a> {
    /// Every row, in key order (a fuzzy scan). Whatever an earlier checkpoint held is replaced.
    All(&'a mut dyn Iterator<Item = Result<(Bytes, Bytes)>>),
    /// The rows that changed since the last successful checkpoint; `None` is a deleted row. If
    /// the last one failed, what it was given must be given again.
    Changed(&'a mut dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>>),
}

/// Keeps checkpoints of replicas' states.
pub trait StateBackend: Send + Sync + 'static {
    /// Its name in the configuration and in messages.
    fn name(&self) -> &'static str;

    /// Whether a checkpoint may carry only what changed; else it must carry all rows.
    fn takes_changes(&self) -> bool;

    /// Whether single rows can be read back while the replica runs, so that their values need not
    /// be in RAM.
    fn serves_rows(&self) -> bool {
        false
    }

    /// The values of rows, as the newest checkpoint has them that wrote them, one under way
    /// included; `None` for a row that is not there. Each is verified. May be called while a
    /// checkpoint is written.
    ///
    /// # Errors
    /// As [`StateBackend::load`]; `Internal` from a backend that does not serve rows.
    fn get_many(&self, key: ReplicaKey, rows: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let _ = rows;
        Err(Error::internal(format!("the {} backend serves no single rows", self.name())).at(key.to_string()))
    }

    /// The value of one row; see [`StateBackend::get_many`].
    ///
    /// # Errors
    /// As [`StateBackend::get_many`].
    fn get(&self, key: ReplicaKey, row: &Bytes) -> Result<Option<Bytes>> {
        Ok(self.get_many(key, std::slice::from_ref(row))?.pop().flatten())
    }

    /// Feeds every row to `visit`, in key order, and returns the meta bytes; `None` if there is no
    /// checkpoint. Each row was verified before it is visited; after an error the rows visited so
    /// far must be thrown away, since later ones are missing.
    ///
    /// # Errors
    /// `CorruptLog` for damage, `UnknownFormat`, `DiskFailed`.
    fn load(&self, key: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>>;

    /// The meta with which a checkpoint of changes was under way when the process ended: some of
    /// the rows that [`StateBackend::load`] gives are as new as that. They are right once the log
    /// has been replayed past that meta's end of scan, and nothing may be served before. `None`
    /// after a checkpoint that completed.
    ///
    /// # Errors
    /// As [`StateBackend::load`].
    fn ahead(&self, _key: ReplicaKey) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// Writes a checkpoint. Durable when it returns; after a crash or an error in between it is
    /// the old checkpoint or the new one, save for what [`StateBackend::ahead`] says. `meta` is
    /// asked after rows have been drawn, so that it can name the end of the scan: at least once
    /// after the last row, and possibly in between, for the rows drawn so far.
    ///
    /// # Errors
    /// `DiskFull` when nothing could be written for want of room; `DiskFailed`; `Internal` when
    /// changes are given to a backend that takes only all rows.
    fn checkpoint(&self, key: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()>;

    /// Forgets a replica's checkpoint, durably; no error if there is none.
    ///
    /// # Errors
    /// `DiskFailed`.
    fn remove(&self, key: ReplicaKey) -> Result<()>;

    /// The replicas that have a checkpoint, sorted.
    ///
    /// # Errors
    /// `DiskFailed`.
    fn replicas(&self) -> Result<Vec<ReplicaKey>>;
}

/// The error for an I/O failure at a path.
fn io_error(what: &str, path: &Path, error: &io::Error) -> Error {
    let code = if is_full(error) { Code::DiskFull } else { Code::DiskFailed };
    Error::new(code, format!("{what}: {error}")).at(path.display().to_string())
}

#[cfg(test)]
mod test_disk;
