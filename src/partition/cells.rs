//! The rows of a replica in RAM: compact keys, in row order, each with a cell that holds the
//! value. In: puts and deletes. Out: values, ranges, and what all of it costs in memory. It never
//! reads a disk and knows nothing of logs, checkpoints or locks.
//!
//! Keys stay in RAM always, as in Bitcask; a value may be left to the backend. So a key is one
//! slot of 32 bytes in the tree, without an allocation of its own up to 30 bytes, and a value is
//! one allocation of exactly its size: it never pins the frame that it came in.

use super::rows::is_answer;
use bytes::Bytes;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Row keys up to this length live inside the tree's nodes.
const INLINE: usize = 30;

/// What a row costs besides its value and the part of its key that is not inline: 32 bytes for the
/// key and 32 for the cell, in nodes that are two thirds full as a rule, and the nodes' own parts.
/// `docs/PERFORMANCE.md` has the measurement.
pub(super) const ROW_OVERHEAD: usize = 118;

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
    pub(super) fn held(&self) -> usize {
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

impl Hash for RowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

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

/// A row's value, or what is known of it while only the backend has it.
#[derive(Debug)]
pub(super) struct Cell {
    /// `None`: cold. The backend's durable copy is this very value.
    value: Option<Box<[u8]>>,
    /// When the row expires by the partition's time; 0: never. Known without the value.
    pub(super) expires_ms: u64,
    len: u32,
    /// Changed since the last checkpoint began that has completed.
    dirty: bool,
    /// Read since the last sweep passed: gets a second chance.
    used: AtomicBool,
}

impl Cell {
    fn new(value: &[u8], expires_ms: u64, resident: bool, dirty: bool) -> Self {
        let value_len = value.len() as u32;
        let value = resident.then(|| value.into());
        Cell { value, expires_ms, len: value_len, dirty, used: AtomicBool::new(true) }
    }

    /// The value; `None` when it is cold.
    pub(super) fn value(&self) -> Option<Bytes> {
        self.used.store(true, Relaxed);
        self.value.as_deref().map(Bytes::copy_from_slice)
    }

    /// As [`Cell::value`], for whoever reads everything once: it does not keep the value in RAM.
    pub(super) fn peek(&self) -> Option<Bytes> {
        self.value.as_deref().map(Bytes::copy_from_slice)
    }

    /// Whether the value is in the backend alone.
    pub(super) fn is_cold(&self) -> bool {
        self.value.is_none()
    }

    /// The value's length.
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes outside of the tree's node.
    fn held(&self) -> usize {
        match &self.value {
            Some(value) if !value.is_empty() => value.len() + ALLOCATION,
            _ => 0,
        }
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
///
/// Kept answers come and go with every write and are few at any time: in a tree of their own they
/// are found without a walk through the entries' large one. Whoever reads a range sees one order.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Tree,
    answers: Tree,
    bytes: usize,
    held: usize,
    dirty: usize,
    cold: usize,
}

type Tree = BTreeMap<RowKey, Cell>;

/// Two sequences in row order as one; no row is in both.
struct Merged<A: Iterator, B: Iterator> {
    a: Peekable<A>,
    b: Peekable<B>,
}

impl<'a, C, A, B> Iterator for Merged<A, B>
where
    A: Iterator<Item = (&'a RowKey, C)>,
    B: Iterator<Item = (&'a RowKey, C)>,
{
    type Item = (&'a RowKey, C);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.a.peek(), self.b.peek()) {
            (Some((a, _)), Some((b, _))) if b < a => self.b.next(),
            (Some(_), _) => self.a.next(),
            (None, _) => self.b.next(),
        }
    }
}

fn merged<'a, C, A, B>(a: A, b: B) -> Merged<A, B>
where
    A: Iterator<Item = (&'a RowKey, C)>,
    B: Iterator<Item = (&'a RowKey, C)>,
{
    Merged { a: a.peekable(), b: b.peekable() }
}

/// What a step of a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Where the next step goes on; `None` at the end.
    pub(super) next: Option<RowKey>,
    /// Values made cold.
    pub(super) evicted: usize,
    /// Bytes of RAM that this gave back.
    pub(super) freed: usize,
}

impl Table {
    /// A table of rows in row order: its nodes are full, which a table filled by puts does not
    /// reach.
    pub(super) fn from_sorted(rows: Vec<(RowKey, Cell)>) -> Self {
        let mut table = Table::default();
        for (key, cell) in &rows {
            table.held += ROW_OVERHEAD + key.held();
            table.count(key.as_slice().len(), cell);
        }
        let (answers, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(key, _)| is_answer(key.as_slice()));
        table.rows = rows.into_iter().collect();
        table.answers = answers.into_iter().collect();
        table
    }

    fn tree(&self, row: &[u8]) -> &Tree {
        if is_answer(row) { &self.answers } else { &self.rows }
    }

    fn tree_mut(&mut self, row: &[u8]) -> &mut Tree {
        if is_answer(row) { &mut self.answers } else { &mut self.rows }
    }

    /// A cell for [`Table::from_sorted`], as clean as the checkpoint that it comes from.
    pub(super) fn clean_cell(value: &[u8], expires_ms: u64, resident: bool) -> Cell {
        Cell::new(value, expires_ms, resident, false)
    }

    /// What a row costs in RAM, with its value or without.
    pub(super) fn cost(row: &[u8], value: &[u8], resident: bool) -> usize {
        let key = if row.len() > INLINE { row.len() + ALLOCATION } else { 0 };
        ROW_OVERHEAD + key + if resident { value.len() + ALLOCATION } else { 0 }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.answers.len()
    }

    /// The kept answers, in row order.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&RowKey, &Cell)> {
        self.answers.iter()
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of RAM that they take.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of RAM that no checkpoint has made evictable.
    pub(super) fn dirty(&self) -> usize {
        self.dirty
    }

    /// Rows whose value is in the backend alone.
    pub(super) fn cold(&self) -> usize {
        self.cold
    }

    /// A row's cell.
    pub(super) fn get(&self, row: &[u8]) -> Option<&Cell> {
        self.tree(row).get(row)
    }

    /// The cells from a bound on, in row order.
    pub(super) fn range(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&RowKey, &Cell)> {
        let range = (from, Bound::Unbounded);
        merged(self.rows.range::<[u8], _>(range), self.answers.range::<[u8], _>(range))
    }

    fn count(&mut self, row_len: usize, cell: &Cell) {
        self.bytes += row_len + cell.len();
        self.held += cell.held();
        self.dirty += if cell.dirty { cell.held() } else { 0 };
        self.cold += usize::from(cell.is_cold());
    }

    fn forget(&mut self, row_len: usize, cell: &Cell) -> Before {
        self.bytes -= row_len + cell.len();
        self.held -= cell.held();
        self.dirty -= if cell.dirty { cell.held() } else { 0 };
        self.cold -= usize::from(cell.is_cold());
        Before { len: cell.len(), expires_ms: cell.expires_ms }
    }

    /// Puts a row; says what was there before. `dirty`: the backend does not have it yet.
    pub(super) fn put(&mut self, row: &[u8], value: &[u8], expires_ms: u64, dirty: bool) -> Option<Before> {
        let cell = Cell::new(value, expires_ms, true, dirty);
        self.count(row.len(), &cell);
        let key = RowKey::new(row);
        let held = key.held();
        let old = match self.tree_mut(row).entry(key) {
            Entry::Occupied(mut place) => place.insert(cell),
            Entry::Vacant(place) => {
                place.insert(cell);
                self.held += ROW_OVERHEAD + held;
                return None;
            }
        };
        Some(self.forget(row.len(), &old))
    }

    /// Deletes a row; says what was there.
    pub(super) fn delete(&mut self, row: &[u8]) -> Option<Before> {
        let (key, cell) = self.tree_mut(row).remove_entry(row)?;
        self.held -= ROW_OVERHEAD + key.held();
        Some(self.forget(row.len(), &cell))
    }

    /// A checkpoint that holds the row's value has completed.
    pub(super) fn clean(&mut self, row: &[u8]) {
        if let Some(cell) = self.tree_mut(row).get_mut(row)
            && std::mem::take(&mut cell.dirty)
        {
            let held = cell.held();
            self.dirty -= held;
        }
    }

    /// Gives a cold row its value back; false when the row is not cold any more.
    pub(super) fn warm(&mut self, row: &[u8], value: &[u8]) -> bool {
        let Some(cell) = self.tree_mut(row).get_mut(row).filter(|cell| cell.is_cold()) else { return false };
        cell.value = Some(value.into());
        cell.used.store(true, Relaxed);
        let held = cell.held();
        self.held += held;
        self.cold -= 1;
        true
    }

    /// One step of the clock's hand: of the next `most` rows after `after`, those that are clean
    /// and were not used since the hand last passed lose their values, except where `keep` says so.
    pub(super) fn sweep(&mut self, after: Option<&RowKey>, most: usize, keep: impl Fn(&RowKey) -> bool) -> Swept {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut swept = Swept::default();
        let range = (from, Bound::Unbounded);
        let all = merged(self.rows.range_mut::<RowKey, _>(range), self.answers.range_mut::<RowKey, _>(range));
        for (visited, (key, cell)) in all.enumerate() {
            if visited + 1 == most {
                swept.next = Some(key.clone());
            } else if visited == most {
                return swept;
            }
            if cell.is_cold() || cell.dirty || cell.used.swap(false, Relaxed) || keep(key) {
                continue;
            }
            swept.freed += cell.held();
            swept.evicted += 1;
            self.held -= cell.held();
            self.cold += 1;
            cell.value = None;
        }
        swept.next = None;
        swept
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
            assert_eq!(table.put(&row, b"value", 0, true), None);
            assert_eq!(table.put(&row, b"longer value", 9, false), Some(Before { len: 5, expires_ms: 0 }));
            assert_eq!(table.get(&row).expect("there").value(), Some(Bytes::from_static(b"longer value")));
        }
        assert_eq!((table.len(), table.bytes()), (5, 5 * 12 + 562));
        for length in [0, 1, 30, 31, 500] {
            assert_eq!(table.delete(&vec![7; length]), Some(Before { len: 12, expires_ms: 9 }));
        }
        assert_eq!((table.len(), table.bytes(), table.held(), table.dirty()), (0, 0, 0, 0));
        assert_eq!(table.delete(b"never there"), None);
    }

    #[test]
    fn answers_and_other_rows_are_one_sequence() {
        use super::super::rows::{answer_row, map_row, session_row};
        use crate::types::{MapId, SessionId, Slot};
        let mut rows: Vec<Bytes> = vec![session_row(SessionId(1)), session_row(SessionId(2))];
        for slot in 0..4 {
            rows.extend((0..3).map(|number| answer_row(Slot(slot), SessionId(7), number)));
            rows.extend([&b"a"[..], b"b"].map(|key| map_row(Slot(slot), MapId(1), key)));
        }
        let mut table = Table::default();
        for row in &rows {
            table.put(row, b"value", 0, false);
        }
        rows.sort();
        let read = |table: &Table, from| table.range(from).map(|(row, _)| row.to_bytes()).collect::<Vec<_>>();
        assert_eq!(read(&table, Bound::Unbounded), rows);
        for at in 0..rows.len() {
            assert_eq!(read(&table, Bound::Excluded(&rows[at])), rows[at + 1..]);
        }
        assert_eq!(table.answers().count(), 12);
        let sorted = rows.iter().map(|row| (RowKey::new(row), Table::clean_cell(b"value", 0, true))).collect();
        let loaded = Table::from_sorted(sorted);
        assert_eq!((read(&loaded, Bound::Unbounded), loaded.held()), (rows.clone(), table.held()));
        assert_eq!((table.sweep(None, 100, |_| false).evicted, table.sweep(None, 100, |_| false).evicted), (0, 22));
        assert!(rows.iter().all(|row| table.delete(row).is_some()));
        assert_eq!((table.len(), table.held(), table.cold()), (0, 0, 0));
    }

    #[test]
    fn only_clean_rows_that_nobody_used_become_cold() {
        let mut table = Table::default();
        for row in [b"a", b"b", b"c", b"d"] {
            table.put(row, b"value", 0, true);
        }
        let evicted = |table: &mut Table| table.sweep(None, 100, |key| key.as_slice() == b"d").evicted;
        assert_eq!((evicted(&mut table), evicted(&mut table)), (0, 0), "nothing is durable yet");
        for row in [b"a", b"b", b"d"] {
            table.clean(row);
        }
        assert_eq!(evicted(&mut table), 0, "they were written a moment ago");
        assert!(table.get(b"b").is_some_and(|cell| cell.value().is_some()), "b is used");
        assert_eq!(evicted(&mut table), 1);
        assert!(table.get(b"a").is_some_and(Cell::is_cold), "a was clean and unused");
        assert_eq!(evicted(&mut table), 1, "b had its second chance, c is dirty, d is kept");
        assert_eq!(table.cold(), 2);
        assert!(table.warm(b"a", b"value") && !table.warm(b"a", b"other") && !table.warm(b"z", b""));
        assert_eq!(table.get(b"a").and_then(Cell::value), Some(Bytes::from_static(b"value")));
        table.put(b"b", b"new", 0, true);
        assert!(!table.warm(b"b", b"value"), "what was loaded is older than what was put");
        for row in [b"a", b"b", b"c", b"d"] {
            table.delete(row);
        }
        assert_eq!((table.held(), table.dirty(), table.cold(), table.bytes()), (0, 0, 0, 0));
    }

    #[test]
    fn a_sweep_goes_on_where_it_stopped() {
        let mut table =
            Table::from_sorted((0..10u8).map(|row| (RowKey::new(&[row]), Table::clean_cell(b"v", 0, true))).collect());
        let (mut at, mut steps) = (None, 0);
        loop {
            let swept = table.sweep(at.as_ref(), 4, |_| false);
            steps += 1;
            at = swept.next;
            if at.is_none() {
                break;
            }
        }
        assert_eq!((steps, table.cold()), (3, 0), "the first round takes the marks away");
        assert_eq!(table.sweep(Some(&RowKey::new(&[3])), 100, |_| false).evicted, 6);
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
