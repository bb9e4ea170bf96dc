//! The rows of a replica in RAM: compact keys, in row order, each with a cell that holds the
//! value. In: puts and deletes. Out: values, ranges, and what all of it costs in memory. It never
//! reads a disk and knows nothing of logs, checkpoints or locks.
//!
//! Keys stay in RAM always, as in Bitcask; a value may be left to the backend. So a key is one
//! slot of 32 bytes in the tree, without an allocation of its own up to 30 bytes, and a value is
//! one allocation of exactly its size: it never pins the frame that it came in.

use bytes::Bytes;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

/// Row keys up to this length live inside the tree's nodes.
const INLINE: usize = 30;

/// What a row costs besides its value and the part of its key that is not inline: 32 bytes for the
/// key and 32 for the cell, in nodes that are two thirds full as a rule, and the nodes' own parts.
/// `docs/PERFORMANCE.md` has the measurement.
pub(super) const ROW_OVERHEAD: usize = 104;

/// What an allocation costs besides the bytes that were asked for.
const ALLOCATION: usize = 16;

/// A row's key, in as little memory as may be.
#[derive(Clone)]
pub(super) enum RowKey {
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
}

impl RowKey {
    pub(super) fn new(row: &[u8]) -> Self {
        if row.len() > INLINE {
            return RowKey::Heap(row.into());
        }
        let mut inline = [0; INLINE];
        inline[..row.len()].copy_from_slice(row);
        RowKey::Inline(row.len() as u8, inline)
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            RowKey::Inline(length, bytes) => &bytes[..usize::from(*length)],
            RowKey::Heap(bytes) => bytes,
        }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_slice())
    }

    /// Bytes outside of the tree's node.
    fn held(&self) -> usize {
        match self {
            RowKey::Inline(..) => 0,
            RowKey::Heap(bytes) => bytes.len() + ALLOCATION,
        }
    }
}

impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().fmt(f)
    }
}

/// A row's value, or what is known of it.
#[derive(Debug)]
pub(super) struct Cell {
    value: Box<[u8]>,
    /// When the row expires by the partition's time; 0: never. Known without the value.
    pub(super) expires_ms: u64,
}

impl Cell {
    /// The value.
    pub(super) fn value(&self) -> Bytes {
        Bytes::copy_from_slice(&self.value)
    }

    /// The value's length.
    pub(super) fn len(&self) -> usize {
        self.value.len()
    }

    /// Bytes outside of the tree's node.
    fn held(&self) -> usize {
        if self.value.is_empty() { 0 } else { self.value.len() + ALLOCATION }
    }
}

/// What a row's earlier value was like, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    /// The value's length.
    pub(super) len: usize,
    /// When it would have expired; 0: never.
    pub(super) expires_ms: u64,
}

/// All rows of a replica.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<RowKey, Cell>,
    bytes: usize,
    held: usize,
}

impl Table {
    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of RAM that they take.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// A row's cell.
    pub(super) fn get(&self, row: &[u8]) -> Option<&Cell> {
        self.rows.get(row)
    }

    /// The cells from a bound on, in row order.
    pub(super) fn range(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&RowKey, &Cell)> {
        self.rows.range::<[u8], _>((from, Bound::Unbounded))
    }

    fn forget(&mut self, row_len: usize, cell: &Cell) -> Before {
        self.bytes -= row_len + cell.len();
        self.held -= cell.held();
        Before { len: cell.len(), expires_ms: cell.expires_ms }
    }

    /// Puts a row; says what was there before.
    pub(super) fn put(&mut self, row: &[u8], value: &[u8], expires_ms: u64) -> Option<Before> {
        let cell = Cell { value: value.into(), expires_ms };
        self.bytes += row.len() + value.len();
        self.held += cell.held();
        if let Some(place) = self.rows.get_mut(row) {
            let old = std::mem::replace(place, cell);
            return Some(self.forget(row.len(), &old));
        }
        let key = RowKey::new(row);
        self.held += ROW_OVERHEAD + key.held();
        self.rows.insert(key, cell);
        None
    }

    /// Deletes a row; says what was there.
    pub(super) fn delete(&mut self, row: &[u8]) -> Option<Before> {
        let (key, cell) = self.rows.remove_entry(row)?;
        self.held -= ROW_OVERHEAD + key.held();
        Some(self.forget(row.len(), &cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_and_cells_are_small() {
        assert_eq!(size_of::<RowKey>(), 32);
        assert!(size_of::<Cell>() <= 32, "{}", size_of::<Cell>());
    }

    #[test]
    fn deleting_everything_gives_all_memory_back() {
        let mut table = Table::default();
        for length in [0, 1, 30, 31, 500] {
            let row = vec![7; length];
            assert_eq!(table.put(&row, b"value", 0), None);
            assert_eq!(table.put(&row, b"longer value", 9), Some(Before { len: 5, expires_ms: 0 }));
            assert_eq!(table.get(&row).expect("there").value(), Bytes::from_static(b"longer value"));
        }
        assert_eq!((table.len(), table.bytes()), (5, 5 * 12 + 562));
        for length in [0, 1, 30, 31, 500] {
            assert_eq!(table.delete(&vec![7; length]), Some(Before { len: 12, expires_ms: 9 }));
        }
        assert_eq!((table.len(), table.bytes(), table.held()), (0, 0, 0));
        assert_eq!(table.delete(b"never there"), None);
    }

    proptest! {
        #[test]
        fn keys_keep_their_bytes_and_their_order(a in proptest::collection::vec(0u8..3, 0..40), b in proptest::collection::vec(0u8..3, 0..40)) {
            let (key_a, key_b) = (RowKey::new(&a), RowKey::new(&b));
            prop_assert_eq!(key_a.as_slice(), &a[..]);
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
        }
    }
}
