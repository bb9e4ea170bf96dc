//! Session order: what one session wrote to a slot took effect in the order of its calls, one after the
//! other or several at once, also where it gave up waiting for one: what was given up takes effect before
//! whatever the session writes there afterwards, or never.
//!
//! What can be seen of that: marks in a list, which are in the order in which they took effect; and of a key
//! to which rising numbers are put, that nobody reads an older one than was read or acknowledged before.
//!
//! Source: Ongaro's dissertation (2014), section 6.3, on linearizable sessions; DESIGN section 3: a
//! request runs after the session's previous unanswered one to the same slot, and at most once.

use super::Violation;
use std::collections::BTreeMap;

/// Checks the marks found in one place, each of which names its client in its upper half and rises
/// with that client's requests.
pub fn in_session_order(place: &str, found: &[u64]) -> Vec<Violation> {
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for mark in found {
        let (client, number) = (mark >> 32, mark & u64::from(u32::MAX));
        let before = newest.insert(client, number);
        if let Some(before) = before.filter(|before| *before >= number) {
            let what = format!("{place}: request {number} of client {client} took effect behind {before}");
            violations.push(Violation { check: "session order", what });
        }
    }
    violations
}

/// The newest of the rising numbers that one session puts to a key, as far as it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rising {
    newest: u64,
}

impl Rising {
    /// The put of this number was acknowledged, so that none before it is still to take effect.
    pub fn acknowledged(&mut self, number: u64) {
        self.newest = self.newest.max(number);
    }

    /// This was read; `before` is what was known when the reading began.
    pub fn read(&mut self, place: &str, before: Rising, found: u64) -> Option<Violation> {
        self.newest = self.newest.max(found);
        (found < before.newest).then(|| {
            let what =
                format!("{place}: request {} was known to have taken effect, then {found} was read", before.newest);
            Violation { check: "session order", what }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(client: u64, number: u64) -> u64 {
        client << 32 | number
    }

    #[test]
    fn clients_may_interleave_and_leave_numbers_out() {
        assert_eq!(in_session_order("list", &[mark(1, 1), mark(2, 5), mark(1, 3), mark(2, 6)]), []);
    }

    #[test]
    fn an_overtaken_or_repeated_request_is_found() {
        assert_eq!(in_session_order("list", &[mark(1, 2), mark(2, 1), mark(1, 1)]).len(), 1);
        assert_eq!(in_session_order("list", &[mark(1, 2), mark(1, 2)]).len(), 1);
    }

    #[test]
    fn of_several_calls_at_once_each_may_be_given_up_before_the_next_takes_effect() {
        // 2 and 5 were given up: 2 took effect in time, 5 never.
        assert_eq!(in_session_order("list", &[mark(1, 1), mark(1, 2), mark(1, 3), mark(1, 4), mark(1, 6)]), []);
        // 2 came behind 3, which was acknowledged while 1 was waited for.
        assert_eq!(in_session_order("list", &[mark(1, 3), mark(1, 2), mark(1, 4)]).len(), 1);
        // Also 1, which was sent before 2 was given up, has its place.
        assert_eq!(in_session_order("list", &[mark(1, 2), mark(1, 3), mark(1, 1)]).len(), 1);
    }

    #[test]
    fn rising_numbers_may_be_left_out_and_read_late() {
        let mut known = Rising::default();
        let begun = known;
        assert_eq!(known.read("key", begun, 0), None);
        known.acknowledged(3);
        // That read began before 3 was acknowledged.
        assert_eq!(known.read("key", begun, 2), None);
        let begun = known;
        // 4 was given up and took effect.
        assert_eq!(known.read("key", begun, 4), None);
        assert_eq!(known.read("key", begun, 3), None, "it began before 4 was read");
    }

    #[test]
    fn a_number_that_comes_back_is_found() {
        let mut known = Rising::default();
        known.acknowledged(7);
        let begun = known;
        assert!(known.read("key", begun, 6).is_some());
        let mut known = Rising::default();
        assert_eq!(known.read("key", Rising::default(), 9), None);
        let begun = known;
        assert!(known.read("key", begun, 8).is_some(), "what was read stands as what was acknowledged");
    }
}
