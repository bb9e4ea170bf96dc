//! Makes card transactions when no input is named. In: a number and a seed. Out: events in time
//! order; the same seed gives the same events with every version of this program.

use super::event::Event;

/// Cards that may be used; few of them are used most.
const CARDS: u64 = 2_000;
/// When the year begins that the events are from: 2025-01-01 00:00:00 UTC.
const YEAR_START_S: i64 = 1_735_689_600;
const YEAR_SECONDS: u64 = 365 * 86_400;
/// A card's purchases of one outing lie within so many seconds.
const OUTING_SECONDS: u64 = 3 * 86_400;
/// Most purchases of one outing.
const OUTING_MAX: u64 = 8;
/// One in so many transactions is a refund.
const REFUND_ONE_IN: u64 = 40;
/// The largest amount, in pence.
const AMOUNT_MAX: u64 = 25_000;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and its numbers will never change.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, all alike but for a bias below 2^-40 for the bounds used here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number below `bound`, small ones far more often: the smallest of three.
    fn skewed(&mut self, bound: u64) -> u64 {
        self.below(bound).min(self.below(bound)).min(self.below(bound))
    }
}

/// So many transactions within a year, in time order.
pub(super) fn card_transactions(count: usize, seed: u64) -> Vec<Event> {
    let mut numbers = Numbers(seed);
    let mut drawn: Vec<(i64, u64, i64)> = Vec::with_capacity(count);
    while drawn.len() < count {
        let card = numbers.skewed(CARDS);
        let begin = numbers.below(YEAR_SECONDS - OUTING_SECONDS);
        let purchases = 1 + numbers.below(OUTING_MAX);
        for _ in 0..purchases.min((count - drawn.len()) as u64) {
            let time_s = YEAR_START_S + (begin + numbers.below(OUTING_SECONDS)) as i64;
            let amount = 1 + numbers.skewed(AMOUNT_MAX) as i64;
            let refund = numbers.below(REFUND_ONE_IN) == 0;
            drawn.push((time_s, card, if refund { -amount } else { amount }));
        }
    }
    drawn.sort_unstable();
    let event = |(row, (time_s, card, pence)): (u64, (i64, u64, i64))| Event {
        row,
        customer: format!("card-{card:04}"),
        time_s,
        pence,
    };
    (1..).zip(drawn).map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_seed_gives_the_same_events_for_ever() {
        let events = card_transactions(1000, 7);
        assert_eq!(events, card_transactions(1000, 7));
        assert_ne!(events, card_transactions(1000, 8));
        let first = &events[0];
        assert_eq!(first.row, 1);
        // Golden: a change here changes what `demo --seed` means.
        assert_eq!((first.customer.as_str(), first.time_s, first.pence), ("card-0690", 1_736_018_931, 3561));
    }

    #[test]
    fn events_are_in_order_within_a_year_and_skewed() {
        let events = card_transactions(50_000, 1);
        assert_eq!(events.len(), 50_000);
        assert!(events.windows(2).all(|pair| pair[0].time_s <= pair[1].time_s && pair[0].row + 1 == pair[1].row));
        assert!(events.iter().all(|event| event.time_s >= YEAR_START_S));
        assert!(events.iter().all(|event| event.time_s < YEAR_START_S + YEAR_SECONDS as i64));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for event in &events {
            *counts.entry(&event.customer).or_default() += 1;
        }
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable();
        let busiest_tenth: usize = counts.iter().rev().take(counts.len() / 10).sum();
        assert!(counts.len() > 1500 && busiest_tenth > 10_000, "{} cards, {busiest_tenth}", counts.len());
        assert!(events.iter().any(|event| event.pence < 0));
    }

    #[test]
    fn small_counts_are_exact() {
        for count in [0, 1, 5] {
            assert_eq!(card_transactions(count, 3).len(), count);
        }
    }
}
