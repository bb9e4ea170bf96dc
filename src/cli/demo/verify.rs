//! Compares what the grid answered with what it had to answer. Pure: events, expected totals and
//! answers in, counts out.
//!
//! An event's effect shows in every later answer of its customer whose window holds it. So the
//! answers are walked in order with what is already known to be wrong in each sub-window, and a
//! new difference is put down to one event: if it is that event's amount with the sign turned,
//! the effect is missing (lost); if it is the amount once more, it was counted twice.

use super::event::{BUCKETS, Event};
use std::collections::BTreeMap;

/// What the comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Answers that came.
    pub(super) answered: u64,
    /// Events without an answer.
    pub(super) unanswered: u64,
    /// Answers that differ from the expected ones, final questions included.
    pub(super) mismatches: u64,
    /// Acknowledged events whose effect is missing.
    pub(super) lost: u64,
    /// Events that were counted twice.
    pub(super) duplicated: u64,
}

impl Verdict {
    /// Whether the grid gave every answer, and each the right one.
    pub(super) fn is_flawless(&self) -> bool {
        self.unanswered + self.mismatches + self.lost + self.duplicated == 0
    }
}

/// What was asked and what came: an event, the answer that it should have, the answer it got.
pub(super) struct Answered<'a> {
    pub(super) event: &'a Event,
    pub(super) expected: i64,
    pub(super) answer: Option<i64>,
}

/// Judges all answers, in the order of the events.
pub(super) fn judge<'a>(answers: impl IntoIterator<Item = Answered<'a>>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut customers: BTreeMap<&str, Customer<'a>> = BTreeMap::new();
    for answered in answers {
        let customer = customers.entry(&answered.event.customer).or_default();
        customer.seen.push(Seen { event: answered.event, explained: false });
        let Some(answer) = answered.answer else {
            verdict.unanswered += 1;
            continue;
        };
        verdict.answered += 1;
        verdict.mismatches += u64::from(answer != answered.expected);
        let known = customer.known_error(answered.event.bucket());
        match customer.explain(answered.event.bucket(), answer - answered.expected - known) {
            Some(Effect::Lost) => verdict.lost += 1,
            Some(Effect::Twice) => verdict.duplicated += 1,
            None => {}
        }
    }
    verdict
}

enum Effect {
    Lost,
    Twice,
}

struct Seen<'a> {
    event: &'a Event,
    explained: bool,
}

#[derive(Default)]
struct Customer<'a> {
    seen: Vec<Seen<'a>>,
    /// Error by sub-window, as far as it has been explained.
    errors: BTreeMap<i64, i64>,
}

impl Customer<'_> {
    fn known_error(&self, bucket: i64) -> i64 {
        self.errors.range(bucket - i64::from(BUCKETS) + 1..=bucket).map(|(_, error)| error).sum()
    }

    /// Puts a new difference down to the youngest event in the window that it fits.
    fn explain(&mut self, bucket: i64, difference: i64) -> Option<Effect> {
        if difference == 0 {
            return None;
        }
        let oldest = bucket - i64::from(BUCKETS);
        let fits = |seen: &&mut Seen<'_>| {
            let at = seen.event.bucket();
            !seen.explained && at > oldest && at <= bucket && seen.event.pence.abs() == difference.abs()
        };
        let Some(seen) = self.seen.iter_mut().rev().find(fits) else {
            // Not one event's doing; it counts as a mismatch once and is then taken as given.
            *self.errors.entry(bucket).or_default() += difference;
            return None;
        };
        seen.explained = true;
        *self.errors.entry(seen.event.bucket()).or_default() += difference;
        Some(if seen.event.pence == difference { Effect::Twice } else { Effect::Lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::event::BUCKET_SECONDS;
    use crate::cli::demo::expected;

    fn events(rows: &[(&str, i64, i64)]) -> Vec<Event> {
        let event = |(row, (customer, bucket, pence)): (u64, &(&str, i64, i64))| Event {
            row,
            customer: (*customer).to_owned(),
            time_s: bucket * BUCKET_SECONDS,
            pence: *pence,
        };
        (1..).zip(rows).map(event).collect()
    }

    fn judge_against(events: &[Event], answers: &[Option<i64>]) -> Verdict {
        let expected = expected::totals(events);
        judge(events.iter().zip(expected).zip(answers).map(|((event, expected), answer)| Answered {
            event,
            expected,
            answer: *answer,
        }))
    }

    const ROWS: &[(&str, i64, i64)] = &[("a", 1, 100), ("b", 1, 5), ("a", 1, 30), ("a", 2, -7), ("a", 400, 1)];

    #[test]
    fn right_answers_are_flawless() {
        let verdict = judge_against(&events(ROWS), &[Some(100), Some(5), Some(130), Some(123), Some(1)]);
        assert_eq!(verdict, Verdict { answered: 5, ..Verdict::default() });
        assert!(verdict.is_flawless());
    }

    #[test]
    fn a_lost_event_is_found_once() {
        // The event of 30 was answered rightly, then it was gone.
        let verdict = judge_against(&events(ROWS), &[Some(100), Some(5), Some(130), Some(93), Some(1)]);
        assert_eq!(verdict, Verdict { answered: 5, mismatches: 1, lost: 1, ..Verdict::default() });
        // Lost at once: every later answer of the window is wrong, and one event explains them all.
        let verdict = judge_against(&events(ROWS), &[Some(0), Some(5), Some(30), Some(23), Some(1)]);
        assert_eq!(verdict, Verdict { answered: 5, mismatches: 3, lost: 1, ..Verdict::default() });
    }

    #[test]
    fn an_event_counted_twice_is_found_once() {
        let verdict = judge_against(&events(ROWS), &[Some(100), Some(10), Some(160), Some(153), Some(1)]);
        assert_eq!(verdict, Verdict { answered: 5, mismatches: 3, duplicated: 2, ..Verdict::default() });
        // A return that is counted twice lowers the total.
        let verdict = judge_against(&events(ROWS), &[Some(100), Some(5), Some(130), Some(116), Some(1)]);
        assert_eq!(verdict, Verdict { answered: 5, mismatches: 1, duplicated: 1, ..Verdict::default() });
    }

    #[test]
    fn missing_answers_and_what_nothing_explains_are_not_flawless() {
        let verdict = judge_against(&events(ROWS), &[Some(100), None, Some(130), Some(124), Some(1)]);
        assert_eq!(verdict, Verdict { answered: 4, unanswered: 1, mismatches: 1, ..Verdict::default() });
        assert!(!verdict.is_flawless());
    }
}
