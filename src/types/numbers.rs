//! The numbers of one session, as whoever sends its writes keeps them. In: writes that begin, are
//! answered or are given up. Out: what their stamps say of the others. Pure; knows no partition.
//!
//! A write that was given up may still be on its way. Once an older write of the session is waited for,
//! the lowest unanswered number does not tell of it; so the next write to its slots names it, in a range
//! of numbers that are waited for no more. The partition that takes that write refuses what is in the
//! range from then on.

use super::Slot;
use std::collections::{BTreeMap, BTreeSet};

/// Ranges that one stamp names, at most. They are gaps between unanswered numbers, so that so many are
/// needed only where writes are given up one by one between others that go on waiting.
pub const MAX_GIVEN_UP: usize = 256;

/// Numbers that are kept as given up, at most.
const MAX_KEPT: usize = 1 << 16;

/// First and last number of writes that nobody waits for any more.
pub type NumberRange = (u64, u64);

/// The slots that a write touches; none stands for all of them.
pub type Reach = Vec<Slot>;

/// A session's numbers.
#[derive(Debug, Default)]
pub struct Numbers {
    last: u64,
    unanswered: BTreeSet<u64>,
    /// Above the lowest unanswered one: given up, perhaps still on their way, with what they touch.
    given_up: BTreeMap<u64, Reach>,
    /// The same by slot; `None` for those that touch all.
    places: BTreeSet<(Option<Slot>, u64)>,
}

/// The places of a reach.
fn places(reach: &[Slot]) -> impl Iterator<Item = Option<Slot>> + '_ {
    let all = reach.is_empty().then_some(None);
    all.into_iter().chain(reach.iter().copied().map(Some))
}

impl Numbers {
    /// A new write's number.
    pub fn begin(&mut self) -> u64 {
        self.last += 1;
        self.unanswered.insert(self.last);
        self.last
    }

    /// Whether no write is waited for.
    pub fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// The lowest number that is waited for, not above `number`.
    pub fn lowest(&self, number: u64) -> u64 {
        self.unanswered.first().copied().unwrap_or(number).min(number)
    }

    /// A write is waited for no more, and nothing of it is on its way that its partition has not heard of.
    pub fn answered(&mut self, number: u64) {
        self.unanswered.remove(&number);
        self.forget_below(self.lowest(self.last + 1));
    }

    /// A write is waited for no more, and may still be on its way.
    pub fn give_up(&mut self, number: u64, reach: Reach) {
        self.unanswered.remove(&number);
        self.places.extend(places(&reach).map(|place| (place, number)));
        self.given_up.insert(number, reach);
        self.forget_below(self.lowest(self.last + 1));
    }

    /// Whether any write was given up that the lowest unanswered number does not tell of.
    pub fn any_given_up(&self) -> bool {
        !self.given_up.is_empty()
    }

    /// Whether so many were given up that no more may be begun.
    pub fn is_full(&self) -> bool {
        self.given_up.len() >= MAX_KEPT
    }

    /// What a write with this number and reach says of those before it, and above `after`, that were given
    /// up: ranges of numbers, ascending, in which every number is answered or given up. More than
    /// [`MAX_GIVEN_UP`] are not looked for.
    pub fn given_up_before(&self, number: u64, reach: &[Slot], after: u64) -> Vec<NumberRange> {
        let mut ranges: Vec<NumberRange> = Vec::new();
        let mut from = after + 1;
        while ranges.len() <= MAX_GIVEN_UP
            && let Some(given_up) = self.next_given_up(from, number, reach)
        {
            let below = self.unanswered.range(..given_up).next_back().map_or(1, |before| before + 1);
            let above = self.unanswered.range(given_up..).next().copied().unwrap_or(number);
            from = above.min(number);
            ranges.push((below, from - 1));
        }
        ranges
    }

    /// The lowest number from `from` on, below `number`, that was given up and touches these slots.
    fn next_given_up(&self, from: u64, number: u64, reach: &[Slot]) -> Option<u64> {
        if from >= number {
            return None;
        }
        if reach.is_empty() {
            return self.given_up.range(from..number).next().map(|(given_up, _)| *given_up);
        }
        let first = |place| self.places.range((place, from)..(place, number)).next().map(|(_, given_up)| *given_up);
        places(reach).chain([None]).filter_map(first).min()
    }

    fn forget(&mut self, number: u64) {
        for place in self.given_up.remove(&number).iter().flat_map(|reach| places(reach)) {
            self.places.remove(&(place, number));
        }
    }

    fn forget_below(&mut self, lowest: u64) {
        while let Some((&number, _)) = self.given_up.first_key_value()
            && number < lowest
        {
            self.forget(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begun(count: u64) -> Numbers {
        let mut numbers = Numbers::default();
        for _ in 0..count {
            numbers.begin();
        }
        numbers
    }

    #[test]
    fn a_write_names_what_was_given_up_in_its_slots() {
        let mut numbers = begun(9);
        let (here, there) = (vec![Slot(7)], vec![Slot(8)]);
        numbers.give_up(3, here.clone());
        numbers.give_up(6, there.clone());
        numbers.answered(4);
        assert_eq!(numbers.lowest(9), 1);
        assert_eq!(numbers.given_up_before(9, &here, 0), [(3, 4)]);
        assert_eq!(numbers.given_up_before(9, &there, 0), [(6, 6)]);
        assert_eq!(numbers.given_up_before(9, &[Slot(7), Slot(8)], 0), [(3, 4), (6, 6)]);
        assert_eq!(numbers.given_up_before(9, &[Slot(9)], 0), []);
        assert_eq!(numbers.given_up_before(9, &[], 0), [(3, 4), (6, 6)], "of all slots");
        assert_eq!(numbers.given_up_before(6, &there, 0), [], "what is older is not told of what is newer");
        assert_eq!(numbers.given_up_before(9, &here, 4), [], "the predecessor has said so");
        assert_eq!(numbers.given_up_before(9, &[Slot(7), Slot(8)], 3), [(6, 6)]);
    }

    #[test]
    fn what_touches_all_slots_is_named_by_every_write() {
        let mut numbers = begun(4);
        numbers.give_up(2, Reach::new());
        assert_eq!(numbers.given_up_before(4, &[Slot(1)], 0), [(2, 2)]);
    }

    #[test]
    fn what_the_lowest_unanswered_number_tells_of_is_not_named() {
        let mut numbers = begun(5);
        numbers.give_up(2, vec![Slot(1)]);
        numbers.answered(1);
        assert_eq!(numbers.given_up_before(5, &[Slot(1)], 0), []);
        assert!(!numbers.any_given_up() && !numbers.is_idle());
    }

    #[test]
    fn naming_does_not_walk_over_what_a_range_holds_and_ends_at_the_most() {
        let mut numbers = begun(2 * MAX_KEPT as u64);
        for number in 2..2 + MAX_KEPT as u64 {
            assert!(!numbers.is_full());
            numbers.give_up(number, vec![Slot(1)]);
        }
        assert!(numbers.is_full());
        assert_eq!(numbers.given_up_before(2 * MAX_KEPT as u64, &[Slot(1)], 0), [(2, 1 + MAX_KEPT as u64)]);
        let mut numbers = begun(4 * MAX_GIVEN_UP as u64);
        (1..2 * MAX_GIVEN_UP as u64).for_each(|half| numbers.give_up(2 * half, vec![Slot(1)]));
        assert_eq!(numbers.given_up_before(4 * MAX_GIVEN_UP as u64, &[Slot(1)], 0).len(), MAX_GIVEN_UP + 1);
    }

    proptest! {
        /// A range holds what was given up in the slots, and nothing that is waited for.
        #[test]
        fn ranges_tell_the_truth(fates in prop::collection::vec((0u8..3, 0u16..4), 1..80), slot in 0u16..4) {
            let mut numbers = begun(fates.len() as u64);
            let reach = |slot: u16| if slot == 3 { Reach::new() } else { vec![Slot(slot)] };
            for (number, (fate, slot)) in (1..).zip(&fates) {
                match fate {
                    0 => numbers.answered(number),
                    1 => numbers.give_up(number, reach(*slot)),
                    _ => {}
                }
            }
            let new = numbers.begin();
            let ranges = numbers.given_up_before(new, &reach(slot), 0);
            prop_assert!(ranges.windows(2).all(|two| two[0].1 + 1 < two[1].0));
            let named = |number: u64| ranges.iter().any(|(first, last)| (*first..=*last).contains(&number));
            prop_assert!(!named(new));
            for (number, (fate, of)) in (1..).zip(&fates) {
                let touches = slot == 3 || *of == 3 || *of == slot;
                prop_assert!(*fate != 2 || !named(number), "{} is waited for", number);
                let is_told = number < numbers.lowest(new) || named(number);
                prop_assert!(*fate != 1 || !touches || is_told, "{} was given up", number);
            }
        }
    }
}
