use super::register::apply;
use super::*;
use crate::dice::Dice;
use crate::history::{Action, Answer, History, Operation, OperationId, Outcome};
use keystead::types::AckLevel;
use proptest::prelude::*;

const LEVEL: AckLevel = AckLevel::MajorityFsync;

/// A correct object under random clients: each operation takes effect at one moment between its
/// invocation and its answer; some answers are lost, and some of those operations with them.
struct Correct {
    dice: Dice,
    history: History,
    value: Option<i64>,
    next_value: i64,
    clients: Vec<Client>,
    /// Operations that nobody waits for any more, but which may still take effect.
    ghosts: Vec<Action>,
}

#[derive(Clone, Copy)]
enum Client {
    Idle,
    Asked(OperationId, Action),
    Done(OperationId, Answer),
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Register,
    Counter,
}

impl Correct {
    fn run(seed: u64, kind: Kind, steps: usize) -> (Vec<Operation>, Option<i64>) {
        let mut object = Correct {
            dice: Dice::new(seed, "history"),
            history: History::default(),
            value: None,
            next_value: 1,
            clients: vec![Client::Idle; 5],
            ghosts: Vec::new(),
        };
        for _ in 0..steps {
            object.step(kind);
        }
        (object.history.operations(), object.value)
    }

    fn draw(&mut self, kind: Kind) -> Action {
        if kind == Kind::Counter {
            return if self.dice.per_mille(700) { Action::Increment(1) } else { Action::Get };
        }
        self.next_value += 1;
        let new = self.next_value;
        let guess = self.value;
        match self.dice.below(13) {
            10 => Action::Replace(new),
            11 => Action::GetAndPut(new),
            12 => Action::RemoveIf(guess.unwrap_or(new)),
            0..4 => Action::Get,
            4..7 => Action::Put(new),
            7 => Action::PutIfAbsent(new),
            8 => Action::CompareAndSet { expected: guess, new },
            _ => Action::Delete,
        }
    }

    fn step(&mut self, kind: Kind) {
        if !self.ghosts.is_empty() && self.dice.per_mille(100) {
            let at = self.dice.index(self.ghosts.len());
            let ghost = self.ghosts.swap_remove(at);
            self.value = apply(self.value, ghost, None).expect("any value will do");
        }
        let who = self.dice.index(self.clients.len());
        self.clients[who] = match self.clients[who] {
            Client::Idle => {
                let action = self.draw(kind);
                Client::Asked(self.history.invoke(who as u32, "k", action, LEVEL), action)
            }
            Client::Asked(id, action) if self.dice.per_mille(60) => {
                self.history.unknown(id);
                self.ghosts.push(action);
                Client::Idle
            }
            Client::Asked(id, _) if self.dice.per_mille(40) => {
                self.history.refused(id);
                Client::Idle
            }
            Client::Asked(id, action) => {
                let answer = said(self.value, action);
                self.value = apply(self.value, action, Some(answer)).expect("the answer is right");
                Client::Done(id, answer)
            }
            Client::Done(id, answer) => {
                self.history.answered(id, answer, Some(LEVEL));
                Client::Idle
            }
        };
    }
}

/// The only right answer.
fn said(value: Option<i64>, action: Action) -> Answer {
    let sum = |delta| value.unwrap_or(0) + delta;
    let all = [
        Answer::Value(value),
        Answer::Written,
        Answer::Refused(value),
        Answer::Replaced(value),
        Answer::Deleted(value.is_some()),
        Answer::Number(if let Action::Increment(delta) = action { sum(delta) } else { 0 }),
    ];
    all.into_iter().find(|answer| apply(value, action, Some(*answer)).is_some()).expect("one is right")
}

fn finals(value: Option<i64>) -> Finals {
    Finals::from([("k".to_owned(), value)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn correct_histories_pass(seed: u64, counter: bool) {
        let kind = if counter { Kind::Counter } else { Kind::Register };
        let (operations, value) = Correct::run(seed, kind, 400);
        prop_assert_eq!(linearizable(&operations), vec![]);
        prop_assert_eq!(once_in_counters(&operations, &finals(value)), vec![]);
        prop_assert_eq!(kept(&operations, &finals(value)), vec![]);
        prop_assert_eq!(levels(&operations), vec![]);
    }

    #[test]
    fn a_read_of_a_value_long_gone_is_found(seed: u64) {
        let (mut operations, _) = Correct::run(seed, Kind::Register, 400);
        prop_assume!(make_stale(&mut operations));
        prop_assert_eq!(linearizable(&operations).len(), 1);
    }

    #[test]
    fn a_doubled_increment_is_found(seed: u64) {
        let (mut operations, value) = Correct::run(seed, Kind::Counter, 400);
        // From some acknowledged increment on everybody sees one more; nothing of unknown
        // outcome is there to explain it.
        operations.retain(|operation| operation.outcome != Outcome::Unknown);
        prop_assume!(operations.len() > 20);
        let clean = Correct::replay(&operations);
        prop_assert_eq!(linearizable(&clean.0), vec![]);
        let doubled = double_one(clean.0);
        prop_assert_eq!(linearizable(&doubled).len(), 1);
        let _ = value;
        prop_assert_eq!(once_in_counters(&doubled, &finals(Some(clean.1 + 1))).len(), 1);
        prop_assert_eq!(once_in_counters(&doubled, &finals(Some(clean.1 - 1))).len(), 1);
    }
}

impl Correct {
    /// The same increments one after another, with right answers, and their sum.
    fn replay(operations: &[Operation]) -> (Vec<Operation>, i64) {
        let mut sum = 0;
        let mut clean: Vec<Operation> = Vec::new();
        for operation in operations.iter().filter(|operation| operation.action == Action::Increment(1)) {
            let order = clean.len() as u64 * 2;
            sum += 1;
            let outcome = Outcome::Answered(Answer::Number(sum));
            clean.push(Operation { invoked: order, returned: order + 1, outcome, ..operation.clone() });
        }
        (clean, sum)
    }
}

fn double_one(mut operations: Vec<Operation>) -> Vec<Operation> {
    let from = operations.len() / 2;
    for operation in &mut operations[from..] {
        if let Outcome::Answered(Answer::Number(number)) = &mut operation.outcome {
            *number += 1;
        }
    }
    operations
}

/// Makes the last read see a value that was overwritten by an acknowledged write before the
/// read began, and that nobody else can have written.
fn make_stale(operations: &mut [Operation]) -> bool {
    let Some(read) = operations.iter().rposition(|op| op.action == Action::Get && op.answer().is_some()) else {
        return false;
    };
    let before = |op: &Operation, than: &Operation| op.returned < than.invoked;
    let puts = || operations.iter().filter(|op| matches!(op.action, Action::Put(_)) && op.answer().is_some());
    let newer = puts().rfind(|put| before(put, &operations[read]));
    let older = newer.and_then(|newer| puts().find(|put| before(put, newer)));
    let Some(Operation { action: Action::Put(old), .. }) = older else { return false };
    let old = *old;
    operations[read].outcome = Outcome::Answered(Answer::Value(Some(old)));
    true
}

/// Operations one after another, each acknowledged before the next begins.
fn in_turn(steps: &[(Action, Outcome)]) -> Vec<Operation> {
    let history = History::default();
    for (action, outcome) in steps {
        let id = history.invoke(0, "k", *action, LEVEL);
        match outcome {
            Outcome::Answered(answer) => history.answered(id, *answer, Some(LEVEL)),
            Outcome::Refused => history.refused(id),
            Outcome::Unknown => history.unknown(id),
        }
    }
    history.operations()
}

const WRITTEN: Outcome = Outcome::Answered(Answer::Written);

fn read(value: Option<i64>) -> (Action, Outcome) {
    (Action::Get, Outcome::Answered(Answer::Value(value)))
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_only_once() {
    let late = [(Action::Put(1), Outcome::Unknown), (Action::Put(2), WRITTEN), read(Some(2)), read(Some(1))];
    assert_eq!(linearizable(&in_turn(&late)), vec![]);
    let twice = [late[0], late[1], read(Some(1)), (Action::Put(3), WRITTEN), read(Some(1))];
    assert_eq!(linearizable(&in_turn(&twice)).len(), 1);
    let never = [(Action::Put(1), Outcome::Unknown), read(None)];
    assert_eq!(linearizable(&in_turn(&never)), vec![]);
    let refused = [(Action::Put(1), Outcome::Refused), read(Some(1))];
    assert_eq!(linearizable(&in_turn(&refused)).len(), 1, "what was refused must not happen");
}

#[test]
fn a_condition_that_cannot_have_held_is_found() {
    let swap = Action::CompareAndSet { expected: Some(1), new: 3 };
    let put = |value| (Action::Put(value), WRITTEN);
    assert_eq!(linearizable(&in_turn(&[put(1), (swap, WRITTEN), read(Some(3))])), vec![]);
    assert_eq!(linearizable(&in_turn(&[put(1), put(2), (swap, WRITTEN)])).len(), 1);
    let absent = (Action::PutIfAbsent(9), Outcome::Answered(Answer::Refused(Some(1))));
    assert_eq!(linearizable(&in_turn(&[put(1), absent])), vec![]);
    assert_eq!(linearizable(&in_turn(&[absent])).len(), 1);
}

#[test]
fn a_replacement_or_a_removal_that_cannot_have_been_is_found() {
    let put = |value| (Action::Put(value), WRITTEN);
    let told = |action, answer| (action, Outcome::Answered(answer));
    let exchange = |was| told(Action::GetAndPut(5), Answer::Replaced(was));
    let right = [
        told(Action::Replace(4), Answer::Refused(None)),
        put(1),
        told(Action::RemoveIf(2), Answer::Refused(Some(1))),
        told(Action::Replace(4), Answer::Written),
        exchange(Some(4)),
        told(Action::RemoveIf(5), Answer::Deleted(true)),
        read(None),
    ];
    assert_eq!(linearizable(&in_turn(&right)), vec![]);
    let found = |steps: &[(Action, Outcome)]| linearizable(&in_turn(steps)).len();
    assert_eq!(found(&[told(Action::Replace(4), Answer::Written)]), 1, "there was nothing");
    assert_eq!(found(&[put(1), put(2), exchange(Some(1))]), 1, "of two writes the older was given");
    assert_eq!(found(&[put(1), told(Action::RemoveIf(2), Answer::Deleted(true))]), 1, "another value was there");
    assert_eq!(found(&[put(1), told(Action::RemoveIf(1), Answer::Deleted(true)), read(Some(1))]), 1, "it stayed");
    let late = [put(1), (Action::RemoveIf(1), Outcome::Unknown), read(Some(1)), read(None)];
    assert_eq!(found(&late), 0, "a removal of unknown outcome may happen late");
}

#[test]
fn an_unknown_write_that_nobody_saw_may_be_what_another_replaced() {
    for outcome in [WRITTEN, Outcome::Unknown] {
        let steps = [(Action::PutIfAbsent(1), Outcome::Unknown), (Action::Replace(2), outcome), read(Some(2))];
        assert_eq!(linearizable(&in_turn(&steps)), []);
        assert_ne!(linearizable(&in_turn(&steps[1..])), [], "there was nothing to replace");
    }
}

#[test]
fn many_unknown_increments_do_not_stall_the_search() {
    let mut steps = vec![(Action::Increment(1), Outcome::Unknown); 60];
    steps.extend((0..30).map(|seen| read(Some(seen * 2)).1).map(|outcome| (Action::Get, outcome)));
    steps[60] = read(None);
    assert_eq!(linearizable(&in_turn(&steps)), vec![]);
    steps.push(read(Some(61)));
    assert_eq!(linearizable(&in_turn(&steps)).len(), 1, "more than were ever asked for");
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    let steps = [(Action::Put(1), WRITTEN), (Action::Put(2), WRITTEN), (Action::Put(3), Outcome::Unknown)];
    let operations = in_turn(&steps);
    for (last, expected) in [(Some(2), 0), (Some(3), 0), (Some(1), 1), (None, 1), (Some(7), 1)] {
        assert_eq!(kept(&operations, &finals(last)).len(), expected, "ends with {last:?}");
    }
}

#[test]
fn an_acknowledgement_of_another_level_is_found() {
    let history = History::default();
    let id = history.invoke(1, "k", Action::Put(1), LEVEL);
    history.answered(id, Answer::Written, Some(AckLevel::Accepted));
    assert_eq!(levels(&history.operations()).len(), 1);
}

#[test]
fn counters_tell_lost_and_doubled_increments() {
    let number = |value| (Action::Increment(1), Outcome::Answered(Answer::Number(value)));
    let operations = in_turn(&[number(1), number(2), (Action::Increment(1), Outcome::Unknown)]);
    for (last, expected) in [(2, 0), (3, 0), (1, 1), (4, 1)] {
        assert_eq!(once_in_counters(&operations, &finals(Some(last))).len(), expected, "ends at {last}");
    }
    let twice = in_turn(&[number(1), number(1)]);
    assert_eq!(once_in_counters(&twice, &finals(Some(2))).len(), 1, "two clients got the same number");
}

#[test]
fn marks_are_found_once_each() {
    assert_eq!(once_each("list", &[1, 2], &[3, 4], &[2, 1, 3]), vec![]);
    assert_eq!(once_each("list", &[1, 2], &[], &[1]).len(), 1, "lost");
    assert_eq!(once_each("list", &[1], &[3], &[1, 3, 3]).len(), 1, "doubled");
    assert_eq!(once_each("list", &[1], &[], &[1, 8]).len(), 1, "invented");
}

#[test]
fn two_leaders_of_one_term_are_found() {
    let log = LeaderLog::default();
    for (group, term, node) in [(1, 1, "n1"), (1, 1, "n1"), (1, 2, "n2"), (2, 1, "n3")] {
        log.leader_observed(group, term, node);
    }
    assert_eq!((log.violations().len(), log.leaderships()), (0, 3));
    log.leader_observed(1, 2, "n3");
    assert_eq!(log.violations().len(), 1);
}
