//! Requests as the grid's inside sees them: independent of gRPC. A request travels between peers in
//! MessagePack with a leading version byte (see `node`); the edge translates.

use crate::types::{Cursor, HybridTime, JobId, JobStep, MapId, NumberRange, Reach, SessionId, Slot, Value, ValueCodec};
use crate::types::{affinity_of, slot_of};
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
    /// There is an entry, whatever it holds.
    Present,
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
        /// Whether the reply carries the entry that was there before.
        #[serde(default)]
        previous: bool,
        /// Milliseconds that the entry lives; 0: for good; `None`: as its map says.
        #[serde(default)]
        ttl_ms: Option<u64>,
    },
    /// Gives an entry a new time to live, and keeps its value. A write: it has a revision.
    Touch {
        /// The map.
        map: String,
        /// The key.
        key: Bytes,
        /// Milliseconds that the entry lives from now on; 0: for good; `None`: as its map says.
        ttl_ms: Option<u64>,
    },
    /// Writes several entries of one partition. Within one log entry: atomic.
    PutMany {
        /// The map.
        map: String,
        /// The entries; all of one partition.
        entries: Vec<(Bytes, Value)>,
    },
    /// Deletes one entry if the condition holds.
    Delete {
        /// The map.
        map: String,
        /// The key.
        key: Bytes,
        /// What must hold of the present entry.
        #[serde(default)]
        condition: Condition,
        /// Whether the reply carries the entry that was there.
        #[serde(default)]
        previous: bool,
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
    /// Writes several entries of one slot if what is demanded of each named entry holds: all or
    /// nothing, in one log entry.
    Transact {
        /// The map.
        map: String,
        /// What must hold: key and condition.
        checks: Vec<(Bytes, Condition)>,
        /// What to write: key and value; `None` deletes.
        writes: Vec<(Bytes, Option<Value>)>,
    },
    /// Reads a page of a map's entries, by partition, slot and key. A page is one moment of each
    /// partition that it touches; several pages are several moments.
    Scan {
        /// The map.
        map: String,
        /// What the keys start with; empty for all.
        prefix: Bytes,
        /// Where the last page ended; `None` begins.
        from: Option<Cursor>,
        /// The last slot to look at.
        until: Slot,
        /// Most entries of the page.
        limit: u32,
        /// Bytes of keys and values at which the page is full.
        max_bytes: u32,
    },
    /// Counts a map's entries and their bytes.
    Size {
        /// The map.
        map: String,
        /// Only in the partition that holds this slot; `None` in all.
        slot: Option<Slot>,
    },
    /// Deletes a map's entries, some at a time, in the order of a scan.
    Clear {
        /// The map.
        map: String,
        /// Where the last time ended; `None` begins.
        from: Option<Cursor>,
        /// The last slot to look at.
        until: Slot,
        /// Most entries to delete.
        limit: u32,
    },
    /// For a map that was dropped: nothing is written to it any more in the partition that holds
    /// the slot, and some of its entries there are deleted. Said between peers only.
    Forget {
        /// The map that was.
        map: MapId,
        /// A slot of the partition.
        slot: Slot,
        /// Most entries to delete.
        limit: u32,
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
    /// Reads nothing, linearizably: answered when this partition's leader has applied everything
    /// that was acknowledged before.
    Barrier {
        /// A slot of the partition.
        slot: Slot,
    },
    /// A step in the life of a job task, or of all of a partition's.
    Job {
        /// A slot of the partition: the job's own.
        slot: Slot,
        /// The job; 0 for steps that concern all.
        id: JobId,
        /// The step.
        step: JobStep,
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
    /// The lowest number the client still waits for: answers below it may be forgotten, and a write below it
    /// that comes late is refused.
    pub lowest_unanswered: u64,
    /// The number of the session's previous write to the same slot, if that is still unanswered.
    pub previous: Option<u64>,
    /// The grid's time, as the client knew it, when the write was first sent. Of an unknown
    /// session a partition executes only what was first sent after it last forgot a session.
    pub first_sent: HybridTime,
    /// Ranges of lower numbers, above the lowest unanswered one, that the client does not wait for either:
    /// writes to the same slots that it has given up are in them. One that comes late is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<NumberRange>,
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

impl Request {
    /// The slots that it may write to.
    pub fn reach(&self) -> Reach {
        let slot =
            |key: &Bytes| self.affinity.as_ref().map_or_else(|| slot_of(affinity_of(key)), |named| slot_of(named));
        let mut reach: Reach = match &self.op {
            // They walk over slots.
            Op::PartitionTask { .. } | Op::Clear { .. } | Op::Forget { .. } => return Reach::new(),
            Op::PutMany { entries, .. } => entries.iter().map(|(key, _)| slot(key)).collect(),
            op => op.slot().or_else(|| op.routing_key().map(slot)).into_iter().collect(),
        };
        reach.sort_unstable();
        reach.dedup();
        reach
    }
}

/// What decides which partition executes an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The key's affinity, or the one that the caller named.
    Key(&'a Bytes),
    /// The partition that holds this slot.
    Slot(Slot),
    /// Several partitions: any peer takes it and asks each of them.
    Grid,
    /// Nothing: it names no key.
    Nowhere,
}

impl Op {
    /// What decides where the operation goes. One that walks over slots goes to the partition that
    /// it stands in.
    pub fn target(&self) -> Target<'_> {
        match (self.routing_key(), self.slot()) {
            (Some(key), _) => Target::Key(key),
            (None, Some(slot)) => Target::Slot(slot),
            (None, None) if matches!(self, Op::Size { .. }) => Target::Grid,
            (None, None) => Target::Nowhere,
        }
    }

    /// The key that decides where the operation goes (the first, for many).
    pub fn routing_key(&self) -> Option<&Bytes> {
        match self {
            Op::Get { key, .. } | Op::Put { key, .. } | Op::Delete { key, .. } => Some(key),
            Op::Increment { key, .. } | Op::Touch { key, .. } | Op::Task { key, .. } => Some(key),
            Op::GetMany { keys, .. } => keys.first(),
            Op::PutMany { entries, .. } => entries.first().map(|(key, _)| key),
            Op::Transact { checks, writes, .. } => {
                checks.first().map(|(key, _)| key).or_else(|| writes.first().map(|(key, _)| key))
            }
            Op::PartitionTask { .. } | Op::Barrier { .. } | Op::Job { .. } => None,
            Op::Scan { .. } | Op::Size { .. } | Op::Clear { .. } | Op::Forget { .. } => None,
        }
    }

    /// The slot that it is addressed by, if it names no key.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Op::PartitionTask { slots, .. } => Some(slots.0),
            Op::Barrier { slot } | Op::Job { slot, .. } => Some(*slot),
            Op::Scan { from, .. } | Op::Clear { from, .. } => Some(from.as_ref().map_or(Slot(0), |from| from.slot)),
            Op::Size { slot, .. } => *slot,
            Op::Forget { slot, .. } => Some(*slot),
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

    /// The map it names; `None` for a task, and for what is said of a map that was dropped.
    pub fn map(&self) -> Option<&str> {
        match self {
            Op::Get { map, .. } | Op::GetMany { map, .. } | Op::Put { map, .. } => Some(map),
            Op::PutMany { map, .. } | Op::Delete { map, .. } | Op::Increment { map, .. } => Some(map),
            Op::Touch { map, .. } => Some(map),
            Op::Transact { map, .. } | Op::Scan { map, .. } | Op::Size { map, .. } | Op::Clear { map, .. } => Some(map),
            Op::Task { .. } | Op::PartitionTask { .. } | Op::Forget { .. } | Op::Barrier { .. } | Op::Job { .. } => {
                None
            }
        }
    }

    /// Whether it only reads. A task may write and counts as a write.
    pub fn is_read(&self) -> bool {
        match self {
            Op::Get { .. } | Op::GetMany { .. } | Op::Scan { .. } | Op::Size { .. } | Op::Barrier { .. } => true,
            Op::Job { step, .. } => matches!(step, JobStep::Get | JobStep::List),
            _ => false,
        }
    }
}
