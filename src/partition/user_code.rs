//! The port through which an executor runs user code. `compute` implements it: user code never
//! runs on the threads of Raft, network or log, and sees nothing but its slot, or, as a partition
//! task, its partition.

use crate::error::{Code, Error, Result};
use crate::types::{MapDescriptor, Slot, StoredValue, TaskPayload, Value, affinity_of, slot_of};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A partition's entries, as a task's turn finds them.
pub trait SlotView: Send + Sync + 'static {
    /// The entry of a key in a slot.
    ///
    /// # Errors
    /// `NoSuchMap`, `CorruptRow`.
    fn get(&self, slot: Slot, map: &str, key: &[u8]) -> Result<Option<StoredValue>>;

    /// What a map is; `None` where that is not known.
    fn descriptor(&self, _map: &str) -> Option<MapDescriptor> {
        None
    }

    /// The entries of a slot whose keys start with `prefix`, in key order, at most `limit`.
    ///
    /// # Errors
    /// `NoSuchMap`, `CorruptRow`.
    fn scan(&self, slot: Slot, map: &str, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, StoredValue)>>;

    /// An entry of this peer's copy of a replicated map, and the revision that the copy is of.
    ///
    /// # Errors
    /// `NoSuchMap`; `NoLocalCopy` for a map that is not replicated, or not yet here.
    fn replicated(&self, map: &str, _key: &[u8]) -> Result<(Option<StoredValue>, u64)> {
        Err(Error::new(Code::NoLocalCopy, format!("there is no copy of the map {map:?}")))
    }

    /// The entries of a map in these slots (first and last), by slot and key, after `after`; at
    /// most `limit`, and no more once [`PAGE_BYTES`] are reached.
    ///
    /// # Errors
    /// `NoSuchMap`, `CorruptRow`.
    fn page(&self, slots: (Slot, Slot), map: &str, after: Option<&Place>, limit: usize) -> Result<Page>;
}

/// Where an entry stands in the order of a partition's pages: slot and key.
pub type Place = (Slot, Bytes);

/// Some entries of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries with their places, in order.
    pub entries: Vec<(Place, StoredValue)>,
    /// Whether there may be more after the last of them.
    pub more: bool,
}

/// Bytes of keys and values at which a page is full.
pub const PAGE_BYTES: usize = 256 << 10;

/// One task to run.
#[derive(Clone, Debug)]
pub struct TaskCall {
    /// The registered name.
    pub name: String,
    /// The slot that it may touch; of a partition task the partition's first.
    pub slot: Slot,
    /// For a partition task: the partition's last slot.
    pub last_slot: Option<Slot>,
    /// The affinity that the caller named, if any: then every key it touches lives there.
    pub affinity: Option<Bytes>,
    /// The key it was submitted by.
    pub key: Bytes,
    /// What it is given.
    pub payload: TaskPayload,
    /// How long the handler may run.
    pub deadline: Duration,
    /// The partition's time at this call, Unix milliseconds: the only clock a task has that all
    /// its retries share.
    pub now_ms: u64,
}

impl TaskCall {
    /// The slots that it may touch, first and last.
    pub fn slots(&self) -> (Slot, Slot) {
        (self.slot, self.last_slot.unwrap_or(self.slot))
    }

    /// The slot of a key, if the call may touch it.
    pub fn slot_of(&self, key: &[u8]) -> Option<Slot> {
        // An affinity that the caller named decides for every key of the request.
        if self.affinity.is_some() {
            return Some(self.slot);
        }
        let (first, last) = self.slots();
        Some(slot_of(affinity_of(key))).filter(|slot| (first..=last).contains(slot))
    }
}

/// A write that a task made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskWrite {
    /// The map.
    pub map: String,
    /// The slot that the key lives in; one that the task may touch.
    pub slot: Slot,
    /// The key.
    pub key: Bytes,
    /// The new value; `None` deletes.
    pub value: Option<Value>,
}

/// How a task ended. On an error there are no writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskOutcome {
    /// The answer or the coded error; either is committed and kept for retries.
    pub answer: std::result::Result<TaskPayload, Error>,
    /// Its writes, in order; at most one per (map, key).
    pub writes: Vec<TaskWrite>,
}

/// Runs user code on threads of its own.
#[async_trait::async_trait]
pub trait TaskRunner: Send + Sync + 'static {
    /// Runs the calls one after the other: each sees the writes of those before it. Never fails
    /// as a whole; an overrun or a panic is that call's outcome, and the others still run.
    async fn run(&self, view: Arc<dyn SlotView>, calls: Vec<TaskCall>) -> Vec<TaskOutcome>;

    /// The registered names, sorted.
    fn names(&self) -> Vec<String>;

    /// Entries that tasks have read since the start, all from local state.
    fn state_reads(&self) -> u64;

    /// How many threads are stuck in user code that overran.
    fn stuck_threads(&self) -> usize;
}
