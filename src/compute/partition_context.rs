//! What a partition task sees of the grid: all slots of its partition.
//!
//! It runs in the partition's turn, like any task: whatever else the partition has to do waits
//! for it, and it overruns at the same deadline. So it is for short work; what reads a whole
//! partition that may be large belongs into a scatter or a job task, which run beside the turn.

use super::TaskContext;
use super::context::Entries;
use super::replicated::Replicated;
use crate::error::Result;
use crate::partition::Place;
use crate::types::{Schema, Slot, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where the next page of a partition begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub(super) after: Option<Place>,
    pub(super) ended: bool,
}

impl Cursor {
    /// Whether there are no more entries.
    pub fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn advance(&mut self, next: Option<Place>) {
        self.ended = next.is_none();
        self.after = next;
    }
}

/// The entries of a task's partition. It may read and write every key whose slot lies in the
/// partition; all that it writes commits in one log entry, with its answer.
pub struct PartitionContext<'c, 'a> {
    inner: &'c mut TaskContext<'a>,
}

impl<'c, 'a> PartitionContext<'c, 'a> {
    pub(super) fn new(inner: &'c mut TaskContext<'a>) -> Self {
        PartitionContext { inner }
    }

    /// The partition's first and last slot.
    pub fn slots(&self) -> (Slot, Slot) {
        self.inner.slots()
    }

    /// The partition's time at this call, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }

    /// A replicated map, as this peer's copy has it.
    pub fn replicated(&self, map: &str) -> Replicated<'a> {
        self.inner.replicated(map)
    }

    /// The next entries of a map, at most `limit` and about 256 KiB; by slot, and by key within a
    /// slot. Begin with a default cursor; it says when there are no more.
    ///
    /// # Errors
    /// `NoSuchMap`, `CorruptRow`.
    pub fn page(&mut self, map: &str, cursor: &mut Cursor, limit: usize) -> Result<Entries> {
        if cursor.ended {
            return Ok(Entries::new());
        }
        let (entries, next) = self.inner.page(map, cursor.after.as_ref(), limit)?;
        cursor.advance(next);
        Ok(entries)
    }

    /// As [`TaskContext::get_value`].
    ///
    /// # Errors
    /// `TaskOutsideSlot`, `NoSuchMap`, `CorruptRow`.
    pub fn get_value(&mut self, map: &str, key: &[u8]) -> Result<Option<Value>> {
        self.inner.get_value(map, key)
    }

    /// As [`TaskContext::get`].
    ///
    /// # Errors
    /// As [`TaskContext::get`].
    pub fn get<T: DeserializeOwned>(&mut self, map: &str, key: &[u8]) -> Result<Option<T>> {
        self.inner.get(map, key)
    }

    /// As [`TaskContext::put_value`].
    ///
    /// # Errors
    /// As [`TaskContext::put_value`].
    pub fn put_value(&mut self, map: &str, key: &[u8], value: Value) -> Result<()> {
        self.inner.put_value(map, key, value)
    }

    /// As [`TaskContext::put`].
    ///
    /// # Errors
    /// As [`TaskContext::put`].
    pub fn put<T: Serialize + ?Sized>(&mut self, map: &str, key: &[u8], value: &T) -> Result<()> {
        self.inner.put(map, key, value)
    }

    /// As [`TaskContext::update_as`].
    ///
    /// # Errors
    /// As [`TaskContext::update_as`].
    pub fn update_as<T: Serialize + DeserializeOwned>(
        &mut self,
        schema: Schema,
        map: &str,
        key: &[u8],
        change: impl FnOnce(Option<T>) -> Option<T>,
    ) -> Result<Option<T>> {
        self.inner.update_as(schema, map, key, change)
    }

    /// As [`TaskContext::delete`].
    ///
    /// # Errors
    /// As [`TaskContext::delete`].
    pub fn delete(&mut self, map: &str, key: &[u8]) -> Result<()> {
        self.inner.delete(map, key)
    }
}
