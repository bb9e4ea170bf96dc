//! Requests, both ways.

use super::values::{bad, check_key, check_name, check_size, new_value, payload_from_wire, payload_to_wire};
use super::values::{value_from_wire, value_to_wire};
use super::{Kind, options, walks};
use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::types::{Condition, Op, Request, check_ttl};
use bytes::Bytes;
use grid_proto::keystead::v1;
use v1::kv_request::Op as WireOp;

pub(super) fn request(checked: options::Checked, op: Op) -> Request {
    Request {
        affinity: checked.affinity,
        op,
        read: checked.read,
        ack: checked.ack,
        stamp: checked.stamp,
        deadline_ms: checked.deadline_ms,
    }
}

fn check_entry(map: &str, key: &Bytes, limits: &Limits) -> Result<()> {
    check_name("map", map)?;
    check_key("key", key, limits)
}

pub(super) fn check_count(count: usize, limits: &Limits) -> Result<()> {
    if count == 0 {
        return Err(bad("the request names no key"));
    }
    if count > limits.max_keys_per_request {
        let what = format!("the request has {count} keys; the limit is {}", limits.max_keys_per_request);
        return Err(Error::new(Code::TooLarge, what));
    }
    Ok(())
}

fn condition_from_wire(condition: Option<v1::Condition>) -> Result<Condition> {
    use v1::condition::Is;
    let Some(condition) = condition else { return Ok(Condition::Always) };
    match condition.is {
        None => Err(bad("the condition says nothing")),
        Some(Is::Absent(true)) => Ok(Condition::Absent),
        Some(Is::Absent(false)) => Err(bad("the condition `absent` can only be true")),
        Some(Is::Value(value)) => Ok(Condition::Value(value_from_wire(value)?)),
        Some(Is::Revision(revision)) => Ok(Condition::Revision(revision)),
        Some(Is::Present(true)) => Ok(Condition::Present),
        Some(Is::Present(false)) => Err(bad("the condition `present` can only be true")),
    }
}

fn condition_to_wire(condition: Condition) -> Option<v1::Condition> {
    use v1::condition::Is;
    let is = match condition {
        Condition::Always => return None,
        Condition::Absent => Is::Absent(true),
        Condition::Present => Is::Present(true),
        Condition::Value(value) => Is::Value(value_to_wire(value)),
        Condition::Revision(revision) => Is::Revision(revision),
    };
    Some(v1::Condition { is: Some(is) })
}

/// Checks a request to the `Kv` service.
///
/// # Errors
/// `InvalidRequest`, `InvalidName`, `TooLarge`, `WrongCodec`.
pub fn kv_request_from_wire(op: Option<WireOp>, limits: &Limits) -> Result<(Kind, Request)> {
    Ok(match op {
        None => return Err(bad("the request names no operation")),
        Some(WireOp::Get(get)) => (Kind::Get, get_from_wire(get, limits)?),
        Some(WireOp::Put(put)) => (Kind::Put, put_from_wire(put, limits)?),
        Some(WireOp::Delete(delete)) => (Kind::Delete, delete_from_wire(delete, limits)?),
        Some(WireOp::Increment(increment)) => (Kind::Increment, increment_from_wire(increment, limits)?),
        Some(WireOp::GetMany(many)) => (Kind::GetMany, get_many_from_wire(many, limits)?),
        Some(WireOp::PutMany(many)) => (Kind::PutMany, put_many_from_wire(many, limits)?),
        Some(WireOp::Touch(touch)) => (Kind::Touch, touch_from_wire(touch, limits)?),
        Some(WireOp::Transact(transact)) => (Kind::Transact, walks::transact_from_wire(transact, limits)?),
        Some(WireOp::Scan(scan)) => (Kind::Scan, walks::scan_from_wire(scan, limits)?),
        Some(WireOp::Size(size)) => (Kind::Size, walks::size_from_wire(size, limits)?),
        Some(WireOp::Clear(clear)) => (Kind::Clear, walks::clear_from_wire(clear, limits)?),
    })
}

fn get_from_wire(get: v1::GetRequest, limits: &Limits) -> Result<Request> {
    check_entry(&get.map, &get.key, limits)?;
    Ok(request(options::from_wire(get.options, limits)?, Op::Get { map: get.map, key: get.key }))
}

fn put_from_wire(put: v1::PutRequest, limits: &Limits) -> Result<Request> {
    check_entry(&put.map, &put.key, limits)?;
    let value = new_value(put.value, limits)?;
    let condition = condition_from_wire(put.condition)?;
    check_ttl(put.ttl_ms.unwrap_or(0))?;
    let (previous, ttl_ms) = (put.return_previous, put.ttl_ms);
    let op = Op::Put { map: put.map, key: put.key, value, condition, previous, ttl_ms };
    Ok(request(options::from_wire(put.options, limits)?, op))
}

fn touch_from_wire(touch: v1::TouchRequest, limits: &Limits) -> Result<Request> {
    check_entry(&touch.map, &touch.key, limits)?;
    check_ttl(touch.ttl_ms.unwrap_or(0))?;
    let op = Op::Touch { map: touch.map, key: touch.key, ttl_ms: touch.ttl_ms };
    Ok(request(options::from_wire(touch.options, limits)?, op))
}

fn delete_from_wire(delete: v1::DeleteRequest, limits: &Limits) -> Result<Request> {
    check_entry(&delete.map, &delete.key, limits)?;
    let condition = condition_from_wire(delete.condition)?;
    let op = Op::Delete { map: delete.map, key: delete.key, condition, previous: delete.return_previous };
    Ok(request(options::from_wire(delete.options, limits)?, op))
}

fn increment_from_wire(increment: v1::IncrementRequest, limits: &Limits) -> Result<Request> {
    check_entry(&increment.map, &increment.key, limits)?;
    let op = Op::Increment { map: increment.map, key: increment.key, delta: increment.delta };
    Ok(request(options::from_wire(increment.options, limits)?, op))
}

fn get_many_from_wire(many: v1::GetManyRequest, limits: &Limits) -> Result<Request> {
    check_name("map", &many.map)?;
    check_count(many.keys.len(), limits)?;
    many.keys.iter().try_for_each(|key| check_key("key", key, limits))?;
    Ok(request(options::from_wire(many.options, limits)?, Op::GetMany { map: many.map, keys: many.keys }))
}

fn put_many_from_wire(many: v1::PutManyRequest, limits: &Limits) -> Result<Request> {
    check_name("map", &many.map)?;
    check_count(many.entries.len(), limits)?;
    let mut bytes = 0;
    let mut entries = Vec::with_capacity(many.entries.len());
    for entry in many.entries {
        check_key("key", &entry.key, limits)?;
        let value = new_value(entry.value, limits)?;
        bytes += entry.key.len() + value.data.len();
        entries.push((entry.key, value));
    }
    // All of them become one log entry.
    check_size("request", bytes, limits.max_write_bytes)?;
    Ok(request(options::from_wire(many.options, limits)?, Op::PutMany { map: many.map, entries }))
}

/// Checks a request to the `Tasks` service.
///
/// # Errors
/// `InvalidRequest`, `InvalidName`, `TooLarge`, `TaskCodec`.
pub fn task_request_from_wire(submit: Option<v1::SubmitRequest>, limits: &Limits) -> Result<Request> {
    let submit = submit.ok_or_else(|| bad("the request names no task"))?;
    check_name("task", &submit.name)?;
    check_key("key", &submit.key, limits)?;
    let payload = payload_from_wire(submit.payload)?;
    check_size("payload", payload.data.len(), limits.max_payload_bytes)?;
    let op = Op::Task { name: submit.name, key: submit.key, payload, id: submit.task_id };
    Ok(request(options::from_wire(submit.options, limits)?, op))
}

/// A request, for the `Kv` service; `None` for a task.
pub fn kv_request_to_wire(request: Request) -> Option<WireOp> {
    let options = options::to_wire(&request);
    Some(match request.op {
        Op::Get { map, key } => WireOp::Get(v1::GetRequest { options, map, key }),
        Op::GetMany { map, keys } => WireOp::GetMany(v1::GetManyRequest { options, map, keys }),
        Op::Put { map, key, value, condition, previous, ttl_ms } => WireOp::Put(v1::PutRequest {
            options,
            map,
            key,
            value: Some(value_to_wire(value)),
            condition: condition_to_wire(condition),
            return_previous: previous,
            ttl_ms,
        }),
        Op::Touch { map, key, ttl_ms } => WireOp::Touch(v1::TouchRequest { options, map, key, ttl_ms }),
        Op::PutMany { map, entries } => {
            let entry = |(key, value)| v1::KeyValue { key, value: Some(value_to_wire(value)) };
            WireOp::PutMany(v1::PutManyRequest { options, map, entries: entries.into_iter().map(entry).collect() })
        }
        Op::Delete { map, key, condition, previous } => WireOp::Delete(v1::DeleteRequest {
            options,
            map,
            key,
            condition: condition_to_wire(condition),
            return_previous: previous,
        }),
        Op::Increment { map, key, delta } => WireOp::Increment(v1::IncrementRequest { options, map, key, delta }),
        Op::Task { .. } | Op::PartitionTask { .. } | Op::Barrier { .. } | Op::Job { .. } | Op::Forget { .. } => {
            return None;
        }
        other => return walks::to_wire(options, other),
    })
}

/// A task, for the `Tasks` service; `None` for anything else.
pub fn task_request_to_wire(request: Request) -> Option<v1::SubmitRequest> {
    let options = options::to_wire(&request);
    match request.op {
        Op::Task { name, key, payload, id } => {
            Some(v1::SubmitRequest { options, name, key, payload: Some(payload_to_wire(payload)), task_id: id })
        }
        _ => None,
    }
}
