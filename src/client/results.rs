//! What calls take and give besides operations and values.

use crate::types::{AckLevel, Cursor, ReadLevel, Served, StoredValue, TaskPayload};
use bytes::Bytes;
use std::time::Duration;

/// How a call is to be executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// What decides where the keys live; `None`: each key's own `{tag}`, or the whole key.
    pub affinity: Option<Bytes>,
    /// How fresh a read must be. Default: as the client's settings say, which is linearizable.
    pub read: ReadLevel,
    /// When a write is acknowledged. Default: as the client's settings say, which is majority-fsync.
    pub ack: AckLevel,
    /// Time for the call, retries included. `None`: the client's.
    pub deadline: Option<Duration>,
}

/// A write that happened. [`Served::ack`] names the level of its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Revision of the write in its partition.
    pub revision: u64,
    /// Who acknowledged it, and how.
    pub served: Served,
}

/// What came of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conditional {
    /// The condition held.
    Written(Written),
    /// It did not; nothing was written.
    Refused {
        /// What is there instead.
        present: Option<StoredValue>,
        /// Who says so.
        served: Served,
    },
}

impl Conditional {
    /// Whether the write happened.
    pub fn is_written(&self) -> bool {
        matches!(self, Conditional::Written(_))
    }
}

/// What came of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether there was an entry.
    pub existed: bool,
    /// Revision of the deletion in its partition; 0 if there was no entry.
    pub revision: u64,
    /// Who acknowledged it, and how.
    pub served: Served,
}

/// What came of a new time to live. It is a write: [`Served::ack`] names its level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Whether there was an entry.
    pub existed: bool,
    /// Revision of the change in its partition; 0 if there was no entry.
    pub revision: u64,
    /// Who acknowledged it, and how.
    pub served: Served,
}

/// The number after an increment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    /// The new value.
    pub value: i64,
    /// Revision of the write in its partition.
    pub revision: u64,
    /// Who acknowledged it, and how.
    pub served: Served,
}

/// A task's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskAnswer {
    /// The answer.
    pub payload: TaskPayload,
    /// Who ran it, and how it was acknowledged.
    pub served: Served,
}

/// A write that gave back what was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The entry before the write.
    pub previous: Option<StoredValue>,
    /// The write.
    pub written: Written,
}

/// What came of a conditional deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The condition held.
    Deleted(Deleted),
    /// It did not; nothing was deleted.
    Refused {
        /// What is there.
        present: Option<StoredValue>,
        /// Who says so.
        served: Served,
    },
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transacted {
    /// All checks held; everything was written, at one revision.
    Written(Written),
    /// A check did not hold; nothing was written.
    Refused {
        /// The key of the first check that failed.
        key: Bytes,
        /// What is there under that key.
        present: Option<StoredValue>,
        /// Who says so.
        served: Served,
    },
}

/// A page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Keys and entries, by partition, slot and key.
    pub entries: Vec<(Bytes, StoredValue)>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
    /// Who answered.
    pub served: Served,
}

/// How much a map holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Entries.
    pub entries: u64,
    /// Bytes that they take as stored: keys, values, and what stands beside them.
    pub bytes: u64,
}
