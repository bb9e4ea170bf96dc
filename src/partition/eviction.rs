//! Which entries make room when a map is at its limit. In: what is used and when, what goes. Out:
//! victims. The way is Redis' ("Key eviction" in its documentation, `evict.c`): no list in the
//! order of use, but a few entries drawn at random, of which the worst goes; so the order is
//! nearly that of use, at a few bytes an entry. `lru` takes the one that was idle for longest,
//! `lfu` the one with the lowest counter: 8 bits that count logarithmically (a counter at n rises
//! with a chance of 1 in 10(n-5)+1) and lose one a minute without use.
//!
//! This lives in the leader's RAM alone, and followers need none of it: a victim's deletion is a
//! row of the batch. A new leader begins with no memory of use. Pure: time and chance are
//! arguments.

use super::indexes::MapSize;
use crate::clock::Random;
use crate::types::{Eviction, MapOptions};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};

/// Entries of a map whose use is remembered in a partition: some 3 MiB. Of more, some are left
/// out, and are drawn only when those that are remembered have gone or they are used again.
pub(super) const USES: usize = 16_384;

/// Entries that are drawn for one victim; Redis' documentation finds ten very close to true LRU.
const SAMPLES: usize = 10;

/// The counter of an entry that has just come: it gets its chance before it goes.
const FIRST_COUNT: u8 = 5;
/// How much slower the counter rises the higher it stands.
const LOG_FACTOR: u64 = 10;
/// A counter loses one for each such time without use.
const DECAY_MS: u64 = 60_000;

/// What one partition may hold of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Entries.
    pub entries: u64,
    /// Bytes of their rows.
    pub bytes: u64,
}

impl Share {
    /// A partition's share of a map's limits: the limit divided by the partitions, rounded up. A
    /// replicated map lies in one partition as a whole. `None` for a map without limits.
    pub fn of(options: &MapOptions, partitions: u32) -> Option<Self> {
        let partitions = if options.replicated { 1 } else { u64::from(partitions.max(1)) };
        let share = |limit: u64| if limit == 0 { u64::MAX } else { limit.div_ceil(partitions) };
        options.is_limited().then(|| Share { entries: share(options.max_entries), bytes: share(options.max_bytes) })
    }

    /// Whether so much is more than the share.
    pub fn is_exceeded_by(&self, size: MapSize) -> bool {
        size.entries > self.entries || size.bytes > self.bytes
    }
}

#[derive(Debug)]
struct Use {
    row: Bytes,
    at_ms: u64,
    count: u8,
}

impl Use {
    /// The counter, less what it has lost since the last use.
    fn count_at(&self, now_ms: u64) -> u8 {
        let lost = now_ms.saturating_sub(self.at_ms) / DECAY_MS;
        self.count.saturating_sub(u8::try_from(lost).unwrap_or(u8::MAX))
    }
}

/// The remembered uses of a map's entries in one partition.
#[derive(Debug, Default)]
pub(super) struct Uses {
    all: Vec<Use>,
    places: HashMap<Bytes, usize>,
}

impl Uses {
    /// An entry was read or written.
    pub(super) fn used(&mut self, row: &Bytes, now_ms: u64, random: &dyn Random) {
        match self.places.get(row).and_then(|place| self.all.get_mut(*place)) {
            Some(known) => {
                let count = known.count_at(now_ms);
                let above = u64::from(count.saturating_sub(FIRST_COUNT));
                let rises = random.next_u64().is_multiple_of(above * LOG_FACTOR + 1);
                *known = Use { row: row.clone(), at_ms: now_ms, count: count.saturating_add(u8::from(rises)) };
            }
            None => self.remember(Use { row: row.clone(), at_ms: now_ms, count: FIRST_COUNT }, random),
        }
    }

    /// An entry of which no use is known; false when there is no room to remember more.
    pub(super) fn found(&mut self, row: &Bytes, random: &dyn Random) -> bool {
        if self.all.len() < USES && !self.places.contains_key(row) {
            self.remember(Use { row: row.clone(), at_ms: 0, count: FIRST_COUNT }, random);
        }
        self.all.len() < USES
    }

    fn remember(&mut self, new: Use, random: &dyn Random) {
        if self.all.len() >= USES {
            let place = (random.next_u64() % USES as u64) as usize;
            self.forget_at(place);
        }
        // A row's bytes are shared by vector and map, and are no part of a larger buffer.
        self.places.insert(new.row.clone(), self.all.len());
        self.all.push(new);
    }

    /// An entry has gone.
    pub(super) fn gone(&mut self, row: &Bytes) {
        if let Some(place) = self.places.get(row) {
            self.forget_at(*place);
        }
    }

    fn forget_at(&mut self, place: usize) {
        let old = self.all.swap_remove(place);
        self.places.remove(&old.row);
        if let Some(moved) = self.all.get(place) {
            self.places.insert(moved.row.clone(), place);
        }
    }

    /// Draws an entry to go, and forgets it; none of `spared`.
    pub(super) fn victim(
        &mut self,
        eviction: Eviction,
        now_ms: u64,
        spared: &BTreeSet<Bytes>,
        random: &dyn Random,
    ) -> Option<Bytes> {
        // Few entries are all looked at: else some draws would hit the same ones, or those spared.
        let few = self.all.len() <= SAMPLES + spared.len();
        let draws = if few { self.all.len() } else { SAMPLES };
        let draw = |turn: usize| if few { turn } else { (random.next_u64() % self.all.len() as u64) as usize };
        let worst =
            (0..draws).map(draw).filter(|place| !spared.contains(&self.all[*place].row)).min_by_key(|place| {
                let one = &self.all[*place];
                match eviction {
                    Eviction::Lfu => (one.count_at(now_ms), one.at_ms),
                    Eviction::Lru | Eviction::None => (0, one.at_ms),
                }
            })?;
        let row = self.all[worst].row.clone();
        self.forget_at(worst);
        Some(row)
    }
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
