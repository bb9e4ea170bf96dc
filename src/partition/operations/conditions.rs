//! What conditional writes demand of the present entry. Pure.

use crate::types::{Condition, StoredValue};

/// Whether the condition holds of the present entry.
pub(super) fn holds(condition: &Condition, present: Option<&StoredValue>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => present.is_none(),
        Condition::Present => present.is_some(),
        Condition::Value(value) => {
            present.is_some_and(|entry| entry.value.codec == value.codec && entry.value.data == value.data)
        }
        Condition::Revision(revision) => present.is_some_and(|entry| entry.revision == *revision),
    }
}
