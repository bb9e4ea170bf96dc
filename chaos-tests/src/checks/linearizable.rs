//! Linearizability per key: is there an order of the operations that respects real time and
//! explains every answer?
//!
//! Source: Herlihy and Wing, "Linearizability" (ACM TOPLAS 1990); the search is Wing and Gong's (1993)
//! with Lowe's memory of visited configurations ("Testing for linearizability", 2017), as in Porcupine.

use super::Violation;
use super::register::{Value, apply};
use crate::history::{Action, Answer, Operation, Outcome};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Configurations that one key's search may visit.
const VISITS: usize = 400_000;

/// Checks every key; at most one violation each.
pub fn linearizable(operations: &[Operation]) -> Vec<Violation> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let judge = |(key, operations): (&str, Vec<&Operation>)| {
        let quick = Search::new(&operations, observed(&operations)).run();
        // What nobody saw may still be what another replaced. All of it is much to search: only in doubt.
        let replaced = operations.iter().any(|operation| matches!(operation.action, Action::Replace(_)));
        let found = if quick.is_err() && replaced { Search::new(&operations, None).run() } else { quick };
        found.err().map(|what| violation(key, &what))
    };
    keys.into_iter().filter_map(judge).collect()
}

fn violation(key: &str, what: &str) -> Violation {
    Violation { check: "linearizability", what: format!("key {key}: {what}") }
}

/// What has been put in order so far, and the value that it leaves.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Configuration {
    placed: Box<[u64]>,
    value: Value,
}

impl Configuration {
    fn has(&self, index: usize) -> bool {
        self.placed[index / 64] >> (index % 64) & 1 == 1
    }

    fn with(&self, index: usize, value: Value) -> Self {
        let mut placed = self.placed.clone();
        placed[index / 64] |= 1 << (index % 64);
        Configuration { placed, value }
    }

    fn count(&self) -> u32 {
        self.placed.iter().map(|word| word.count_ones()).sum()
    }
}

struct Search<'a> {
    /// In the order of invocation.
    operations: Vec<&'a Operation>,
    answered: usize,
}

impl<'a> Search<'a> {
    fn new(operations: &[&'a Operation], observed: Option<BTreeSet<i64>>) -> Self {
        let mut operations: Vec<&Operation> =
            operations.iter().copied().filter(|operation| matters(operation, observed.as_ref())).collect();
        operations.sort_by_key(|operation| operation.invoked);
        let answered = operations.iter().filter(|operation| operation.answer().is_some()).count();
        Search { operations, answered }
    }

    fn run(&self) -> Result<(), String> {
        let first = Configuration { placed: vec![0; self.operations.len().div_ceil(64)].into(), value: None };
        let mut visited = HashSet::from([first.clone()]);
        let mut furthest = first.clone();
        // The first operation that is not placed, kept beside the configuration to scan from.
        let mut open = vec![(first, 0)];
        while let Some((configuration, low)) = open.pop() {
            if self.all_answered_placed(&configuration, low) {
                return Ok(());
            }
            if configuration.count() > furthest.count() {
                furthest = configuration.clone();
            }
            for (index, value) in self.next(&configuration, low) {
                let next = configuration.with(index, value);
                if visited.insert(next.clone()) {
                    let low = (low..self.operations.len()).find(|at| !next.has(*at)).unwrap_or(low);
                    open.push((next, low));
                }
            }
            if visited.len() > VISITS {
                return Err(format!("gave up after {VISITS} configurations; the workload is too concurrent to judge"));
            }
        }
        Err(self.explain(&furthest))
    }

    fn all_answered_placed(&self, configuration: &Configuration, low: usize) -> bool {
        (low..self.operations.len()).all(|at| configuration.has(at) || self.operations[at].answer().is_none())
    }

    /// The operations that may come next, with the value that they leave. The search takes the
    /// last one first: answered ones, the earliest return last, before unknown ones.
    fn next(&self, configuration: &Configuration, low: usize) -> Vec<(usize, Value)> {
        let missing = || (low..self.operations.len()).filter(|at| !configuration.has(*at));
        let horizon = missing().map(|at| self.operations[at].returned).min().unwrap_or(u64::MAX);
        let mut tried: Vec<Action> = Vec::new();
        let mut next: Vec<(usize, Value)> = Vec::new();
        for at in missing().take_while(|at| self.operations[*at].invoked < horizon) {
            let operation = self.operations[at];
            if operation.answer().is_none() {
                // Of equal unknown operations only the earliest is tried: any order with a later
                // one in its place is as good with the earliest.
                if tried.contains(&operation.action) {
                    continue;
                }
                tried.push(operation.action);
            }
            let value = apply(configuration.value, operation.action, operation.answer());
            let useless = operation.answer().is_none() && value == Some(configuration.value);
            if let Some(value) = value.filter(|_| !useless) {
                next.push((at, value));
            }
        }
        next.sort_by_key(|(at, _)| std::cmp::Reverse(self.operations[*at].returned));
        next
    }

    fn explain(&self, furthest: &Configuration) -> String {
        let missing: Vec<&Operation> =
            (0..self.operations.len()).filter(|at| !furthest.has(*at)).map(|at| self.operations[at]).collect();
        let horizon = missing.iter().map(|operation| operation.returned).min().unwrap_or(u64::MAX);
        let candidates = missing.iter().filter(|operation| operation.invoked < horizon).take(12);
        let lines: Vec<String> = candidates.map(|operation| describe(operation)).collect();
        format!(
            "no order explains the answers; {} of {} answered operations can be ordered at most, leaving {:?}, and none of these can follow: {}",
            (0..self.operations.len())
                .filter(|at| furthest.has(*at) && self.operations[*at].answer().is_some())
                .count(),
            self.answered,
            furthest.value,
            lines.join("; ")
        )
    }
}

fn describe(operation: &Operation) -> String {
    let Operation { client, action, outcome, invoked, returned, at, .. } = operation;
    let returned = if *returned == u64::MAX { "open".to_owned() } else { returned.to_string() };
    format!("c{client} {action:?} -> {outcome:?} [{invoked}..{returned}, {:.3} s]", at.as_secs_f64())
}

/// The values that some answer depends on. `None` when any value may matter.
fn observed(operations: &[&Operation]) -> Option<BTreeSet<i64>> {
    let mut values = BTreeSet::new();
    for operation in operations {
        match (operation.action, operation.outcome) {
            // What a counter or a successful deletion found cannot be told from its answer.
            (Action::Increment(_), _) | (_, Outcome::Answered(Answer::Deleted(true))) => return None,
            (_, Outcome::Answered(Answer::Value(value) | Answer::Refused(value) | Answer::Replaced(value))) => {
                values.extend(value);
            }
            _ => {}
        }
        if let Action::CompareAndSet { expected, .. } = operation.action {
            values.extend(expected);
        }
        if let Action::RemoveIf(expected) = operation.action {
            values.insert(expected);
        }
    }
    Some(values)
}

/// Whether an operation can bear on the verdict. A write of unknown outcome whose value nobody
/// saw need not have happened.
fn matters(operation: &Operation, observed: Option<&BTreeSet<i64>>) -> bool {
    match operation.outcome {
        Outcome::Answered(_) => true,
        Outcome::Refused => false,
        Outcome::Unknown => match operation.action {
            Action::Get => false,
            Action::Put(new)
            | Action::PutIfAbsent(new)
            | Action::CompareAndSet { new, .. }
            | Action::Replace(new)
            | Action::GetAndPut(new) => observed.is_none_or(|values| values.contains(&new)),
            Action::Delete | Action::RemoveIf(_) | Action::Increment(_) => true,
        },
    }
}
