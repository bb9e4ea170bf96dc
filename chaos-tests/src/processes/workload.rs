//! What clients do in a round: registers, compare-and-set, counters, and keys with everything.
//!
//! In: dice. Out: keys and actions; each value is written by one action of one round only. The keys of
//! a round are its own, and are there from the beginning of nobody's doing.

use crate::dice::Dice;
use crate::history::Action;
use std::collections::BTreeMap;

/// The map of numbers.
pub const MAP: &str = "numbers";

/// Kinds of keys, how many of each, and how often of 100 actions.
const KINDS: [(Kind, &str, u64, u64); 4] =
    [(Kind::Register, "w", 5, 30), (Kind::Swapped, "s", 4, 30), (Kind::Counter, "c", 4, 25), (Kind::Any, "a", 3, 15)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Put and read.
    Register,
    /// Compared and set, and read.
    Swapped,
    /// Incremented and read.
    Counter,
    /// Everything, also deleted.
    Any,
}

/// The keys of a round.
pub fn keys(round: u32) -> Vec<String> {
    let of_kind = |(_, letter, count, _): (Kind, &'static str, u64, u64)| (0..count).map(move |at| (letter, at));
    KINDS.into_iter().flat_map(of_kind).map(|(letter, at)| key(round, letter, at)).collect()
}

fn key(round: u32, letter: &str, at: u64) -> String {
    format!("r{round}-{letter}{at}")
}

/// Draws the actions of one client in one round.
pub struct Actions {
    dice: Dice,
    round: u32,
    client: u32,
    session: u64,
    last: u64,
    /// What this client saw last of each key, to compare with.
    seen: BTreeMap<String, Option<i64>>,
}

impl Actions {
    /// The actions of a client.
    pub fn new(seed: u64, round: u32, client: u32) -> Actions {
        let dice = Dice::new(seed, &format!("round {round} client {client}"));
        Actions { dice, round, client, session: 0, last: 0, seen: BTreeMap::new() }
    }

    /// The dice, for what else is to be decided.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// Remembers what a key was seen to hold.
    pub fn saw(&mut self, key: &str, value: Option<i64>) {
        self.seen.insert(key.to_owned(), value);
    }

    /// What is drawn from now on is asked in another session.
    pub fn another_session(&mut self) {
        self.session += 1;
    }

    /// A value that says who writes it: the session and the client in its upper half, and a number that
    /// rises with the client's requests.
    fn fresh(&mut self) -> i64 {
        self.last += 1;
        (self.session << 40 | u64::from(self.client + 1) << 32 | self.last) as i64
    }

    /// The next action.
    pub fn draw(&mut self) -> (String, Action) {
        let mut drawn = self.dice.below(100);
        let (kind, letter, count, _) = KINDS
            .into_iter()
            .find(|(.., share)| {
                let found = drawn < *share;
                drawn = drawn.saturating_sub(*share);
                found
            })
            .unwrap_or(KINDS[0]);
        let key = key(self.round, letter, self.dice.below(count));
        let action = self.action(kind, &key);
        (key, action)
    }

    fn action(&mut self, kind: Kind, key: &str) -> Action {
        let new = self.fresh();
        let seen = self.seen.get(key).copied();
        let swap = match seen {
            Some(Some(expected)) => Action::CompareAndSet { expected: Some(expected), new },
            Some(None) => Action::PutIfAbsent(new),
            None => Action::Get,
        };
        match (kind, self.dice.below(10)) {
            (Kind::Register, 0..4) => Action::Get,
            (Kind::Register, _) => Action::Put(new),
            (Kind::Swapped, 0..3) => Action::Get,
            (Kind::Swapped, _) => swap,
            (Kind::Counter, 0..3) => Action::Get,
            (Kind::Counter, _) => Action::Increment(1),
            (Kind::Any, 0..3) => Action::Get,
            (Kind::Any, 3) => Action::Put(new),
            (Kind::Any, 4) => Action::GetAndPut(new),
            (Kind::Any, 5) => Action::PutIfAbsent(new),
            (Kind::Any, 6) => Action::Replace(new),
            (Kind::Any, 7) => Action::Delete,
            (Kind::Any, 8) => seen.flatten().map_or(Action::Get, Action::RemoveIf),
            (Kind::Any, _) => swap,
        }
    }
}

/// The mark that a written value is: who wrote it in its upper half, which counters do not have.
pub fn mark_of(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| value >> 32 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn values_rise_within_a_session_and_name_it() {
        let mut actions = Actions::new(7, 2, 3);
        actions.another_session();
        let (one, two) = (actions.fresh(), actions.fresh());
        actions.another_session();
        let three = actions.fresh();
        let marks = [one, two, three].map(|value| mark_of(value).expect("a mark"));
        assert!(marks[0] >> 32 == marks[1] >> 32 && marks[0] < marks[1], "{marks:?}");
        assert!(marks[2] >> 32 != marks[1] >> 32, "another session: {marks:?}");
        assert_eq!((mark_of(17), mark_of(-1)), (None, None), "a counter's number names nobody");
    }

    #[test]
    fn every_key_is_used_and_no_value_is_written_twice() {
        let (mut used, mut written) = (BTreeSet::new(), BTreeSet::new());
        for client in 0..3 {
            let mut actions = Actions::new(7, 2, client);
            for _ in 0..2000 {
                let (key, action) = actions.draw();
                let new = match action {
                    Action::Put(new) | Action::PutIfAbsent(new) | Action::CompareAndSet { new, .. } => Some(new),
                    Action::Replace(new) | Action::GetAndPut(new) => Some(new),
                    _ => None,
                };
                assert!(new.is_none_or(|new| written.insert(new)), "{new:?}");
                actions.saw(&key, new);
                used.insert(key);
            }
        }
        assert_eq!(used, keys(2).into_iter().collect());
    }
}
