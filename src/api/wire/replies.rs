//! Replies, both ways.

use super::options::{served_from_wire, served_to_wire};
use super::values::{bad, payload_from_wire, payload_to_wire, stored_from_wire, stored_to_wire};
use super::{error_from_wire, error_to_wire, walks};
use crate::error::{Error, Result};
use crate::types::{Reply, ReplyBody, StoredValue};
use grid_proto::keystead::v1;
use v1::kv_reply::Result as WireResult;
use v1::task_reply::Result as WireTaskResult;

/// What kind of operation a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads one entry.
    Get,
    /// Writes one entry.
    Put,
    /// Gives an entry a new time to live.
    Touch,
    /// Deletes one entry.
    Delete,
    /// Adds to a number.
    Increment,
    /// Reads several entries.
    GetMany,
    /// Writes several entries.
    PutMany,
    /// Writes several entries of one slot, all or nothing.
    Transact,
    /// Reads a page of entries.
    Scan,
    /// Counts entries.
    Size,
    /// Deletes all entries.
    Clear,
}

pub(super) fn unexpected(body: &ReplyBody) -> Error {
    Error::internal(format!("a reply of another kind than its request: {body:?}"))
}

pub(crate) fn get_reply(reply: Reply) -> Result<v1::GetReply> {
    match reply.body {
        ReplyBody::Entry(entry) => {
            Ok(v1::GetReply { served: served_to_wire(&reply.served, false), entry: entry.map(stored_to_wire) })
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn put_reply(reply: Reply) -> Result<v1::PutReply> {
    match reply.body {
        ReplyBody::Written { revision, previous } => Ok(v1::PutReply {
            served: served_to_wire(&reply.served, true),
            revision,
            previous: previous.map(stored_to_wire),
            ..Default::default()
        }),
        ReplyBody::ConditionFailed(entry) => Ok(v1::PutReply {
            served: served_to_wire(&reply.served, false),
            condition_failed: true,
            entry: entry.map(stored_to_wire),
            ..Default::default()
        }),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn touch_reply(reply: Reply) -> Result<v1::TouchReply> {
    match reply.body {
        ReplyBody::Touched { existed, revision } => {
            Ok(v1::TouchReply { served: served_to_wire(&reply.served, true), existed, revision })
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn delete_reply(reply: Reply) -> Result<v1::DeleteReply> {
    match reply.body {
        ReplyBody::Deleted { existed, revision, previous } => Ok(v1::DeleteReply {
            served: served_to_wire(&reply.served, true),
            existed,
            revision,
            previous: previous.map(stored_to_wire),
            ..Default::default()
        }),
        ReplyBody::ConditionFailed(entry) => Ok(v1::DeleteReply {
            served: served_to_wire(&reply.served, false),
            condition_failed: true,
            entry: entry.map(stored_to_wire),
            ..Default::default()
        }),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn increment_reply(reply: Reply) -> Result<v1::IncrementReply> {
    match reply.body {
        ReplyBody::Number { value, revision } => {
            Ok(v1::IncrementReply { served: served_to_wire(&reply.served, true), value, revision })
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn get_many_reply(reply: Reply) -> Result<v1::GetManyReply> {
    match reply.body {
        ReplyBody::Entries(entries) => {
            let maybe = |entry: Option<StoredValue>| v1::MaybeEntry { entry: entry.map(stored_to_wire) };
            Ok(v1::GetManyReply {
                served: served_to_wire(&reply.served, false),
                entries: entries.into_iter().map(maybe).collect(),
            })
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn put_many_reply(reply: Reply) -> Result<v1::PutManyReply> {
    match reply.body {
        ReplyBody::Written { revision, .. } => {
            Ok(v1::PutManyReply { served: served_to_wire(&reply.served, true), revision })
        }
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn submit_reply(reply: Reply) -> Result<v1::SubmitReply> {
    match reply.body {
        ReplyBody::Task(answer) => {
            Ok(v1::SubmitReply { served: served_to_wire(&reply.served, true), answer: Some(payload_to_wire(answer)) })
        }
        other => Err(unexpected(&other)),
    }
}

/// What came of a `Kv` request, for a stream.
pub fn kv_reply_to_wire(kind: Kind, outcome: Result<Reply>) -> WireResult {
    let result = outcome.and_then(|reply| {
        Ok(match kind {
            Kind::Get => WireResult::Get(get_reply(reply)?),
            Kind::Put => WireResult::Put(put_reply(reply)?),
            Kind::Touch => WireResult::Touch(touch_reply(reply)?),
            Kind::Delete => WireResult::Delete(delete_reply(reply)?),
            Kind::Increment => WireResult::Increment(increment_reply(reply)?),
            Kind::GetMany => WireResult::GetMany(get_many_reply(reply)?),
            Kind::PutMany => WireResult::PutMany(put_many_reply(reply)?),
            Kind::Transact => WireResult::Transact(walks::transact_reply(reply)?),
            Kind::Scan => WireResult::Scan(walks::scan_reply(reply)?),
            Kind::Size => WireResult::Size(walks::size_reply(reply)?),
            Kind::Clear => WireResult::Clear(walks::clear_reply(reply)?),
        })
    });
    result.unwrap_or_else(|error| WireResult::Error(error_to_wire(&error)))
}

/// What came of a task, for a stream.
pub fn task_reply_to_wire(outcome: Result<Reply>) -> WireTaskResult {
    let result = outcome.and_then(submit_reply).map(WireTaskResult::Submit);
    result.unwrap_or_else(|error| WireTaskResult::Error(error_to_wire(&error)))
}

fn reply(served: Option<v1::Served>, body: ReplyBody) -> Result<Reply> {
    Ok(Reply { body, served: served_from_wire(served)? })
}

fn maybe_stored(entry: Option<v1::StoredValue>) -> Result<Option<StoredValue>> {
    entry.map(stored_from_wire).transpose()
}

/// What a `Kv` stream says came of a request.
///
/// # Errors
/// The error that it carries; `InvalidRequest` when the message is not readable.
pub fn kv_reply_from_wire(result: Option<WireResult>) -> Result<Reply> {
    match result.ok_or_else(|| bad("a reply says nothing"))? {
        WireResult::Error(error) => Err(error_from_wire(error)),
        WireResult::Get(get) => reply(get.served, ReplyBody::Entry(maybe_stored(get.entry)?)),
        WireResult::Put(put) if put.condition_failed => {
            reply(put.served, ReplyBody::ConditionFailed(maybe_stored(put.entry)?))
        }
        WireResult::Put(put) => {
            let previous = maybe_stored(put.previous)?;
            reply(put.served, ReplyBody::Written { revision: put.revision, previous })
        }
        WireResult::Delete(delete) if delete.condition_failed => {
            reply(delete.served, ReplyBody::ConditionFailed(maybe_stored(delete.entry)?))
        }
        WireResult::Delete(delete) => {
            let previous = maybe_stored(delete.previous)?;
            reply(delete.served, ReplyBody::Deleted { existed: delete.existed, revision: delete.revision, previous })
        }
        WireResult::Touch(touch) => {
            reply(touch.served, ReplyBody::Touched { existed: touch.existed, revision: touch.revision })
        }
        WireResult::Increment(number) => {
            reply(number.served, ReplyBody::Number { value: number.value, revision: number.revision })
        }
        WireResult::GetMany(many) => {
            let entries: Result<Vec<_>> = many.entries.into_iter().map(|maybe| maybe_stored(maybe.entry)).collect();
            reply(many.served, ReplyBody::Entries(entries?))
        }
        WireResult::PutMany(many) => reply(many.served, ReplyBody::Written { revision: many.revision, previous: None }),
        other => walks::reply_from_wire(other).unwrap_or_else(|| Err(bad("a reply of an unknown kind"))),
    }
}

/// What a `Tasks` stream says came of a task.
///
/// # Errors
/// As [`kv_reply_from_wire`].
pub fn task_reply_from_wire(result: Option<WireTaskResult>) -> Result<Reply> {
    match result.ok_or_else(|| bad("a reply says nothing"))? {
        WireTaskResult::Error(error) => Err(error_from_wire(error)),
        WireTaskResult::Submit(submit) => reply(submit.served, ReplyBody::Task(payload_from_wire(submit.answer)?)),
    }
}
