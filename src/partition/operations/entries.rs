//! Reads, writes and deletions of entries that are named by their keys. Pure.

use super::conditions::holds;
use super::{Done, Scope, check_entry, check_key};
use crate::error::Result;
use crate::types::{Condition, ReplyBody, Value};
use bytes::Bytes;

pub(super) fn get(scope: &Scope<'_>, key: &Bytes) -> Result<Done> {
    Done::read(ReplyBody::Entry(scope.present(key)?))
}

pub(super) fn get_many(scope: &Scope<'_>, keys: &[Bytes]) -> Result<Done> {
    let entries = keys.iter().map(|key| scope.present(key)).collect::<Result<Vec<_>>>()?;
    Done::read(ReplyBody::Entries(entries))
}

pub(super) fn put(
    scope: &mut Scope<'_>,
    key: &Bytes,
    value: &Value,
    condition: &Condition,
    previous: bool,
    ttl_ms: Option<u64>,
) -> Result<Done> {
    check_entry(scope.map, key, value)?;
    let mut present = None;
    if previous || *condition != Condition::Always {
        present = scope.present(key)?;
        if !holds(condition, present.as_ref()) {
            return Done::read(ReplyBody::ConditionFailed(present));
        }
    }
    let revision = scope.next_revision();
    let previous = present.filter(|_| previous);
    Ok(Done {
        body: ReplyBody::Written { revision, previous },
        writes: vec![scope.put_until(key, value, scope.expires_at(ttl_ms))],
    })
}

pub(super) fn touch(scope: &mut Scope<'_>, key: &Bytes, ttl_ms: Option<u64>) -> Result<Done> {
    check_key(scope.map, key)?;
    let Some(present) = scope.present(key)? else {
        return Done::read(ReplyBody::Touched { existed: false, revision: 0 });
    };
    let revision = scope.next_revision();
    let write = scope.put_until(key, &present.value, scope.expires_at(ttl_ms));
    Ok(Done { body: ReplyBody::Touched { existed: true, revision }, writes: vec![write] })
}

pub(super) fn put_many(scope: &mut Scope<'_>, entries: &[(Bytes, Value)]) -> Result<Done> {
    entries.iter().try_for_each(|(key, value)| check_entry(scope.map, key, value))?;
    let revision = scope.next_revision();
    let writes = entries.iter().map(|(key, value)| scope.put(key, value)).collect();
    Ok(Done { body: ReplyBody::Written { revision, previous: None }, writes })
}

pub(super) fn delete(scope: &mut Scope<'_>, key: &Bytes, condition: &Condition, previous: bool) -> Result<Done> {
    let present = scope.present(key)?;
    if !holds(condition, present.as_ref()) {
        return Done::read(ReplyBody::ConditionFailed(present));
    }
    if present.is_none() {
        return Done::read(ReplyBody::Deleted { existed: false, revision: 0, previous: None });
    }
    let revision = scope.next_revision();
    let body = ReplyBody::Deleted { existed: true, revision, previous: present.filter(|_| previous) };
    Ok(Done { body, writes: vec![scope.delete(key)] })
}
