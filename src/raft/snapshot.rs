//! A snapshot on its way: rows in chunks from a fuzzy scan, then a trailer that says what only
//! the scan's end can know.

use super::spool::Pieces;
use crate::error::Result;
use bytes::Bytes;
use std::sync::Arc;

/// One step of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Encoded rows, in the source's own format.
    pub rows: Bytes,
    /// Where the next chunk starts; `None` after the last.
    pub next: Option<Bytes>,
}

/// Rows to send. The scan may run while entries are applied: batches hold absolute values, so
/// that the state at the start plus the entries after it is right (ZooKeeper's fuzzy snapshot).
pub trait SnapshotSource: Send + Sync + 'static {
    /// The rows from `cursor` (`None`: from the first) on, about `max_bytes` of them.
    ///
    /// # Errors
    /// When rows cannot be read from the backend: this transfer ends.
    fn chunk(&self, cursor: Option<&[u8]>, max_bytes: usize) -> Result<Chunk>;

    /// Asked after the last chunk: whatever decides about entries, exactly as it was at the
    /// snapshot's log id, and the index that had been applied when the scan ended.
    fn trailer(&self) -> Bytes;
}

/// The data of a snapshot.
pub enum SnapshotData {
    /// Here, still to be scanned.
    Source(Arc<dyn SnapshotSource>),
    /// Received from another replica, complete.
    Received {
        /// The chunks' rows, in order.
        pieces: Pieces,
        /// The source's trailer.
        trailer: Bytes,
    },
}

impl std::fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotData::Source(_) => f.write_str("SnapshotData::Source"),
            SnapshotData::Received { pieces, .. } => write!(f, "SnapshotData::Received({} chunks)", pieces.len()),
        }
    }
}
