//! No acknowledged write is lost, and each acknowledgement names the level that was asked for.
//!
//! Source: Jepsen's set and register checks (`jepsen.checker`); DESIGN section 1, promise 1.

use super::Violation;
use crate::history::{Action, Answer, Operation, Outcome};
use std::collections::BTreeMap;

/// What each key held when everything was over, read linearizably.
pub type Finals = BTreeMap<String, Option<i64>>;

/// Checks the final values of keys that were only put to, each value once.
pub fn kept(operations: &[Operation], finals: &Finals) -> Vec<Violation> {
    finals.iter().filter_map(|(key, value)| lost(operations, key, *value)).collect()
}

fn lost(operations: &[Operation], key: &str, value: Option<i64>) -> Option<Violation> {
    let of_key: Vec<&Operation> = operations.iter().filter(|operation| operation.key == key).collect();
    if !of_key.iter().all(|operation| matches!(operation.action, Action::Get | Action::Put(_))) {
        return None;
    }
    let source = value.map(|value| of_key.iter().find(|operation| operation.action == Action::Put(value)));
    if let (Some(value), Some(None)) = (value, source) {
        return Some(violation(format!("key {key} ends with {value}, which nobody wrote")));
    }
    // An acknowledged write is lost if it began after the surviving one had returned, or if
    // nothing survived at all.
    let survivor_returned = source.flatten().map_or(0, |operation| operation.returned);
    let acknowledged = of_key.iter().filter(|operation| operation.acknowledged_change());
    let lost = acknowledged.filter(|operation| operation.invoked > survivor_returned).max_by_key(|op| op.invoked)?;
    Some(violation(format!(
        "key {key} ends with {value:?}, but c{} was told that {:?} is kept",
        lost.client, lost.action
    )))
}

fn violation(what: String) -> Violation {
    Violation { check: "no acknowledged write lost", what }
}

/// Checks that each acknowledged change names the level that was asked for.
pub fn levels(operations: &[Operation]) -> Vec<Violation> {
    let named_wrongly = |operation: &&Operation| {
        let written = matches!(operation.outcome, Outcome::Answered(answer) if !matches!(answer, Answer::Value(_)));
        written && operation.levels.1 != Some(operation.levels.0)
    };
    let wrong = operations.iter().filter(named_wrongly);
    wrong
        .map(|operation| Violation {
            check: "acknowledged level",
            what: format!(
                "key {}: c{} asked {:?} at level {:?} and was acknowledged at {:?}",
                operation.key, operation.client, operation.action, operation.levels.0, operation.levels.1
            ),
        })
        .collect()
}
