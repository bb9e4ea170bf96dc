//! The rows that changed since the last checkpoint began. In: a row per write applied. Out: all of
//! them, in row order, for the checkpoint. One is added with each write, so it is a hash set, with
//! a hash that is the same in every process; it is sorted once, when it is taken.

use super::cells::RowKey;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// What a row costs in the set: 32 bytes for its key in a table that is about 60 % full.
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
}

impl Changed {
    /// A row has changed.
    pub(super) fn insert(&mut self, row: &[u8]) {
        self.rows.insert(RowKey::new(row));
    }

    /// Whether a row has changed.
    pub(super) fn contains(&self, row: &[u8]) -> bool {
        self.rows.contains(row)
    }

    /// Rows that a checkpoint took and did not write.
    pub(super) fn extend(&mut self, rows: Vec<RowKey>) {
        self.rows.extend(rows);
    }

    /// All, in row order. Sorts: whoever holds the state's lock takes the set and does this later.
    pub(super) fn into_sorted(self) -> Vec<RowKey> {
        let mut rows: Vec<RowKey> = self.rows.into_iter().collect();
        rows.sort_unstable();
        rows
    }

    /// Bytes of RAM.
    pub(super) fn held(&self) -> usize {
        self.rows.len() * ROW_COST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_comes_once_and_in_order() {
        let mut changed = Changed::default();
        for row in [&b"b"[..], b"a", b"", b"b", b"a longer row than fits into the tree's node"] {
            changed.insert(row);
        }
        assert_eq!(changed.held(), 4 * ROW_COST);
        assert!(changed.contains(b"a") && !changed.contains(b"c"));
        let taken = std::mem::take(&mut changed).into_sorted();
        let rows: Vec<&[u8]> = taken.iter().map(RowKey::as_slice).collect();
        assert_eq!(rows, [&b""[..], b"a", b"a longer row than fits into the tree's node", b"b"]);
        assert_eq!(changed.held(), 0);
        changed.insert(b"a");
        changed.extend(taken);
        assert_eq!(changed.held(), 4 * ROW_COST);
    }
}
