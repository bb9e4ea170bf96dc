//! The order of a session's writes to a slot, by a model client whose copies of writes come late, twice, in any
//! order and after it has given them up. In: steps. Checked: what is given up takes effect before what the
//! client writes to the slot afterwards, or never; what it waits for is never refused.

use super::sessions::*;
use super::{entry::RowWrite, rows};
use crate::types::{HybridTime, Numbers, SessionId, SessionStamp, Slot};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NOW: HybridTime = HybridTime(1 << 40);
const LIMITS: SessionLimits =
    SessionLimits { idle_ms: 60_000, max_sessions: 2, max_answers: 1000, max_answer_bytes: 1 << 20, max_given_up: 100 };

#[derive(Clone, Debug)]
enum Step {
    /// A new write to a slot, sent at once.
    Begin(u16),
    /// An open write is sent again.
    Resend(usize),
    /// A copy arrives, and its answer if that is told.
    Deliver(usize, bool),
    /// An open write is given up.
    GiveUp(usize),
    /// The turn ends; perhaps another replica leads from then on.
    Turn(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u16..3).prop_map(Step::Begin),
        2 => any::<usize>().prop_map(Step::Resend),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(at, heard)| Step::Deliver(at, heard)),
        2 => any::<usize>().prop_map(Step::GiveUp),
        2 => any::<bool>().prop_map(Step::Turn),
    ]
}

struct World {
    /// The client names predecessors; else its writes are made by many who wait for one answer each.
    ordered: bool,
    numbers: Numbers,
    open: BTreeMap<u64, Slot>,
    /// First stamps, which writes without order keep.
    stamps: BTreeMap<u64, SessionStamp>,
    copies: Vec<(SessionStamp, Slot)>,
    sessions: Sessions,
    rows: BTreeMap<Bytes, Bytes>,
    turn: Vec<RowWrite>,
    executed: BTreeMap<Slot, Vec<u64>>,
    /// Numbers that had been given up before a write to their slot began.
    given_up: BTreeMap<Slot, BTreeSet<u64>>,
    before: BTreeMap<u64, BTreeSet<u64>>,
}

impl World {
    fn new(ordered: bool) -> Self {
        World {
            ordered,
            numbers: Numbers::default(),
            open: BTreeMap::new(),
            stamps: BTreeMap::new(),
            copies: Vec::new(),
            sessions: Sessions::new(LIMITS),
            rows: BTreeMap::new(),
            turn: Vec::new(),
            executed: BTreeMap::new(),
            given_up: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    fn nth_open(&self, at: usize) -> Option<(u64, Slot)> {
        let (number, slot) = self.open.iter().nth(at.checked_rem(self.open.len())?)?;
        Some((*number, *slot))
    }

    fn send(&mut self, number: u64, slot: Slot) {
        let fresh = || {
            let earlier = self.open.range(..number).rev().find(|(_, other)| **other == slot);
            let previous = earlier.map(|(earlier, _)| *earlier).filter(|_| self.ordered);
            SessionStamp {
                session: SessionId(1),
                number,
                lowest_unanswered: self.numbers.lowest(number),
                previous,
                first_sent: NOW,
                given_up: self.numbers.given_up_before(number, &[slot], previous.unwrap_or(0)),
            }
        };
        let kept = self.stamps.get(&number).filter(|_| !self.ordered).cloned();
        let stamp = kept.unwrap_or_else(fresh);
        self.stamps.insert(number, stamp.clone());
        self.copies.push((stamp, slot));
    }

    fn end_turn(&mut self, anew: bool) {
        for write in self.turn.drain(..).chain(self.sessions.take_lots()) {
            match write.value() {
                Some(value) => drop(self.rows.insert(write.row.clone(), value.clone())),
                None => drop(self.rows.remove(&write.row)),
            }
        }
        if anew {
            let rows = || self.rows.iter();
            let open = rows().filter_map(|(row, value)| Some((rows::parse_session_row(row)?, value.clone())));
            let kept = rows().filter_map(|(row, value)| KeptAnswer::of_row(row, value.len(), || Some(value.clone())));
            let kept: Vec<KeptAnswer> = kept.collect();
            let rebuilt = Sessions::rebuild(LIMITS, HybridTime::default(), open.collect::<Vec<_>>(), kept);
            assert_eq!(rebuilt.expect("readable"), self.sessions);
        }
    }

    fn deliver(&mut self, at: usize, heard: bool) {
        let Some((stamp, slot)) = at.checked_rem(self.copies.len()).and_then(|at| self.copies.get(at)).cloned() else {
            return;
        };
        let number = stamp.number;
        match self.sessions.admit(&stamp, slot) {
            Admission::Execute => {
                self.check_order(number, slot);
                self.executed.entry(slot).or_default().push(number);
                self.turn.extend(self.sessions.record(&stamp, slot, &number.to_le_bytes(), NOW));
            }
            Admission::Kept(_) | Admission::Now(_) => {}
            Admission::Ended => {
                assert!(!self.open.contains_key(&number), "{stamp:?} is waited for");
                return;
            }
            Admission::ResendFrom(_) => return,
            Admission::Full => panic!("there is room"),
        }
        if heard && self.open.remove(&number).is_some() {
            self.end_turn(false);
            self.numbers.answered(number);
        }
    }

    fn check_order(&self, number: u64, slot: Slot) {
        let executed = self.executed.get(&slot).map_or(&[][..], |executed| executed);
        assert!(!executed.contains(&number), "{number} ran twice");
        for other in executed {
            let gone = self.before.get(other).is_some_and(|before| before.contains(&number));
            assert!(!gone, "{number} was given up before {other} was begun, and took effect behind it");
            assert!(!self.ordered || *other < number, "{number} took effect behind {other}");
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Begin(slot) => {
                let (number, slot) = (self.numbers.begin(), Slot(slot));
                self.before.insert(number, self.given_up.get(&slot).cloned().unwrap_or_default());
                self.open.insert(number, slot);
                self.send(number, slot);
            }
            Step::Resend(at) => {
                if let Some((number, slot)) = self.nth_open(at) {
                    self.send(number, slot);
                }
            }
            Step::Deliver(at, heard) => self.deliver(at, heard),
            Step::GiveUp(at) => {
                if let Some((number, slot)) = self.nth_open(at) {
                    self.open.remove(&number);
                    self.numbers.give_up(number, vec![slot]);
                    self.given_up.entry(slot).or_default().insert(number);
                }
            }
            Step::Turn(anew) => self.end_turn(anew),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn what_is_given_up_never_takes_effect_behind_a_later_write(
        ordered: bool, steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(ordered);
        steps.into_iter().for_each(|step| world.take(step));
        // What is waited for is executed when it is sent again, in its order.
        for (number, slot) in world.open.clone() {
            world.send(number, slot);
            world.deliver(world.copies.len() - 1, true);
            prop_assert!(!world.open.contains_key(&number), "{} is stuck", number);
        }
    }
}
