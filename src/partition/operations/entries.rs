//! Reads, writes and deletions of entries that are named by their keys. Pure.

use super::conditions::holds;
use super::{Done, Scope, check_entry};
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

pub(super) fn put(scope: &mut Scope<'_>, key: &Bytes, value: &Value, condition: &Condition) -> Result<Done> {
    check_entry(scope.map, key, value)?;
    if *condition != Condition::Always {
        let present = scope.present(key)?;
        if !holds(condition, present.as_ref()) {
            return Done::read(ReplyBody::ConditionFailed(present));
        }
    }
    let revision = scope.next_revision();
    Ok(Done { body: ReplyBody::Written { revision }, writes: vec![scope.put(key, value)] })
}

pub(super) fn put_many(scope: &mut Scope<'_>, entries: &[(Bytes, Value)]) -> Result<Done> {
    entries.iter().try_for_each(|(key, value)| check_entry(scope.map, key, value))?;
    let revision = scope.next_revision();
    let writes = entries.iter().map(|(key, value)| scope.put(key, value)).collect();
    Ok(Done { body: ReplyBody::Written { revision }, writes })
}

pub(super) fn delete(scope: &mut Scope<'_>, key: &Bytes) -> Result<Done> {
    if !scope.view.contains(&scope.row(key)) {
        return Done::read(ReplyBody::Deleted { existed: false, revision: 0 });
    }
    let revision = scope.next_revision();
    Ok(Done { body: ReplyBody::Deleted { existed: true, revision }, writes: vec![scope.delete(key)] })
}
