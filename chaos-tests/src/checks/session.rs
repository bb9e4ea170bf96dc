//! Session order: what one session wrote to a slot, one request after the other, took effect in that
//! order, also where it gave up waiting for one.
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
}
