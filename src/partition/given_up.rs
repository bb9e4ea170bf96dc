//! Numbers of one session that are refused: its client has given these writes up and has written to their
//! slots since, and an older one is still waited for. In: ranges that stamps name. Out: whether a number
//! is among them, and their bytes in the session's row. Pure.

use crate::types::NumberRange;
use bytes::{Buf, BufMut, BytesMut};
use std::collections::BTreeMap;

/// Bytes of a range in a row: first and last number, little-endian.
const RANGE: usize = 16;

/// Ranges of numbers, apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// Last number by first.
    ranges: BTreeMap<u64, u64>,
}

impl GivenUp {
    /// How many ranges.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, last)| number <= *last)
    }

    /// Adds a range; whether anything in it is new.
    pub(super) fn add(&mut self, (mut first, mut last): NumberRange) -> bool {
        if first > last || self.ranges.range(..=first).next_back().is_some_and(|(_, known)| last <= *known) {
            return false;
        }
        // What it touches becomes one with it.
        while let Some((&from, &to)) = self.ranges.range(..=last.saturating_add(1)).next_back()
            && to.saturating_add(1) >= first
        {
            self.ranges.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.ranges.insert(first, last);
        true
    }

    /// Forgets what is below.
    pub(super) fn forget_below(&mut self, lowest: u64) {
        while let Some((&first, &last)) = self.ranges.first_key_value()
            && first < lowest
        {
            self.ranges.remove(&first);
            if last >= lowest {
                self.ranges.insert(lowest, last);
            }
        }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        for (first, last) in &self.ranges {
            out.put_u64_le(*first);
            out.put_u64_le(*last);
        }
    }

    /// What a row has; `None` unless it is whole ranges.
    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut given_up = GivenUp::default();
        if !row.len().is_multiple_of(RANGE) {
            return None;
        }
        for mut range in row.chunks_exact(RANGE) {
            given_up.add((range.get_u64_le(), range.get_u64_le()));
        }
        Some(given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut given_up = GivenUp::default();
        assert!(given_up.is_empty() && given_up.add((3, 4)) && given_up.add((8, 8)) && given_up.add((5, 6)));
        assert!(!given_up.add((4, 5)), "nothing is new");
        assert!(!given_up.add((5, 4)), "nothing is in it");
        assert_eq!(given_up.len(), 2);
        assert!(given_up.add((7, 7)));
        assert_eq!(given_up.ranges, BTreeMap::from([(3, 8)]));
        assert!(given_up.add((1, u64::MAX)) && given_up.contains(u64::MAX));
    }

    #[test]
    fn ranges_have_golden_bytes() {
        let mut given_up = GivenUp::default();
        given_up.add((3, 4));
        given_up.add((258, 258));
        let mut out = BytesMut::new();
        given_up.encode(&mut out);
        assert_eq!(&out[..], b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0");
        assert_eq!(GivenUp::decode(&out), Some(given_up));
        assert_eq!(GivenUp::decode(&out[1..]), None);
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((1u64..60, 0u64..6, prop::bool::weighted(0.1)), 0..60)) {
            let (mut given_up, mut model) = (GivenUp::default(), BTreeSet::new());
            for (first, more, forget) in steps {
                if forget {
                    given_up.forget_below(first);
                    model.retain(|number| *number >= first);
                    continue;
                }
                let before = model.len();
                model.extend(first..=first + more);
                prop_assert_eq!(given_up.add((first, first + more)), model.len() > before);
            }
            prop_assert!((0..70).all(|number| given_up.contains(number) == model.contains(&number)));
            let runs = model.iter().filter(|number| !model.contains(&(*number + 1))).count();
            prop_assert_eq!(given_up.len(), runs);
            let mut out = BytesMut::new();
            given_up.encode(&mut out);
            prop_assert_eq!(GivenUp::decode(&out), Some(given_up));
        }
    }
}
