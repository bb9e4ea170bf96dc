//! Transactions, scans, sizes and clearing, both ways.

use super::options::{self, served_from_wire, served_to_wire};
use super::requests::{check_count, request};
use super::values::value_to_wire;
use super::values::{bad, check_key, check_name, check_size, new_value, stored_from_wire, stored_to_wire};
use crate::config::Limits;
use crate::error::Result;
use crate::types::{Condition, Cursor, Op, Reply, ReplyBody, Request, SLOTS, Slot, StoredValue, Value};
use bytes::Bytes;
use grid_proto::keystead::v1;
use v1::kv_reply::Result as WireResult;
use v1::kv_request::Op as WireOp;

/// Entries of a page, or of a piece of a deletion, when the request names no limit.
const DEFAULT_PAGE: u32 = 1000;

const LAST: Slot = Slot(SLOTS - 1);

fn page_limit(asked: u32, limits: &Limits) -> u32 {
    let most = u32::try_from(limits.max_page_entries).unwrap_or(u32::MAX).max(1);
    if asked == 0 { DEFAULT_PAGE.min(most) } else { asked.min(most) }
}

fn cursor_from_wire(token: &Bytes) -> Result<Option<Cursor>> {
    if token.is_empty() { Ok(None) } else { Cursor::from_token(token).map(Some) }
}

fn token(cursor: Option<Cursor>) -> Bytes {
    cursor.map(|cursor| cursor.to_token()).unwrap_or_default()
}

pub(super) fn transact_from_wire(transact: v1::TransactRequest, limits: &Limits) -> Result<Request> {
    check_name("map", &transact.map)?;
    check_count(transact.checks.len() + transact.changes.len(), limits)?;
    let (mut bytes, mut checks) = (0, Vec::with_capacity(transact.checks.len()));
    for check in transact.checks {
        check_key("key", &check.key, limits)?;
        checks.push(match check.is {
            Some(v1::check::Is::Absent(true)) => (check.key, Condition::Absent),
            Some(v1::check::Is::Present(true)) => (check.key, Condition::Present),
            Some(v1::check::Is::Revision(revision)) => (check.key, Condition::Revision(revision)),
            Some(v1::check::Is::Value(value)) => {
                let value = new_value(Some(value), limits)?;
                bytes += value.data.len();
                (check.key, Condition::Value(value))
            }
            Some(v1::check::Is::Absent(false)) => return Err(bad("a check `absent` can only be true")),
            Some(v1::check::Is::Present(false)) => return Err(bad("a check `present` can only be true")),
            None => return Err(bad("a check says nothing")),
        });
    }
    check_size("checks", bytes, limits.max_value_bytes)?;
    let (mut bytes, mut writes) = (0, Vec::with_capacity(transact.changes.len()));
    for change in transact.changes {
        check_key("key", &change.key, limits)?;
        let value = match change.does {
            Some(v1::change::Does::Put(value)) => Some(new_value(Some(value), limits)?),
            Some(v1::change::Does::Delete(true)) => None,
            Some(v1::change::Does::Delete(false)) => return Err(bad("a change `delete` can only be true")),
            None => return Err(bad("a change says nothing")),
        };
        bytes += change.key.len() + value.as_ref().map_or(0, |value| value.data.len());
        writes.push((change.key, value));
    }
    // All of them become one log entry.
    check_size("request", bytes, limits.max_value_bytes)?;
    Ok(request(options::from_wire(transact.options, limits)?, Op::Transact { map: transact.map, checks, writes }))
}

pub(super) fn scan_from_wire(scan: v1::ScanRequest, limits: &Limits) -> Result<Request> {
    check_name("map", &scan.map)?;
    check_size("prefix", scan.prefix.len(), limits.max_key_bytes)?;
    let op = Op::Scan {
        map: scan.map,
        prefix: scan.prefix,
        from: cursor_from_wire(&scan.token)?,
        until: LAST,
        limit: page_limit(scan.limit, limits),
        max_bytes: u32::try_from(limits.max_page_bytes).unwrap_or(u32::MAX),
    };
    Ok(request(options::from_wire(scan.options, limits)?, op))
}

pub(super) fn size_from_wire(size: v1::SizeRequest, limits: &Limits) -> Result<Request> {
    check_name("map", &size.map)?;
    Ok(request(options::from_wire(size.options, limits)?, Op::Size { map: size.map, slot: None }))
}

pub(super) fn clear_from_wire(clear: v1::ClearRequest, limits: &Limits) -> Result<Request> {
    check_name("map", &clear.map)?;
    let from = cursor_from_wire(&clear.token)?;
    let op = Op::Clear { map: clear.map, from, until: LAST, limit: page_limit(clear.limit, limits) };
    Ok(request(options::from_wire(clear.options, limits)?, op))
}

/// A request of this family, for the wire; `None` for others.
pub(super) fn to_wire(options: Option<v1::RequestOptions>, op: Op) -> Option<WireOp> {
    Some(match op {
        Op::Transact { map, checks, writes } => {
            // What demands nothing is no check.
            let check = |(key, condition): (Bytes, Condition)| {
                let is = match condition {
                    Condition::Always => return None,
                    Condition::Absent => v1::check::Is::Absent(true),
                    Condition::Present => v1::check::Is::Present(true),
                    Condition::Value(value) => v1::check::Is::Value(value_to_wire(value)),
                    Condition::Revision(revision) => v1::check::Is::Revision(revision),
                };
                Some(v1::Check { key, is: Some(is) })
            };
            let change = |(key, value): (Bytes, Option<Value>)| {
                let put = |value| v1::change::Does::Put(value_to_wire(value));
                v1::Change { key, does: Some(value.map_or(v1::change::Does::Delete(true), put)) }
            };
            WireOp::Transact(v1::TransactRequest {
                options,
                map,
                checks: checks.into_iter().filter_map(check).collect(),
                changes: writes.into_iter().map(change).collect(),
            })
        }
        Op::Scan { map, prefix, from, limit, .. } => {
            WireOp::Scan(v1::ScanRequest { options, map, prefix, limit, token: token(from) })
        }
        Op::Size { map, .. } => WireOp::Size(v1::SizeRequest { options, map }),
        Op::Clear { map, from, limit, .. } => {
            WireOp::Clear(v1::ClearRequest { options, map, limit, token: token(from) })
        }
        _ => return None,
    })
}

pub(crate) fn transact_reply(reply: Reply) -> Result<v1::TransactReply> {
    let served = |wrote| served_to_wire(&reply.served, wrote);
    match reply.body {
        ReplyBody::Written { revision, .. } => {
            Ok(v1::TransactReply { served: served(true), revision, ..Default::default() })
        }
        ReplyBody::CheckFailed { key, present } => Ok(v1::TransactReply {
            served: served(false),
            revision: 0,
            check_failed: true,
            failed_key: key,
            entry: present.map(stored_to_wire),
        }),
        other => Err(super::replies::unexpected(&other)),
    }
}

pub(crate) fn scan_reply(reply: Reply) -> Result<v1::ScanReply> {
    match reply.body {
        ReplyBody::Page { entries, next } => {
            let entry =
                |(key, stored): (Bytes, StoredValue)| v1::KeyedEntry { key, entry: Some(stored_to_wire(stored)) };
            Ok(v1::ScanReply {
                served: served_to_wire(&reply.served, false),
                entries: entries.into_iter().map(entry).collect(),
                next_token: token(next),
            })
        }
        other => Err(super::replies::unexpected(&other)),
    }
}

pub(crate) fn size_reply(reply: Reply) -> Result<v1::SizeReply> {
    match reply.body {
        ReplyBody::Size { entries, bytes } => {
            Ok(v1::SizeReply { served: served_to_wire(&reply.served, false), entries, bytes })
        }
        other => Err(super::replies::unexpected(&other)),
    }
}

pub(crate) fn clear_reply(reply: Reply) -> Result<v1::ClearReply> {
    match reply.body {
        ReplyBody::Cleared { deleted, next } => {
            Ok(v1::ClearReply { served: served_to_wire(&reply.served, true), deleted, next_token: token(next) })
        }
        other => Err(super::replies::unexpected(&other)),
    }
}

/// What a stream says came of a request of this family; `None` for others.
pub(super) fn reply_from_wire(result: WireResult) -> Option<Result<Reply>> {
    let read = |served, body: Result<ReplyBody>| Ok(Reply { body: body?, served: served_from_wire(served)? });
    Some(match result {
        WireResult::Transact(transact) => {
            let body = match transact.check_failed {
                true => transact
                    .entry
                    .map(stored_from_wire)
                    .transpose()
                    .map(|present| ReplyBody::CheckFailed { key: transact.failed_key, present }),
                false => Ok(ReplyBody::Written { revision: transact.revision, previous: None }),
            };
            read(transact.served, body)
        }
        WireResult::Scan(scan) => {
            let entry = |keyed: v1::KeyedEntry| {
                let stored = keyed.entry.ok_or_else(|| bad("a page has a key without its entry"))?;
                Ok((keyed.key, stored_from_wire(stored)?))
            };
            let entries: Result<Vec<_>> = scan.entries.into_iter().map(entry).collect();
            let page = |entries| Ok(ReplyBody::Page { entries, next: cursor_from_wire(&scan.next_token)? });
            read(scan.served, entries.and_then(page))
        }
        WireResult::Size(size) => read(size.served, Ok(ReplyBody::Size { entries: size.entries, bytes: size.bytes })),
        WireResult::Clear(clear) => {
            let next = cursor_from_wire(&clear.next_token);
            read(clear.served, next.map(|next| ReplyBody::Cleared { deleted: clear.deleted, next }))
        }
        _ => return None,
    })
}
