//! One durable log per node, shared by all Raft groups, so that one sync serves every group that
//! waits. In: entries (an index and bytes), votes, committed and purge marks of replicas, all of
//! them opaque. Out: the same, after a restart, or word of what is damaged.
//!
//! [`SharedLog`] and [`GroupLog`] are handles; they put requests into a bounded queue. One thread
//! (in the simulator: a task) takes everything that waits, writes it as one batch, syncs once, and
//! runs the callbacks. Files are segments (`format`); each begins with a checkpoint of all small
//! state, so that an old segment without live entries can simply be removed.
//!
//! It never acknowledges what is not synced, never serves bytes whose checksum is wrong, never
//! takes damage in what had been durable for a torn write, never goes on after a failed write or
//! sync, and knows nothing of Raft's types.

mod cache;
mod compose;
mod config;
mod core;
mod driver;
mod format;
mod group;
mod image;
mod maintain;
mod open;
mod publish;
mod queue;
mod read;
mod rebuild;
mod recovery;
mod segment;
mod shared;
#[cfg(test)]
mod tests;

pub use config::LogConfig;
pub use group::{GroupLog, LogExtent};
pub use shared::SharedLog;

use crate::error::Error;
use crate::types::{GroupId, ReplicaId};

/// A replica of a group.
pub type ReplicaKey = (GroupId, ReplicaId);

/// How the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogHealth {
    /// It writes.
    Ok,
    /// The disk is full: writes fail, nothing is lost; it recovers when there is room.
    DiskFull,
    /// A write or sync failed: nothing may be assumed of the disk, and the process must end.
    Failed(Error),
}

/// What was found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Replicas that are sound.
    pub replicas: Vec<ReplicaKey>,
    /// Ids that were given up.
    pub tombstoned: Vec<ReplicaKey>,
    /// Replicas that may have lost entries or votes: they must be given up and replaced.
    pub damaged: Vec<ReplicaKey>,
    /// Damage that cannot be charged to replicas: any of them may have voted without a trace.
    pub votes_lost: bool,
    /// There was no log: it has been created. A node that had one before must not go on.
    pub fresh: bool,
    /// Bytes of a torn write at the end, cut off.
    pub torn_tail_bytes: u64,
    /// Places with damage in what had been durable, whether or not it still mattered.
    pub damaged_places: usize,
}

/// Counters and sizes of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes of all segments.
    pub disk_bytes: u64,
    /// Bytes of entries that are still needed; an estimate by number after cuts within a run.
    pub live_bytes: u64,
    /// Syncs of segment files.
    pub syncs: u64,
    /// Batches written for requests.
    pub batches: u64,
    /// Entries appended.
    pub entries: u64,
    /// Bytes of entries appended.
    pub entry_bytes: u64,
    /// Bytes of live entries written again so that an old segment could go.
    pub moved_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// The segment that is written to.
    pub current_segment: u64,
}

/// Whether an error of the log says that the disk is full, so that a later try may succeed.
pub fn is_disk_full(error: &std::io::Error) -> bool {
    segment::is_full(error)
}
