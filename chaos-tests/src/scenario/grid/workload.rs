//! What clients do: keys of several kinds, and the marks that tasks leave.

use super::peer::{FAIL, KEEP, PANIC};
use crate::checks::{self, Violation};
use crate::dice::Dice;
use crate::history::Action;
use keystead::ring;
use keystead::types::{PartitionId, Slot, slot_of};
use std::collections::{BTreeMap, BTreeSet};

/// The map of numbers.
pub(super) const MAP: &str = "numbers";

/// Keys with all kinds of operations.
const REGISTERS: [&str; 3] = ["r0", "r1", "r2"];
/// Keys that are only put to and read.
const WRITTEN: [&str; 2] = ["w0", "w1"];
/// Keys that are only incremented and read.
const COUNTERS: [&str; 2] = ["i0", "i1"];
/// Keys of tasks.
const LISTS: [&str; 2] = ["t0", "t1"];

/// The keys of [`MAP`].
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    REGISTERS.into_iter().chain(WRITTEN).chain(COUNTERS)
}

/// Keys of [`MAP`] that are never deleted: their revisions only grow.
pub(super) fn never_deleted() -> impl Iterator<Item = &'static str> {
    WRITTEN.into_iter().chain(COUNTERS)
}

/// The keys of lists.
pub(super) fn lists() -> impl Iterator<Item = &'static str> {
    LISTS.into_iter()
}

/// What the keys of partitions' lists start with.
const PARTITION_KEY: &str = "p{";

/// The key of a partition's list: the smallest number that lives there.
pub(super) fn partition_key((first, last): (Slot, Slot)) -> String {
    let lives_there = |number: &u32| (first..=last).contains(&slot_of(number.to_string().as_bytes()));
    let number = (0..u32::MAX).find(lives_there).unwrap_or_default();
    format!("{PARTITION_KEY}{number}}}")
}

/// The keys of all partitions' lists.
pub(super) fn partition_keys(partitions: u32) -> Vec<String> {
    let slots = |id: u32| ring::slot_range(PartitionId(id), partitions);
    (0..partitions).map(slots).map(|range| partition_key((Slot(*range.start()), Slot(*range.end())))).collect()
}

/// What a client does next.
pub(super) enum Step {
    /// An operation on a key of [`MAP`].
    Operate(&'static str, Action),
    /// A task that leaves this mark, or tries to.
    Task(&'static str, u64, u8),
    /// A partition task that leaves this mark in every partition.
    Broadcast(u64),
    /// A scatter that counts the partitions' marks.
    Count,
}

/// Draws steps. Each value and mark is written by one step only.
pub(super) struct Steps {
    dice: Dice,
    client: u32,
    /// So many of 1000 operations on registers are on the first one.
    hot_per_mille: u32,
    last: u64,
    /// What this client saw last of each key, to compare with.
    seen: BTreeMap<&'static str, Option<i64>>,
}

impl Steps {
    pub(super) fn new(seed: u64, client: u32, hot_per_mille: u32) -> Self {
        let dice = Dice::new(seed, &format!("client {client}"));
        Steps { dice, client, hot_per_mille, last: 0, seen: BTreeMap::new() }
    }

    /// A pause before the next step, in milliseconds.
    pub(super) fn pause_ms(&mut self) -> u64 {
        if self.dice.per_mille(50) { self.dice.between(100, 400) } else { self.dice.between(0, 40) }
    }

    fn fresh(&mut self) -> u64 {
        self.last += 1;
        u64::from(self.client + 1) << 32 | self.last
    }

    /// Remembers what a key was seen to hold.
    pub(super) fn saw(&mut self, key: &'static str, value: Option<i64>) {
        self.seen.insert(key, value);
    }

    /// The next step.
    pub(super) fn draw(&mut self) -> Step {
        match self.dice.below(10) {
            0..5 => {
                let hot = self.hot_per_mille > 0 && self.dice.per_mille(self.hot_per_mille);
                let key = if hot { REGISTERS[0] } else { *self.dice.pick(&REGISTERS) };
                Step::Operate(key, self.register_action(key))
            }
            5..7 => {
                let key = *self.dice.pick(&WRITTEN);
                let new = self.fresh() as i64;
                Step::Operate(key, if self.dice.per_mille(300) { Action::Get } else { Action::Put(new) })
            }
            7 => {
                let key = *self.dice.pick(&COUNTERS);
                Step::Operate(key, if self.dice.per_mille(250) { Action::Get } else { Action::Increment(1) })
            }
            _ if self.dice.per_mille(150) => Step::Broadcast(self.fresh()),
            _ if self.dice.per_mille(80) => Step::Count,
            _ => {
                let how = match self.dice.below(12) {
                    0 => PANIC,
                    1 => FAIL,
                    _ => KEEP,
                };
                let key = *self.dice.pick(&LISTS);
                Step::Task(key, self.fresh(), how)
            }
        }
    }

    fn register_action(&mut self, key: &'static str) -> Action {
        let new = self.fresh() as i64;
        match (self.dice.below(13), self.seen.get(key)) {
            (0..5, _) => Action::Get,
            (5, _) => Action::Put(new),
            (10, _) => Action::Replace(new),
            (11, _) => Action::GetAndPut(new),
            (12, Some(Some(value))) => Action::RemoveIf(*value),
            (6, _) => Action::PutIfAbsent(new),
            (7, _) => Action::Delete,
            // Compare-and-set by value needs a value to expect.
            (_, Some(Some(value))) => Action::CompareAndSet { expected: Some(*value), new },
            _ => Action::Get,
        }
    }
}

/// The marks of the tasks, by key.
#[derive(Default)]
pub(super) struct Marks {
    acknowledged: BTreeMap<String, Vec<u64>>,
    unknown: BTreeMap<String, Vec<u64>>,
    found: BTreeMap<String, Vec<u64>>,
}

impl Marks {
    /// A task was answered.
    pub(super) fn acknowledged(&mut self, key: &str, mark: u64) {
        self.acknowledged.entry(key.to_owned()).or_default().push(mark);
    }

    /// It may have run.
    pub(super) fn unknown(&mut self, key: &str, mark: u64) {
        self.unknown.entry(key.to_owned()).or_default().push(mark);
    }

    /// Marks in partitions' lists that were acknowledged so far.
    pub(super) fn in_partitions(&self) -> u64 {
        let lists = self.acknowledged.iter().filter(|(key, _)| key.starts_with(PARTITION_KEY));
        lists.map(|(_, marks)| marks.len() as u64).sum()
    }

    /// What is there in the end.
    pub(super) fn found(&mut self, key: &str, marks: Vec<u64>) {
        self.found.insert(key.to_owned(), marks);
    }

    /// Each acknowledged mark once, each of unknown outcome at most once, nothing else: no mark
    /// of a task that panicked or failed, and none twice; those of a client in its order.
    pub(super) fn check(&self) -> Vec<Violation> {
        let none = Vec::new();
        let of = |marks: &BTreeMap<String, Vec<u64>>, key: &str| marks.get(key).unwrap_or(&none).clone();
        let check = |key: &String| {
            let (acknowledged, unknown) = (of(&self.acknowledged, key), of(&self.unknown, key));
            let (place, found) = (format!("list {key}"), of(&self.found, key));
            let mut violations = checks::once_each(&place, &acknowledged, &unknown, &found);
            violations.extend(checks::in_session_order(&place, &found));
            violations
        };
        let keys: BTreeSet<&String> = self.found.keys().chain(self.acknowledged.keys()).collect();
        keys.into_iter().flat_map(check).collect()
    }
}
