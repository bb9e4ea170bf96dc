//! Requests and replies as the grid's inside sees them: independent of gRPC. A request travels
//! between peers in MessagePack with a leading version byte (see `node`); the edge translates.

use crate::types::{HybridTime, NodeId, SessionId, Slot, StoredValue, Value, ValueCodec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Sees every write acknowledged before the read began.
    #[default]
    Linearizable,
    /// Answered from the asked replica's applied state, whose index the reply names.
    Local,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AckLevel {
    /// On disk at a majority of the partition's replicas.
    #[default]
    MajorityFsync,
    /// The leader has it; it may be lost.
    Accepted,
}

/// What a conditional write demands of the present entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// There is no entry.
    Absent,
    /// The entry's value is exactly this (codec and bytes).
    Value(Value),
    /// The entry's revision is exactly this.
    Revision(u64),
}

/// A task's payload or answer: bytes with their codec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPayload {
    /// `Msgpack` or `Json`.
    pub codec: ValueCodec,
    /// The encoded payload.
    pub data: Bytes,
}

/// One operation on one slot. Keys are the encoded key bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Reads one entry.
    Get {
        /// The map.
        map: String,
        /// The key.
        key: Bytes,
    },
    /// Reads several entries of one partition; answers in the keys' order.
    GetMany {
        /// The map.
        map: String,
        /// The keys; all of one partition.
        keys: Vec<Bytes>,
    },
    /// Writes one entry if the condition holds.
    Put {
        /// The map.
        map: String,
        /// The key.
        key: Bytes,
        /// The new value.
        value: Value,
        /// What must hold of the present entry.
        condition: Condition,
    },
    /// Writes several entries of one partition. Within one log entry: atomic.
    PutMany {
        /// The map.
        map: String,
        /// The entries; all of one partition.
        entries: Vec<(Bytes, Value)>,
    },
    /// Deletes one entry.
    Delete {
        /// The map.
        map: String,
        /// The key.
        key: Bytes,
    },
    /// Adds to a number (`i64`, or utf8 that holds a decimal); a missing entry counts as 0.
    Increment {
        /// The map.
        map: String,
        /// The key.
        key: Bytes,
        /// What to add.
        delta: i64,
    },
    /// Writes several entries of one slot if each named entry has the revision named (`None`: is
    /// absent): all or nothing, in one log entry.
    Transact {
        /// The map.
        map: String,
        /// What must hold: key and revision.
        checks: Vec<(Bytes, Option<u64>)>,
        /// What to write: key and value; `None` deletes.
        writes: Vec<(Bytes, Option<Value>)>,
    },
    /// Runs a registered task beside the key.
    Task {
        /// The task's registered name.
        name: String,
        /// The key that decides where it runs, and its slot.
        key: Bytes,
        /// What the handler is given.
        payload: TaskPayload,
        /// What a cancellation names it by; 0 when nobody will.
        id: u64,
    },
    /// Runs a registered partition task on a whole partition.
    PartitionTask {
        /// The task's registered name.
        name: String,
        /// The partition's first and last slot: where it runs, and what it may touch.
        slots: (Slot, Slot),
        /// What the handler is given.
        payload: TaskPayload,
        /// What a cancellation names it by; 0 when nobody will.
        id: u64,
    },
}

/// What makes a retried write run once (Raft dissertation, 6.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStamp {
    /// The client's session.
    pub session: SessionId,
    /// The write's number within the session, from 1.
    pub number: u64,
    /// The lowest number the client still waits for: answers below it may be forgotten.
    pub lowest_unanswered: u64,
    /// The number of the session's previous write to the same slot, if that is still unanswered.
    pub previous: Option<u64>,
    /// The grid's time, as the client knew it, when the write was first sent. Of an unknown
    /// session a partition executes only what was first sent after it last forgot a session.
    pub first_sent: HybridTime,
}

/// A request, as routed to the leader of its slot's partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What decides where the keys live, when the caller names it; else each key's own affinity.
    pub affinity: Option<Bytes>,
    /// The operation.
    pub op: Op,
    /// How fresh a read must be.
    pub read: ReadLevel,
    /// When a write is acknowledged.
    pub ack: AckLevel,
    /// The write's session stamp; `None` for reads, and for writes whose forwarding peer stamps them.
    pub stamp: Option<SessionStamp>,
    /// Milliseconds that are left to answer.
    pub deadline_ms: u32,
}

impl Op {
    /// The key that decides where the operation goes (the first, for many).
    pub fn routing_key(&self) -> Option<&Bytes> {
        match self {
            Op::Get { key, .. } | Op::Put { key, .. } | Op::Delete { key, .. } => Some(key),
            Op::Increment { key, .. } | Op::Task { key, .. } => Some(key),
            Op::GetMany { keys, .. } => keys.first(),
            Op::PutMany { entries, .. } => entries.first().map(|(key, _)| key),
            Op::Transact { checks, writes, .. } => {
                checks.first().map(|(key, _)| key).or_else(|| writes.first().map(|(key, _)| key))
            }
            Op::PartitionTask { .. } => None,
        }
    }

    /// The slot that it is addressed by, if it names no key.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Op::PartitionTask { slots, .. } => Some(slots.0),
            _ => None,
        }
    }

    /// Whether it runs user code in the executor's turn.
    pub fn is_task(&self) -> bool {
        matches!(self, Op::Task { .. } | Op::PartitionTask { .. })
    }

    /// What a cancellation names it by.
    pub fn task_id(&self) -> Option<u64> {
        match self {
            Op::Task { id, .. } | Op::PartitionTask { id, .. } => Some(*id).filter(|id| *id != 0),
            _ => None,
        }
    }

    /// The map it names; `None` for a task.
    pub fn map(&self) -> Option<&str> {
        match self {
            Op::Get { map, .. } | Op::GetMany { map, .. } | Op::Put { map, .. } => Some(map),
            Op::PutMany { map, .. } | Op::Delete { map, .. } | Op::Increment { map, .. } => Some(map),
            Op::Transact { map, .. } => Some(map),
            Op::Task { .. } | Op::PartitionTask { .. } => None,
        }
    }

    /// Whether it only reads. A task may write and counts as a write.
    pub fn is_read(&self) -> bool {
        matches!(self, Op::Get { .. } | Op::GetMany { .. })
    }
}

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
    },
    /// The condition did not hold; nothing was written. Carries the present entry.
    ConditionFailed(Option<StoredValue>),
    /// Deleted, or there was nothing to delete.
    Deleted {
        /// Whether there was an entry.
        existed: bool,
        /// Revision of the deletion in its partition; 0 if there was no entry. Answers that were
        /// kept before deletions had revisions are without.
        #[serde(default)]
        revision: u64,
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
}

/// A reply: what the operation gave and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What the operation gave.
    pub body: ReplyBody,
    /// Who answered, and how.
    pub served: Served,
}
