//! The rows that changed since the last checkpoint began. In: a row per write applied. Out: all of
//! them, in row order, for the checkpoint.
//!
//! A checkpoint begins a new *generation*; a cell knows the generation that it was written in, so a
//! row that is written again in it costs a comparison. Rows that are deleted have no cell any more:
//! they are a hash set, with a hash that is the same in every process. Everything is sorted once,
//! when it is taken.

use super::cells::RowKey;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64;

/// What a row costs in the set: 32 bytes for its key in a table that is about 60 % full.
const DELETED_COST: usize = 56;

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

/// Rows that changed in one generation.
#[derive(Debug)]
pub(super) struct Changed {
    generation: u16,
    /// Once each, unless a checkpoint failed that had taken them.
    written: Vec<RowKey>,
    deleted: HashSet<RowKey, BuildHasherDefault<RowHasher>>,
    /// Bytes of keys that are not inline.
    long_keys: usize,
}

impl Default for Changed {
    fn default() -> Self {
        Changed::of(1)
    }
}

impl Changed {
    /// Nothing yet, in this generation, which is not 0.
    fn of(generation: u16) -> Self {
        Changed { generation, written: Vec::new(), deleted: HashSet::default(), long_keys: 0 }
    }

    /// The generation that changes belong to now.
    pub(super) fn generation(&self) -> u16 {
        self.generation
    }

    /// All of them; the next generation begins. `None` when the numbers of generations begin anew:
    /// then no cell may know one of before.
    pub(super) fn take(&mut self) -> (Changed, Option<u16>) {
        let next = self.generation.checked_add(1);
        (std::mem::replace(self, Changed::of(next.unwrap_or(1))), next)
    }

    /// A row was put; its earlier value, if it had one, was put in `before`.
    pub(super) fn put(&mut self, row: &[u8], before: Option<u16>) {
        if before == Some(self.generation) {
            return;
        }
        let row = RowKey::new(row);
        if before.is_none() && self.deleted.contains(&row) {
            return;
        }
        self.long_keys += row.held();
        self.written.push(row);
    }

    /// A row was deleted.
    pub(super) fn delete(&mut self, row: &[u8]) {
        let row = RowKey::new(row);
        let held = row.held();
        if self.deleted.insert(row) {
            self.long_keys += held;
        }
    }

    /// Rows that a checkpoint took and did not write.
    pub(super) fn extend(&mut self, rows: Vec<RowKey>) {
        self.long_keys += rows.iter().map(RowKey::held).sum::<usize>();
        self.written.extend(rows);
    }

    /// All, in row order, once each. Sorts: whoever holds the state's lock takes them and does this
    /// later.
    pub(super) fn into_sorted(self) -> Vec<RowKey> {
        let mut rows = self.written;
        rows.extend(self.deleted);
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Bytes of RAM.
    pub(super) fn held(&self) -> usize {
        self.written.capacity() * size_of::<RowKey>() + self.deleted.len() * DELETED_COST + self.long_keys
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Table;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_is_taken_leaves_nothing_and_long_keys_count() {
        let mut changed = Changed::default();
        changed.put(&[1; 100], None);
        changed.delete(&[2; 100]);
        changed.delete(&[2; 100]);
        assert!((200 + 32 + DELETED_COST..600).contains(&changed.held()), "{}", changed.held());
        let (taken, next) = changed.take();
        assert_eq!((taken.into_sorted().len(), next, changed.held()), (2, Some(2), 0));
    }

    #[test]
    fn the_numbers_of_generations_begin_anew() {
        let mut changed = Changed::of(u16::MAX);
        assert_eq!(changed.take().1, None);
        assert_eq!(changed.generation(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8),
        Delete(u8),
        Take { fails: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..12).prop_map(Step::Put),
            4 => (0u8..12).prop_map(Step::Delete),
            1 => any::<bool>().prop_map(|fails| Step::Take { fails }),
        ]
    }

    proptest! {
        /// A checkpoint gets exactly what changed since the last one that did not fail, and what is
        /// written again while it goes on is not clean afterwards.
        #[test]
        fn a_checkpoint_gets_what_changed(steps in prop::collection::vec(step(), 1..200), near_the_end: bool) {
            let mut changed = if near_the_end { Changed::of(u16::MAX - 2) } else { Changed::default() };
            let (mut table, mut expected) = (Table::default(), BTreeSet::new());
            let mut writing: Option<(Vec<RowKey>, BTreeSet<u8>, bool)> = None;
            for step in steps {
                match step {
                    Step::Put(row) => {
                        let before = table.put(&[row], b"", 0, changed.generation());
                        changed.put(&[row], before.map(|before| before.changed_in));
                        expected.insert(row);
                    }
                    Step::Delete(row) => {
                        if table.delete(&[row]).is_some() {
                            changed.delete(&[row]);
                            expected.insert(row);
                        }
                    }
                    Step::Take { fails } => {
                        if let Some((rows, took, fails)) = writing.take() {
                            if fails {
                                changed.extend(rows);
                                expected.extend(took);
                            } else {
                                rows.iter().for_each(|row| table.clean(row, changed.generation()));
                                for row in 0..12 {
                                    let dirty = table.get(&[row]).is_some_and(super::super::cells::Cell::is_dirty);
                                    prop_assert!(!expected.contains(&row) || dirty || table.get(&[row]).is_none());
                                    prop_assert!(!dirty || expected.contains(&row), "{row} stays dirty");
                                }
                            }
                            continue;
                        }
                        let (taken, next) = changed.take();
                        if next.is_none() {
                            table.forget_generations();
                        }
                        let rows = taken.into_sorted();
                        let bytes: Vec<u8> = rows.iter().map(|row| row.as_slice()[0]).collect();
                        prop_assert_eq!(bytes, expected.iter().copied().collect::<Vec<_>>());
                        writing = Some((rows, std::mem::take(&mut expected), fails));
                    }
                }
            }
        }
    }
}
