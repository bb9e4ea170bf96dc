//! The rows that changed since the last checkpoint began. In: a row per write applied. Out: all of
//! them, in row order, for the checkpoint. One is added with each write, so it is a hash set, with
//! a hash that is the same in every process; it is sorted once, when it is taken.

use super::cells::RowKey;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// What a row costs in the set besides the part of its key that is not inline: 32 bytes for the key
/// in a table that is about 60 % full.
const ROW_COST: usize = 56;

/// xxh3 of the row's bytes; the length that a slice is hashed with besides says nothing new.
#[derive(Default)]
struct RowHasher(u64);

impl Hasher for RowHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxh3_64(bytes);
    }

    fn write_usize(&mut self, _length: usize) {}
}

/// A set of rows.
#[derive(Debug, Default)]
pub(super) struct Changed {
    rows: HashSet<RowKey, BuildHasherDefault<RowHasher>>,
    /// Bytes of keys outside of the table.
    outside: usize,
}

impl Changed {
    /// A row has changed.
    pub(super) fn insert(&mut self, row: &[u8]) {
        self.add(RowKey::new(row));
    }

    fn add(&mut self, row: RowKey) {
        let outside = row.held();
        if self.rows.insert(row) {
            self.outside += outside;
        }
    }

    /// Whether a row has changed.
    pub(super) fn contains(&self, row: &[u8]) -> bool {
        self.rows.contains(row)
    }

    /// Rows that a checkpoint took and did not write.
    pub(super) fn extend(&mut self, rows: Vec<RowKey>) {
        rows.into_iter().for_each(|row| self.add(row));
    }

    /// All, in row order. Sorts: whoever holds the state's lock takes the set and does this later.
    pub(super) fn into_sorted(self) -> Vec<RowKey> {
        let mut rows: Vec<RowKey> = self.rows.into_iter().collect();
        rows.sort_unstable();
        rows
    }

    /// Bytes of RAM.
    pub(super) fn held(&self) -> usize {
        self.rows.len() * ROW_COST + self.outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_comes_once_and_in_order() {
        let mut changed = Changed::default();
        let long = b"a longer row than fits into the tree's node";
        for row in [&b"b"[..], b"a", b"", b"b", long, long] {
            changed.insert(row);
        }
        let held = 4 * ROW_COST + RowKey::new(long).held();
        assert!(held > 4 * ROW_COST + long.len());
        assert_eq!(changed.held(), held);
        assert!(changed.contains(b"a") && !changed.contains(b"c"));
        let taken = std::mem::take(&mut changed).into_sorted();
        let rows: Vec<&[u8]> = taken.iter().map(RowKey::as_slice).collect();
        assert_eq!(rows, [&b""[..], b"a", long, b"b"]);
        assert_eq!(changed.held(), 0);
        changed.insert(b"a");
        changed.extend(taken);
        assert_eq!(changed.held(), held);
    }
}
