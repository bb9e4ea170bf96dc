//! When entries expire: the rules, and the index of a replica's rows by their time. In: puts and
//! deletes of rows, a time. Out: the next time at which something expires, and what has. Every
//! replica keeps the index beside its rows, so that a new leader has it at once.
//!
//! An entry is gone from the moment at which the *partition's* time reaches its time of expiry,
//! and never before. That time is a row of the partition, moved on by the leader's batches alone.
//! So a follower's clock decides nothing; and since whatever hides an entry commits that time
//! first, no later leader shows the entry again. Pure: the time is an argument.

use super::cells::RowKey;
use crate::types::MapOptions;
use bytes::Bytes;
use std::collections::BTreeSet;

/// What an indexed row costs: a row key and a time in the nodes of a tree.
const ROW_OVERHEAD: usize = 64;

/// Whether an entry that expires at a time (0: never) is gone.
pub fn is_expired(expires_ms: u64, now_ms: u64) -> bool {
    expires_ms != 0 && expires_ms <= now_ms
}

/// When an entry expires that is written now; 0: never. A write that names no time to live takes
/// its map's; 0 keeps the entry.
pub fn expires_at(now_ms: u64, ttl_ms: Option<u64>, map: &MapOptions) -> u64 {
    match ttl_ms.unwrap_or(map.ttl_ms) {
        0 => 0,
        ttl_ms => now_ms.saturating_add(ttl_ms),
    }
}

/// A replica's expiring rows, by their time.
#[derive(Debug, Default)]
pub(super) struct ExpiryIndex {
    rows: BTreeSet<(u64, RowKey)>,
}

impl ExpiryIndex {
    /// A row expires at another time than before; 0: never, or there is no row.
    pub(super) fn moved(&mut self, row: &[u8], before_ms: u64, expires_ms: u64) {
        if before_ms == expires_ms {
            return;
        }
        if before_ms != 0 {
            self.rows.remove(&(before_ms, RowKey::new(row)));
        }
        if expires_ms != 0 {
            self.rows.insert((expires_ms, RowKey::new(row)));
        }
    }

    /// When the next row expires.
    pub(super) fn next(&self) -> Option<u64> {
        self.rows.first().map(|(expires_ms, _)| *expires_ms)
    }

    /// Rows that have expired, the oldest first, at most `limit`.
    pub(super) fn due(&self, now_ms: u64, limit: usize) -> Vec<Bytes> {
        let due = self.rows.iter().take_while(|(expires_ms, _)| is_expired(*expires_ms, now_ms));
        due.take(limit).map(|(_, row)| row.to_bytes()).collect()
    }

    /// Bytes of RAM that it takes.
    pub(super) fn held(&self) -> usize {
        self.rows.len() * ROW_OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_write_takes_its_own_time_or_the_maps() {
        let map = MapOptions { ttl_ms: 50, ..MapOptions::default() };
        assert_eq!(expires_at(100, None, &map), 150);
        assert_eq!(expires_at(100, Some(7), &map), 107);
        assert_eq!(expires_at(100, Some(0), &map), 0, "it stays");
        assert_eq!(expires_at(100, None, &MapOptions::default()), 0);
        assert!(!is_expired(150, 149) && is_expired(150, 150) && !is_expired(0, u64::MAX));
    }

    #[test]
    fn rows_come_out_in_the_order_of_their_times() {
        let mut index = ExpiryIndex::default();
        for (row, expires_ms) in [(b"a", 30), (b"b", 10), (b"c", 20)] {
            index.moved(row, 0, expires_ms);
        }
        assert_eq!((index.next(), index.held()), (Some(10), 3 * ROW_OVERHEAD));
        assert_eq!(index.due(9, 9), Vec::<Bytes>::new());
        assert_eq!(index.due(20, 9), [&b"b"[..], b"c"]);
        assert_eq!(index.due(99, 1), [&b"b"[..]], "bounded");
        index.moved(b"b", 10, 40);
        index.moved(b"c", 20, 0);
        assert_eq!(index.due(99, 9), [&b"a"[..], b"b"]);
        index.moved(b"a", 30, 0);
        index.moved(b"b", 40, 0);
        assert_eq!((index.next(), index.held()), (None, 0));
    }

    proptest! {
        #[test]
        fn the_index_is_what_the_rows_say(moves in prop::collection::vec((0u8..6, 0u64..5), 0..60), now in 0u64..6) {
            let (mut index, mut rows) = (ExpiryIndex::default(), BTreeMap::new());
            for (row, expires_ms) in moves {
                let before = rows.insert(row, expires_ms).unwrap_or(0);
                index.moved(&[row], before, expires_ms);
            }
            let mut due: Vec<(u64, u8)> =
                rows.into_iter().filter(|(_, at)| is_expired(*at, now)).map(|(row, at)| (at, row)).collect();
            due.sort_unstable();
            let found: Vec<u8> = index.due(now, usize::MAX).iter().map(|row| row[0]).collect();
            prop_assert_eq!(found, due.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
        }
    }
}
