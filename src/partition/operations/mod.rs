//! The operations on entries: a view and a request in, a reply and row writes out, one file per
//! family. Pure: the executor decides when a reply may leave and what becomes of the writes.

mod checks;
mod conditions;
mod entries;
mod numbers;
mod transact;
mod walks;

pub use checks::{check_entry, check_key};

use super::entry::{RemovalCause, RowWrite};
use super::expiry::expires_at;
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

    /// When an entry expires that is written now; without a time to live, by what its map says.
    fn expires_at(&self, ttl_ms: Option<u64>) -> u64 {
        expires_at(self.view.now_ms(), ttl_ms, &self.map.options)
    }

    /// The row that puts a value under a key, at the present revision, for the map's time to live.
    fn put(&self, key: &[u8], value: &Value) -> RowWrite {
        self.put_until(key, value, self.expires_at(None))
    }

    /// The row that puts a value under a key, at the present revision, until a time (0: for good).
    fn put_until(&self, key: &[u8], value: &Value, expires_ms: u64) -> RowWrite {
        let stored = StoredValue { revision: *self.revision, value: value.clone(), expires_ms };
        RowWrite::put(self.row(key), stored.encode())
    }

    /// What deletes a key's entry, at the present revision. Only for entries that are there: who
    /// follows changes is told of it.
    fn delete(&self, key: &[u8]) -> RowWrite {
        self.remove(self.row(key))
    }

    /// What deletes an entry's row, at the present revision.
    fn remove(&self, row: Bytes) -> RowWrite {
        RowWrite::remove(row, *self.revision, RemovalCause::Deleted)
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
        Op::Put { key, value, condition, previous, ttl_ms, .. } => {
            entries::put(&mut scope, key, value, condition, *previous, *ttl_ms)
        }
        Op::Touch { key, ttl_ms, .. } => entries::touch(&mut scope, key, *ttl_ms),
        Op::PutMany { entries, .. } => entries::put_many(&mut scope, entries),
        Op::Delete { key, condition, previous, .. } => entries::delete(&mut scope, key, condition, *previous),
        Op::Increment { key, delta, .. } => numbers::increment(&mut scope, key, *delta),
        Op::Transact { checks, writes, .. } => transact::transact(&mut scope, checks, writes),
        Op::Barrier { .. } => Done::read(ReplyBody::Entries(Vec::new())),
        Op::Scan { prefix, from, until, limit, max_bytes, .. } => {
            let bounds = walks::Bounds { limit: *limit, bytes: *max_bytes };
            walks::scan(&scope, prefix, from.as_ref(), *until, bounds)
        }
        Op::Size { .. } => walks::size(&scope),
        Op::Clear { from, until, limit, .. } => walks::clear(&mut scope, from.as_ref(), *until, *limit),
        Op::Forget { .. } => Err(Error::internal("a map that was dropped came as one that there is")),
        Op::Task { .. } | Op::PartitionTask { .. } | Op::Job { .. } => {
            Err(Error::internal("a task came where only operations are executed"))
        }
    }
}

/// The rows whose values a request will read, as far as its keys, and those that there are, tell.
pub fn rows_read(view: &View, map: &MapDescriptor, request: &Request) -> Vec<Bytes> {
    let scope = Scope { view, map, request, revision: &mut 0 };
    match &request.op {
        Op::GetMany { keys, .. } => keys.iter().map(|key| scope.row(key)).collect(),
        Op::Transact { checks, .. } => checks.iter().map(|(key, _)| scope.row(key)).collect(),
        Op::Scan { prefix, from, until, limit, max_bytes, .. } => {
            let bounds = walks::Bounds { limit: *limit, bytes: *max_bytes };
            // What is wrong with the request is said when it is executed.
            let page = walks::page(&scope, prefix, from.as_ref(), *until, bounds);
            page.map(|(rows, _)| rows.into_iter().map(|found| found.row).collect()).unwrap_or_default()
        }
        // These ask at most whether an entry is there, and keys are always in RAM.
        Op::PutMany { .. } | Op::Task { .. } => Vec::new(),
        op => op.routing_key().map(|key| scope.row(key)).into_iter().collect(),
    }
}

/// Answers a request that only reads, from what a view shows.
///
/// # Errors
/// `InvalidRequest`, `CorruptRow`; `Internal` for a request that writes.
pub fn read(view: &View, map: &MapDescriptor, request: &Request) -> Result<ReplyBody> {
    if !request.op.is_read() {
        return Err(Error::internal("a write came where only reads are answered"));
    }
    execute(view, map, request, &mut 0).map(|done| done.body)
}

#[cfg(test)]
mod tests;
