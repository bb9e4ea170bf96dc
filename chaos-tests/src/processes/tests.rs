//! Histories that must fail, each beside one that must not: the checker is what a run rests on.

use super::round::check;
use crate::checks::{Finals, linearizable};
use crate::history::{Action, Answer, Operation, Outcome};
use keystead::types::AckLevel;
use std::time::Duration;

const UNKNOWN: Outcome = Outcome::Unknown;

fn said(answer: Answer) -> Outcome {
    Outcome::Answered(answer)
}

fn read(value: i64) -> Outcome {
    said(Answer::Value(Some(value)))
}

fn swap(expected: i64, new: i64) -> Action {
    Action::CompareAndSet { expected: Some(expected), new }
}

/// Operations of one key: from, to, what, and what came of it.
fn history(of: &[(u64, u64, Action, Outcome)]) -> Vec<Operation> {
    let operation = |(client, (invoked, returned, action, outcome)): (u32, &(u64, u64, Action, Outcome))| Operation {
        client,
        key: "k".to_owned(),
        action: *action,
        invoked: *invoked,
        returned: if *outcome == UNKNOWN { u64::MAX } else { *returned },
        outcome: *outcome,
        at: Duration::ZERO,
        levels: (AckLevel::MajorityFsync, matches!(outcome, Outcome::Answered(_)).then_some(AckLevel::MajorityFsync)),
    };
    (0..).zip(of).map(operation).collect()
}

fn fails(of: &[(u64, u64, Action, Outcome)]) -> bool {
    !linearizable(&history(of)).is_empty()
}

const WRITTEN: Outcome = Outcome::Answered(Answer::Written);
const NOTHING: Outcome = Outcome::Answered(Answer::Value(None));

#[test]
fn a_stale_read_is_found() {
    let with = |returned| {
        [(1, 2, Action::Put(1), WRITTEN), (3, returned, Action::Put(2), WRITTEN), (5, 6, Action::Get, read(1))]
    };
    assert!(fails(&with(4)), "the second write had been acknowledged");
    assert!(!fails(&with(7)), "the two overlap: either may come first");
    // Two reads that follow each other never go back, even while the write is under way.
    let back = [
        (1, 2, Action::Put(1), WRITTEN),
        (3, 0, Action::Put(2), UNKNOWN),
        (4, 5, Action::Get, read(2)),
        (6, 7, Action::Get, read(1)),
    ];
    assert!(fails(&back));
}

#[test]
fn a_lost_write_is_found() {
    let lost = [(1, 2, Action::Put(1), WRITTEN), (3, 4, Action::Get, NOTHING)];
    assert!(fails(&lost));
    let operations = history(&lost);
    let checks: Vec<_> = check(&operations, &Finals::from([("k".to_owned(), None)])).iter().map(|v| v.check).collect();
    assert!(checks.len() >= 2, "not only one check finds it: {checks:?}");
    let unknown = [(1, 2, Action::Put(1), UNKNOWN), (3, 4, Action::Get, NOTHING), (5, 6, Action::Get, read(1))];
    assert!(!fails(&unknown), "a write of unknown outcome may take effect late, or never");
    let twice = [unknown[0], unknown[1], unknown[2], (7, 8, Action::Get, NOTHING)];
    assert!(fails(&twice), "but it does not go away again");
}

#[test]
fn a_double_increment_is_found() {
    let number = |number| said(Answer::Number(number));
    let counted = |last| {
        [
            (1, 2, Action::Increment(1), number(1)),
            (3, 0, Action::Increment(1), UNKNOWN),
            (5, 6, Action::Get, read(last)),
        ]
    };
    assert!(!fails(&counted(1)) && !fails(&counted(2)));
    assert!(fails(&counted(3)), "the one of unknown outcome took effect twice");
    assert!(fails(&[(1, 2, Action::Increment(1), number(1)), (3, 4, Action::Get, read(2))]));
    assert!(fails(&[(1, 2, Action::Increment(1), number(1)), (3, 4, Action::Increment(1), number(1))]), "one was lost");
}

#[test]
fn a_compare_and_set_that_succeeded_twice_is_found() {
    let both = |second| [(1, 2, Action::Put(1), WRITTEN), (3, 6, swap(1, 2), WRITTEN), (4, 5, swap(1, 3), second)];
    assert!(fails(&both(WRITTEN)), "both found the same value");
    assert!(!fails(&both(said(Answer::Refused(Some(2))))));
    assert!(!fails(&both(UNKNOWN)));
    assert!(fails(&both(said(Answer::Refused(Some(1))))), "it was refused although the value was there");
}

#[test]
fn a_value_from_the_future_is_found() {
    let with = |invoked| [(1, 2, Action::Get, read(7)), (invoked, 9, Action::Put(7), WRITTEN)];
    assert!(fails(&with(3)), "it was read before anybody asked for it");
    assert!(!fails(&with(1)));
    assert!(fails(&[(1, 2, Action::Get, read(7))]), "nobody ever wrote it");
    assert!(fails(&[(1, 2, Action::Get, read(7)), (1, 2, Action::Put(7), Outcome::Refused)]), "its write was refused");
}

#[test]
fn thousands_of_operations_of_many_clients_are_judged() {
    // Five writes at a time, and a read behind them that saw one of them; in the end one is stale.
    let mut of = Vec::new();
    for at in 0..800_u64 {
        let (begin, value) = (at * 40, |client: u64| (at * 10 + client) as i64);
        for client in 0..5 {
            let outcome = if client == 4 { UNKNOWN } else { WRITTEN };
            of.push((begin + client, begin + 18 - client, Action::Put(value(client)), outcome));
        }
        of.push((begin + 19, begin + 20, Action::Get, read(value(at % 4))));
    }
    assert_eq!(linearizable(&history(&of)), vec![]);
    let last = of.len() - 1;
    of[last].3 = read(11);
    let found = linearizable(&history(&of));
    assert!(found.len() == 1 && found[0].what.contains("no order explains"), "{found:?}");
}
