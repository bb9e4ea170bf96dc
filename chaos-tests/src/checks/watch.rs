//! Watch without gap or repeat: what a watcher saw, against what clients were told and what is
//! there in the end.
//!
//! Source: etcd's guarantees of watches (ordered, unique, reliable, atomic, resumable), as its
//! robustness tests check them (`tests/robustness`).

use super::{Finals, Violation};
use crate::history::{Action, Answer, Operation, Outcome};
use std::collections::BTreeMap;

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The partition.
    pub partition: u32,
    /// The revision of the change in it.
    pub revision: u64,
    /// The key.
    pub key: String,
    /// The number that was written; `None`: the entry went.
    pub value: Option<i64>,
}

/// What one unbroken watch saw: it may have gone on, from tokens, through other peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Who watched.
    pub name: String,
    /// Place of its beginning in the order of the history: what was invoked behind it must come.
    pub from: u64,
    /// What was there before the marks were written that it followed to, so that everything that
    /// had happened by then had to be there. `None` for a watch that ended sooner.
    pub end: Option<Finals>,
    /// The events.
    pub events: Vec<Seen>,
}

/// Checks one watch, as far as it shows these keys.
pub fn watched(watched: &Watched, operations: &[Operation], keys: &[&str]) -> Vec<Violation> {
    let mut violations = in_order(watched);
    for key in keys {
        let of_key: Vec<&Operation> = operations.iter().filter(|operation| operation.key == **key).collect();
        let events: Vec<&Seen> = watched.events.iter().filter(|event| event.key == **key).collect();
        let found = [written_by_somebody(&of_key, &events), in_real_time(&of_key, &events)];
        violations.extend(found.into_iter().flatten().map(|what| violation(watched, key, what)));
        if of_key.iter().all(|operation| matches!(operation.action, Action::Get | Action::Increment(1))) {
            violations.extend(counted(&events).map(|what| violation(watched, key, what)));
        }
        if let Some(end) = &watched.end {
            let end = end.get(*key).copied().flatten();
            let found = [missing(&of_key, &events, watched.from), wrong_end(&events, end)];
            violations.extend(found.into_iter().flatten().map(|what| violation(watched, key, what)));
        }
    }
    violations
}

fn violation(watched: &Watched, key: &str, what: String) -> Violation {
    Violation { check: "watch without gap or repeat", what: format!("{}, key {key}: {what}", watched.name) }
}

/// Revisions rise within a partition: nothing comes twice, nothing backwards.
fn in_order(watched: &Watched) -> Vec<Violation> {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in &watched.events {
        let before = newest.insert(event.partition, event.revision);
        if before.is_some_and(|before| before >= event.revision) {
            violations.push(violation(watched, &event.key, format!("{event:?} came after revision {before:?}")));
        }
    }
    violations
}

/// The value that an operation writes, if it took effect.
fn writes(action: Action) -> Option<i64> {
    match action {
        Action::Put(new)
        | Action::PutIfAbsent(new)
        | Action::CompareAndSet { new, .. }
        | Action::Replace(new)
        | Action::GetAndPut(new) => Some(new),
        Action::Get | Action::Delete | Action::RemoveIf(_) | Action::Increment(_) => None,
    }
}

fn may_have_happened(operation: &Operation) -> bool {
    !matches!(operation.outcome, Outcome::Refused | Outcome::Answered(Answer::Refused(_)))
}

fn written_by_somebody(operations: &[&Operation], events: &[&Seen]) -> Option<String> {
    if operations.iter().any(|operation| matches!(operation.action, Action::Increment(_))) {
        return None;
    }
    let nobody = events.iter().find(|event| {
        event.value.is_some_and(|value| {
            !operations.iter().any(|operation| writes(operation.action) == Some(value) && may_have_happened(operation))
        })
    })?;
    Some(format!("{nobody:?}, which nobody wrote"))
}

/// Of two writes, one answered before the other was asked for, the first comes first.
fn in_real_time(operations: &[&Operation], events: &[&Seen]) -> Option<String> {
    let operation_of =
        |event: &&Seen| operations.iter().find(|operation| writes(operation.action) == event.value).copied();
    let written: Vec<(&&Seen, &Operation)> = events
        .iter()
        .filter(|event| event.value.is_some())
        .filter_map(|event| Some((event, operation_of(event)?)))
        .collect();
    let wrong = written.windows(2).find(|pair| pair[1].1.returned < pair[0].1.invoked)?;
    Some(format!("{:?} came before {:?}, which had been acknowledged before it", wrong[0].0, wrong[1].0))
}

/// A counter that is only incremented by 1 shows every number.
fn counted(events: &[&Seen]) -> Option<String> {
    let gap = events.windows(2).find(|pair| pair[1].value != pair[0].value.map(|value| value + 1))?;
    Some(format!("{:?} came next to {:?}", gap[1], gap[0]))
}

/// Each acknowledged write that was asked for behind the watch's beginning has come.
fn missing(operations: &[&Operation], events: &[&Seen], from: u64) -> Option<String> {
    let asked = || operations.iter().filter(|operation| operation.invoked > from && operation.acknowledged_change());
    let lost = asked().find(|operation| {
        writes(operation.action).is_some_and(|value| !events.iter().any(|event| event.value == Some(value)))
    });
    if let Some(lost) = lost {
        return Some(format!("{:?} of c{} was acknowledged and never came", lost.action, lost.client));
    }
    let numbers = asked().filter_map(|operation| match operation.answer() {
        Some(Answer::Number(number)) => Some(number),
        _ => None,
    });
    for number in numbers {
        if !events.iter().any(|event| event.value == Some(number)) {
            return Some(format!("the increment to {number} was acknowledged and never came"));
        }
    }
    let deleted = asked().filter(|operation| operation.answer() == Some(Answer::Deleted(true))).count();
    let gone = events.iter().filter(|event| event.value.is_none()).count();
    (gone < deleted).then(|| format!("{deleted} deletions were acknowledged, {gone} came"))
}

/// The last event is what the entry ends with.
fn wrong_end(events: &[&Seen], end: Option<i64>) -> Option<String> {
    let last = events.last()?;
    (last.value != end).then(|| format!("the last event is {last:?}, the entry ends with {end:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;
    use keystead::types::AckLevel;

    fn seen(revision: u64, value: Option<i64>) -> Seen {
        Seen { partition: 0, revision, key: "k".to_owned(), value }
    }

    fn watch(events: Vec<Seen>, end: Option<i64>) -> Watched {
        Watched { name: "w".to_owned(), from: 0, end: Some([("k".to_owned(), end)].into()), events }
    }

    /// Two puts one after the other, and a deletion.
    fn history() -> Vec<Operation> {
        let history = History::default();
        for (action, answer) in [
            (Action::Put(1), Answer::Written),
            (Action::Put(2), Answer::Written),
            (Action::Delete, Answer::Deleted(true)),
        ] {
            let id = history.invoke(0, "k", action, AckLevel::MajorityFsync);
            history.answered(id, answer, Some(AckLevel::MajorityFsync));
        }
        history.operations()
    }

    fn check(events: Vec<Seen>) -> Vec<Violation> {
        watched(&watch(events, None), &history(), &["k"])
    }

    #[test]
    fn a_whole_watch_passes() {
        assert_eq!(check(vec![seen(1, Some(1)), seen(2, Some(2)), seen(3, None)]), []);
    }

    #[test]
    fn gaps_repeats_and_inventions_are_found() {
        assert!(!check(vec![seen(1, Some(1)), seen(3, None)]).is_empty(), "a put is missing");
        assert!(!check(vec![seen(1, Some(1)), seen(2, Some(2))]).is_empty(), "the deletion is missing");
        let repeated = vec![seen(1, Some(1)), seen(1, Some(1)), seen(2, Some(2)), seen(3, None)];
        assert!(!check(repeated).is_empty());
        let swapped = vec![seen(1, Some(2)), seen(2, Some(1)), seen(3, None)];
        assert!(!check(swapped).is_empty(), "out of real time");
        let invented = vec![seen(1, Some(1)), seen(2, Some(2)), seen(3, Some(9)), seen(4, None)];
        assert!(!check(invented).is_empty());
    }

    #[test]
    fn the_last_event_is_what_is_there_in_the_end() {
        let history = History::default();
        let put = |value| history.invoke(0, "k", Action::Put(value), AckLevel::MajorityFsync);
        history.answered(put(1), Answer::Written, Some(AckLevel::MajorityFsync));
        history.unknown(put(2));
        let check = |events, end| watched(&watch(events, end), &history.operations(), &["k"]);
        assert_eq!(check(vec![seen(1, Some(1))], Some(1)), [], "the one given up never took effect");
        assert_eq!(check(vec![seen(1, Some(1)), seen(2, Some(2))], Some(2)), [], "it did");
        assert!(!check(vec![seen(1, Some(1))], Some(2)).is_empty(), "it did, and never came");
        assert!(!check(vec![seen(1, Some(1)), seen(2, Some(2))], Some(1)).is_empty(), "it came, and never was there");
        let sooner = Watched { end: None, ..watch(vec![seen(1, Some(1))], None) };
        assert_eq!(watched(&sooner, &history.operations(), &["k"]), [], "nothing is known of its end");
    }

    #[test]
    fn a_counter_shows_every_number() {
        let history = History::default();
        for number in 1..=3 {
            let id = history.invoke(0, "k", Action::Increment(1), AckLevel::MajorityFsync);
            history.answered(id, Answer::Number(number), Some(AckLevel::MajorityFsync));
        }
        let check = |events| watched(&watch(events, Some(3)), &history.operations(), &["k"]);
        assert_eq!(check(vec![seen(1, Some(1)), seen(2, Some(2)), seen(3, Some(3))]), []);
        assert!(!check(vec![seen(1, Some(1)), seen(3, Some(3))]).is_empty());
    }
}
