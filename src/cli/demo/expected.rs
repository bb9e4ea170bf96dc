//! What the grid must answer, computed in one place from the events alone. Shares nothing with
//! the task `rolling-total` but the question: here each customer keeps every sub-window there
//! ever was, and the window is summed up anew.

use super::event::{BUCKETS, Event};
use std::collections::BTreeMap;

/// Every customer's sub-windows so far.
#[derive(Default)]
pub(super) struct Ledger<'a> {
    customers: BTreeMap<&'a str, BTreeMap<i64, i64>>,
}

impl<'a> Ledger<'a> {
    /// Adds an event and gives the customer's total over the window that ends with it.
    pub(super) fn add(&mut self, event: &'a Event) -> i64 {
        let own = self.customers.entry(&event.customer).or_default();
        *own.entry(event.bucket()).or_default() += event.pence;
        own.range(event.bucket() - i64::from(BUCKETS) + 1..=event.bucket()).map(|(_, pence)| pence).sum()
    }
}

/// The expected answers, one for each event.
#[cfg(test)]
pub(super) fn totals(events: &[Event]) -> Vec<i64> {
    let mut ledger = Ledger::default();
    events.iter().map(|event| ledger.add(event)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::event::BUCKET_SECONDS;

    fn event(customer: &str, bucket: i64, second: i64, pence: i64) -> Event {
        Event { row: 0, customer: customer.to_owned(), time_s: bucket * BUCKET_SECONDS + second, pence }
    }

    #[test]
    fn a_hand_computed_case() {
        let week = i64::from(BUCKETS);
        let events = [
            event("a", 1000, 0, 100),
            event("a", 1000, 3599, 20),
            event("b", 1000, 5, 7),
            event("a", 1001, 0, -50),
            event("a", 1000 + week - 1, 0, 1),
            // The first sub-window has just left, the second is the oldest one in.
            event("a", 1000 + week, 0, 2),
            event("a", 1001 + week, 0, 0),
            event("b", 1000 + 2 * week, 0, 3),
        ];
        assert_eq!(totals(&events), [100, 120, 7, 70, 71, -47, 3, 3]);
    }

    #[test]
    fn times_before_1970_have_sub_windows_too() {
        assert_eq!(totals(&[event("a", -1, 3599, 1), event("a", 0, 0, 2)]), [1, 3]);
    }
}
