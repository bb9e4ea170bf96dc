//! Each request takes effect once: never twice, and never not at all once acknowledged.
//!
//! Source: Jepsen's counter and set checks (`jepsen.checker`); Lee and others, "Implementing
//! Linearizability at Large Scale and Low Latency" (RIFL, SOSP 2015).

use super::{Finals, Violation};
use crate::history::{Action, Answer, Operation, Outcome};
use std::collections::BTreeMap;

/// Checks the final values of keys that were only incremented by 1: at least as many as were
/// acknowledged, at most those of unknown outcome more, and no answer given twice.
pub fn once_in_counters(operations: &[Operation], finals: &Finals) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (key, value) in finals {
        let of_key: Vec<&Operation> =
            operations.iter().filter(|operation| operation.key == *key && !operation.action.is_read()).collect();
        if !of_key.is_empty() && of_key.iter().all(|operation| operation.action == Action::Increment(1)) {
            violations.extend(counted(key, &of_key, value.unwrap_or(0)));
            violations.extend(repeated(key, &of_key));
        }
    }
    violations
}

fn counted(key: &str, increments: &[&Operation], value: i64) -> Option<Violation> {
    let count = |wanted: fn(&Outcome) -> bool| increments.iter().filter(|op| wanted(&op.outcome)).count() as i64;
    let acknowledged = count(|outcome| matches!(outcome, Outcome::Answered(_)));
    let unknown = count(|outcome| *outcome == Outcome::Unknown);
    (!(acknowledged..=acknowledged + unknown).contains(&value)).then(|| {
        violation(format!(
            "counter {key} ends at {value} after {acknowledged} acknowledged increments and {unknown} of unknown outcome"
        ))
    })
}

fn repeated(key: &str, increments: &[&Operation]) -> Vec<Violation> {
    let mut seen: BTreeMap<i64, u32> = BTreeMap::new();
    let mut violations = Vec::new();
    for operation in increments {
        let Some(Answer::Number(number)) = operation.answer() else { continue };
        if let Some(first) = seen.insert(number, operation.client) {
            violations
                .push(violation(format!("counter {key}: c{first} and c{} were both told {number}", operation.client)));
        }
    }
    violations
}

/// Checks marks that requests left in a list: each acknowledged one once, each of unknown
/// outcome at most once, nothing else.
pub fn once_each(place: &str, acknowledged: &[u64], unknown: &[u64], found: &[u64]) -> Vec<Violation> {
    // Those of unknown outcome first: what was acknowledged as well counts as acknowledged.
    let expected = unknown.iter().map(|mark| (*mark, (0, false)));
    let mut counts: BTreeMap<u64, (usize, bool)> =
        expected.chain(acknowledged.iter().map(|mark| (*mark, (0, true)))).collect();
    let mut violations = Vec::new();
    for mark in found {
        match counts.get_mut(mark) {
            Some((count, _)) => *count += 1,
            None => violations.push(violation(format!("{place} holds {mark}, which nobody sent"))),
        }
    }
    for (mark, (count, acknowledged)) in counts {
        match count {
            0 if acknowledged => violations.push(violation(format!("{place} lost {mark}, which was acknowledged"))),
            0 | 1 => {}
            _ => violations.push(violation(format!("{place} holds {mark} {count} times"))),
        }
    }
    violations
}

fn violation(what: String) -> Violation {
    Violation { check: "each request once", what }
}
