//! A model of sled: trees of rows, changed by atomic batches.
//!
//! What was flushed survives every end of the process; of the batches since then a prefix does,
//! in their order, whether the machine lost power or only the process died (sled keeps them in
//! its own memory).

use crate::dice::Dice;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A tree's rows.
pub(crate) type Tree = BTreeMap<Bytes, Bytes>;

/// All trees, by name.
pub(crate) type Trees = BTreeMap<String, Tree>;

/// One atomic change.
#[derive(Clone, Debug)]
pub(crate) enum Batch {
    /// Puts and deletes in one tree.
    Rows(String, Vec<(Bytes, Option<Bytes>)>),
    /// Drops a tree.
    Drop(String),
}

fn apply(trees: &mut Trees, batch: &Batch) {
    match batch {
        Batch::Drop(tree) => drop(trees.remove(tree)),
        Batch::Rows(tree, rows) => {
            let tree = trees.entry(tree.clone()).or_default();
            for (row, value) in rows {
                match value {
                    Some(value) => drop(tree.insert(row.clone(), value.clone())),
                    None => drop(tree.remove(row)),
                }
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Database {
    now: Trees,
    flushed: Trees,
    unflushed: Vec<Batch>,
}

impl Database {
    pub(crate) fn trees(&self) -> &Trees {
        &self.now
    }

    pub(crate) fn apply(&mut self, batch: Batch) {
        apply(&mut self.now, &batch);
        self.unflushed.push(batch);
    }

    pub(crate) fn flush(&mut self) {
        let all = self.unflushed.len();
        self.keep(all);
    }

    /// Ends the process: a prefix of the unflushed batches survives.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        let kept = dice.index(self.unflushed.len() + 1);
        self.keep(kept);
        self.forget_unflushed();
    }

    pub(crate) fn forget_unflushed(&mut self) {
        if !self.unflushed.is_empty() {
            self.unflushed.clear();
            self.now = self.flushed.clone();
        }
    }

    fn keep(&mut self, batches: usize) {
        for batch in self.unflushed.drain(..batches) {
            apply(&mut self.flushed, &batch);
        }
    }
}
