//! Several entries of one slot, all or nothing. Pure.

use super::super::entry::RowWrite;
use super::conditions::holds;
use super::{Done, Scope, check_entry, check_key};
use crate::error::{Code, Error, Result};
use crate::types::{Condition, ReplyBody, SLOTS, Slot, Value};
use bytes::Bytes;

pub(super) fn transact(
    scope: &mut Scope<'_>,
    checks: &[(Bytes, Condition)],
    writes: &[(Bytes, Option<Value>)],
) -> Result<Done> {
    let keys = || checks.iter().map(|(key, _)| key).chain(writes.iter().map(|(key, _)| key));
    one_slot(keys().map(|key| scope.slot(key)))?;
    keys().try_for_each(|key| check_key(scope.map, key))?;
    let puts = writes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    puts.into_iter().try_for_each(|(key, value)| check_entry(scope.map, key, value))?;
    for (key, expected) in checks {
        let present = scope.present(key)?;
        if !holds(expected, present.as_ref()) {
            return Done::read(ReplyBody::CheckFailed { key: key.clone(), present });
        }
    }
    let mut made = Vec::with_capacity(writes.len());
    let before = *scope.revision;
    let next = scope.next_revision();
    for (key, value) in writes {
        match value {
            Some(value) => made.push(scope.put(key, value)),
            None => {
                let row = scope.row(key);
                if scope.view.contains(&row) || made.iter().any(|write: &RowWrite| write.row == row) {
                    made.push(scope.delete(key));
                }
            }
        }
    }
    // What changes nothing takes no revision.
    let revision = if made.is_empty() { before } else { next };
    Ok(Done { body: ReplyBody::Written { revision, previous: None }, writes: made })
}

fn one_slot(slots: impl IntoIterator<Item = Slot>) -> Result<()> {
    let mut slots = slots.into_iter();
    let first = slots.next();
    match slots.find(|slot| Some(*slot) != first) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            Code::CrossSlot,
            format!("the keys lie in several slots, among them {} and {other} of {SLOTS}", first.unwrap_or(other)),
        )
        .remedy("give all keys one {tag}, as in {cart-7}:items and {cart-7}:total, or name one affinity for all")),
    }
}
