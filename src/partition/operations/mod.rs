//! The operations on entries: a view and a request in, a reply and row writes out, one file per
//! family. Pure: the executor decides when a reply may leave and what becomes of the writes.

mod checks;
mod conditions;
mod entries;
mod numbers;
mod transact;

pub use checks::{check_entry, check_key};

use super::entry::{RemovalCause, RowWrite};
use super::overlay::View;
use super::rows;
use crate::error::{Error, Result};
use crate::types::{MapDescriptor, Op, ReplyBody, Request, Slot, StoredValue, Value, affinity_of, slot_of};
use bytes::Bytes;

/// The slot of a key in a request: of the affinity that the caller named, else of the key's own.
pub fn slot_in(request: &Request, key: &[u8]) -> Slot {
    match &request.affinity {
        Some(affinity) => slot_of(affinity),
        None => slot_of(affinity_of(key)),
    }
}

/// What an operation did.
#[derive(Debug)]
pub(super) struct Done {
    /// The reply.
    pub body: ReplyBody,
    /// The rows it writes; empty for a read, and for a write that changed nothing.
    pub writes: Vec<RowWrite>,
}

impl Done {
    fn read(body: ReplyBody) -> Result<Self> {
        Ok(Done { body, writes: Vec::new() })
    }
}

/// What an operation sees and may raise while it is executed.
struct Scope<'a> {
    view: &'a View,
    map: &'a MapDescriptor,
    request: &'a Request,
    /// The partition's newest revision; raised once per operation that writes.
    revision: &'a mut u64,
}

impl Scope<'_> {
    fn slot(&self, key: &[u8]) -> Slot {
        slot_in(self.request, key)
    }

    fn row(&self, key: &[u8]) -> Bytes {
        rows::map_row(self.slot(key), self.map.id, key)
    }

    /// The entry of a key.
    fn present(&self, key: &Bytes) -> Result<Option<StoredValue>> {
        self.view.entry(self.slot(key), self.map.id, key)
    }

    /// The revision of what is about to be written.
    fn next_revision(&mut self) -> u64 {
        *self.revision += 1;
        *self.revision
    }

    /// The row that puts a value under a key, at the present revision.
    fn put(&self, key: &[u8], value: &Value) -> RowWrite {
        let stored = StoredValue { revision: *self.revision, value: value.clone() };
        RowWrite::put(self.row(key), stored.encode())
    }

    /// The row that deletes a key's entry, at the present revision. Only for entries that are
    /// there: who follows changes is told of it.
    fn delete(&self, key: &[u8]) -> RowWrite {
        RowWrite::remove(self.row(key), *self.revision, RemovalCause::Deleted)
    }
}

/// Executes an operation that is not a task. `revision` is the partition's newest; it is raised
/// for what is written, once per operation.
///
/// # Errors
/// `WrongCodec`, `NumberOverflow`, `CrossSlot`, `CorruptRow`: nothing is written.
pub(super) fn execute(view: &View, map: &MapDescriptor, request: &Request, revision: &mut u64) -> Result<Done> {
    let mut scope = Scope { view, map, request, revision };
    match &request.op {
        Op::Get { key, .. } => entries::get(&scope, key),
        Op::GetMany { keys, .. } => entries::get_many(&scope, keys),
        Op::Put { key, value, condition, .. } => entries::put(&mut scope, key, value, condition),
        Op::PutMany { entries, .. } => entries::put_many(&mut scope, entries),
        Op::Delete { key, .. } => entries::delete(&mut scope, key),
        Op::Increment { key, delta, .. } => numbers::increment(&mut scope, key, *delta),
        Op::Transact { checks, writes, .. } => transact::transact(&mut scope, checks, writes),
        Op::Task { .. } | Op::PartitionTask { .. } => {
            Err(Error::internal("a task came where only operations are executed"))
        }
    }
}
