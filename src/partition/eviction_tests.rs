//! Shares, and who makes room.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// A small generator (xorshift): the same chances at each run.
struct Dice(AtomicU64);

impl Random for Dice {
    fn next_u64(&self) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        x
    }
}

fn dice() -> Dice {
    Dice(AtomicU64::new(0x9E37_79B9_7F4A_7C15))
}

fn row(number: usize) -> Bytes {
    Bytes::from(format!("row {number}"))
}

fn nobody() -> BTreeSet<Bytes> {
    BTreeSet::new()
}

#[test]
fn a_partition_has_its_share_of_a_maps_limits() {
    let options = MapOptions::default().max_entries(100).max_bytes(6_400);
    assert_eq!(Share::of(&options, 64), Some(Share { entries: 2, bytes: 100 }));
    assert_eq!(Share::of(&options.clone().replicated(), 64), Some(Share { entries: 100, bytes: 6_400 }));
    let entries = Share::of(&MapOptions::default().max_entries(1), 64).expect("limited");
    assert_eq!(entries, Share { entries: 1, bytes: u64::MAX });
    assert!(!entries.is_exceeded_by(MapSize { entries: 1, bytes: 1 << 40 }));
    assert!(entries.is_exceeded_by(MapSize { entries: 2, bytes: 1 }));
    assert_eq!(Share::of(&MapOptions::default(), 64), None);
}

#[test]
fn of_a_few_entries_exactly_the_one_idle_for_longest_goes() {
    let (mut uses, dice) = (Uses::default(), dice());
    for (number, at_ms) in [(1, 10), (2, 20), (3, 30)] {
        uses.used(&row(number), at_ms, &dice);
    }
    uses.used(&row(1), 40, &dice);
    assert_eq!(uses.victim(Eviction::Lru, 50, &nobody(), &dice), Some(row(2)));
    let spared = BTreeSet::from([row(3)]);
    assert_eq!(uses.victim(Eviction::Lru, 50, &spared, &dice), Some(row(1)));
    assert_eq!(uses.victim(Eviction::Lru, 50, &spared, &dice), None, "the written entry itself never goes");
    uses.gone(&row(3));
    assert!(uses.all.is_empty() && uses.places.is_empty());
}

#[test]
fn an_entry_of_unknown_use_goes_before_any_that_was_used() {
    let (mut uses, dice) = (Uses::default(), dice());
    uses.used(&row(1), 1, &dice);
    assert!(uses.found(&row(2), &dice));
    assert!(uses.found(&row(1), &dice), "a known use is kept");
    assert_eq!(uses.victim(Eviction::Lru, 50, &nobody(), &dice), Some(row(2)));
}

/// How many of the first half, used late, and of the other half are evicted when a quarter goes.
fn evicted(eviction: Eviction, use_well: impl Fn(&mut Uses, &Dice)) -> (usize, usize) {
    let (mut uses, dice) = (Uses::default(), dice());
    for number in 0..1_000 {
        uses.used(&row(number), 1_000 + number as u64, &dice);
    }
    use_well(&mut uses, &dice);
    let good: BTreeSet<Bytes> = (0..500).map(row).collect();
    let gone: Vec<Bytes> =
        (0..250).map(|_| uses.victim(eviction, 10_000, &nobody(), &dice).expect("a victim")).collect();
    let of_good = gone.iter().filter(|row| good.contains(*row)).count();
    (of_good, gone.len() - of_good)
}

#[test]
fn of_many_entries_nearly_only_idle_ones_go() {
    let late = |uses: &mut Uses, dice: &Dice| (0..500).for_each(|number| uses.used(&row(number), 9_000, dice));
    let (of_good, of_idle) = evicted(Eviction::Lru, late);
    // All ten draws are good ones with a chance that rises from 0.1 % to 1.7 % as idle ones go: one
    // or two of 250 are to be expected, nine hardly ever.
    assert!(of_good <= 8 && of_idle >= 242, "{of_good} of those used late went");
}

#[test]
fn of_many_entries_nearly_only_seldom_used_ones_go() {
    let often = |uses: &mut Uses, dice: &Dice| {
        // So often that hardly any counter stays where one late use brings it: it rises with 1 in 11.
        for _ in 0..150 {
            (0..500).for_each(|number| uses.used(&row(number), 1_500, dice));
        }
        // One late use does not make an entry a frequent one.
        (500..1_000).for_each(|number| uses.used(&row(number), 9_999, dice));
    };
    let (of_good, of_seldom) = evicted(Eviction::Lfu, often);
    assert!(of_good <= 8 && of_seldom >= 242, "{of_good} of those used often went");
}

#[test]
fn counters_rise_slowly_and_fall_with_time() {
    let (mut uses, dice) = (Uses::default(), dice());
    (0..100).for_each(|_| uses.used(&row(1), 1, &dice));
    let after_100 = uses.all[0].count;
    assert!((8..=20).contains(&after_100), "{after_100}");
    (0..100_000).for_each(|_| uses.used(&row(1), 1, &dice));
    assert!((100..=255).contains(&uses.all[0].count), "{}", uses.all[0].count);
    assert_eq!(uses.all[0].count_at(1 + 3 * DECAY_MS), uses.all[0].count - 3);
    assert_eq!(uses.all[0].count_at(u64::MAX), 0);
}

#[test]
fn memory_of_use_is_bounded() {
    let (mut uses, dice) = (Uses::default(), dice());
    for number in 0..USES + 100 {
        uses.used(&row(number), 1, &dice);
    }
    assert_eq!((uses.all.len(), uses.places.len()), (USES, USES));
    assert!(!uses.found(&row(USES + 500), &dice));
    for (at, one) in uses.all.iter().enumerate() {
        assert_eq!(uses.places.get(&one.row), Some(&at));
    }
}
