//! Replies as the grid's inside sees them: what an operation gave, and who says so. They travel and are
//! kept like requests.

use super::request::{AckLevel, TaskPayload};
use crate::types::{Cursor, HybridTime, JobInfo, NodeId, StoredValue};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Who answered, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The peer whose partition replica answered.
    pub node: NodeId,
    /// The leader's term; 0 for a local read.
    pub term: u64,
    /// Peers between the client and the answering one: 0 or 1.
    pub hops: u32,
    /// The grid's time there.
    pub time: HybridTime,
    /// Log index that the answer reflects at least.
    pub applied: u64,
    /// The level that a write was acknowledged at.
    pub ack: AckLevel,
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyBody {
    /// An entry, or none.
    Entry(Option<StoredValue>),
    /// Entries in the order of the keys asked for.
    Entries(Vec<Option<StoredValue>>),
    /// Written, at this revision.
    Written {
        /// Revision of the write in its partition.
        revision: u64,
        /// The entry that was there before, if it was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<StoredValue>,
    },
    /// The condition did not hold; nothing was written. Carries the present entry.
    ConditionFailed(Option<StoredValue>),
    /// A transaction's check did not hold; nothing was written.
    CheckFailed {
        /// The key of the first check that failed.
        key: Bytes,
        /// The entry that is there.
        present: Option<StoredValue>,
    },
    /// Deleted, or there was nothing to delete.
    Deleted {
        /// Whether there was an entry.
        existed: bool,
        /// Revision of the deletion in its partition; 0 if there was no entry. Answers that were
        /// kept before deletions had revisions are without.
        #[serde(default)]
        revision: u64,
        /// The entry that was there, if it was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<StoredValue>,
    },
    /// The entry has a new time to live, or there was none.
    Touched {
        /// Whether there was an entry.
        existed: bool,
        /// Revision of the change in its partition; 0 if there was no entry.
        revision: u64,
    },
    /// A page of entries.
    Page {
        /// Keys and entries, by partition, slot and key.
        entries: Vec<(Bytes, StoredValue)>,
        /// Where the next page begins; `None` behind the last slot.
        next: Option<Cursor>,
    },
    /// How much there is.
    Size {
        /// Entries.
        entries: u64,
        /// Bytes that they take as stored: keys, values, and what stands beside them.
        bytes: u64,
    },
    /// Entries were deleted.
    Cleared {
        /// How many.
        deleted: u64,
        /// Where to go on; `None` behind the last slot.
        next: Option<Cursor>,
    },
    /// The number after an increment.
    Number {
        /// The new value.
        value: i64,
        /// Revision of the write in its partition.
        revision: u64,
    },
    /// A task's answer.
    Task(TaskPayload),
    /// A job task as it stands.
    Job(Box<JobInfo>),
    /// A partition's job tasks, without payloads and long answers.
    Jobs(Vec<JobInfo>),
}

/// A reply: what the operation gave and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What the operation gave.
    pub body: ReplyBody,
    /// Who answered, and how.
    pub served: Served,
}
