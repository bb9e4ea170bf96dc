//! One key as a sequential object: what an operation may answer, and what it leaves.

use crate::history::{Action, Answer};

/// The value of a key.
pub(super) type Value = Option<i64>;

/// Applies an action to a value. `None` when the answer contradicts the value; without an answer
/// (an unknown outcome) every value will do.
pub(super) fn apply(value: Value, action: Action, answer: Option<Answer>) -> Option<Value> {
    let (says, leaves) = outcome(value, action);
    match answer {
        Some(answer) if answer != says => None,
        _ => Some(leaves),
    }
}

fn outcome(value: Value, action: Action) -> (Answer, Value) {
    match action {
        Action::Get => (Answer::Value(value), value),
        Action::Put(new) => (Answer::Written, Some(new)),
        Action::PutIfAbsent(new) => conditional(value, value.is_none(), new),
        Action::CompareAndSet { expected, new } => conditional(value, value == expected, new),
        Action::Replace(new) => conditional(value, value.is_some(), new),
        Action::GetAndPut(new) => (Answer::Replaced(value), Some(new)),
        Action::RemoveIf(expected) if value == Some(expected) => (Answer::Deleted(true), None),
        Action::RemoveIf(_) => (Answer::Refused(value), value),
        Action::Delete => (Answer::Deleted(value.is_some()), None),
        Action::Increment(delta) => {
            let sum = value.unwrap_or(0).wrapping_add(delta);
            (Answer::Number(sum), Some(sum))
        }
    }
}

fn conditional(value: Value, holds: bool, new: i64) -> (Answer, Value) {
    if holds { (Answer::Written, Some(new)) } else { (Answer::Refused(value), value) }
}
