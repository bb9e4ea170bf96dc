//! The state backend of simulated nodes that would use sled.
//!
//! In: the calls of `StateBackend`. Out: the same batches and flushes, in the same order, as the
//! real one makes, on a model of sled that belongs to the machine's disk: the power may go at
//! any of them. It does not encode rows; the real backend's formats have tests of their own.

use crate::disk::Mount;
use crate::disk::database::{Batch, Tree};
use bytes::Bytes;
use keystead::error::{Code, Error, Result};
use keystead::storage::backend::{ReplicaKey, Rows, StateBackend};
use keystead::types::GroupId;
use std::io;

/// Rows per batch: few, so that a checkpoint can be cut short in many places.
const CHUNK_ROWS: usize = 16;

const CATALOGUE: &str = "catalogue";
/// First byte of a row's key in a tree, so that rows and these two never meet.
const ROW: u8 = b'r';
const META: Bytes = Bytes::from_static(b"meta");
const AHEAD: Bytes = Bytes::from_static(b"ahead");

/// Checkpoints in a model of sled.
pub struct SimBackend {
    mount: Mount,
}

fn failed(error: io::Error) -> Error {
    let code = if error.kind() == io::ErrorKind::StorageFull { Code::DiskFull } else { Code::DiskFailed };
    Error::new(code, format!("sled: {error}"))
}

fn catalogue_key(key: ReplicaKey) -> Bytes {
    let mut bytes = key.group.0.to_be_bytes().to_vec();
    bytes.extend(key.replica.to_be_bytes());
    bytes.into()
}

fn parse_key(bytes: &[u8]) -> Option<ReplicaKey> {
    let (group, replica) = bytes.split_first_chunk()?;
    let replica = u64::from_be_bytes(replica.try_into().ok()?);
    Some(ReplicaKey { group: GroupId(u32::from_be_bytes(*group)), replica })
}

fn tree_name(key: ReplicaKey, generation: u64) -> String {
    format!("rows {key} {generation}")
}

fn row_key(row: &[u8]) -> Bytes {
    [&[ROW], row].concat().into()
}

impl SimBackend {
    /// The backend of a process on this disk.
    ///
    /// # Errors
    /// `DiskFailed` when the disk is off.
    pub fn open(mount: Mount) -> Result<Self> {
        let backend = SimBackend { mount };
        backend.drop_left_overs()?;
        Ok(backend)
    }

    fn drop_left_overs(&self) -> Result<()> {
        let keys = self.replicas()?;
        let named = keys.iter().map(|key| Ok(self.generation(*key)?.map(|generation| tree_name(*key, generation))));
        let named: Vec<String> = named.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let all = self.mount.database(|trees| trees.keys().cloned().collect::<Vec<_>>()).map_err(failed)?;
        for tree in all.into_iter().filter(|tree| tree != CATALOGUE && !named.contains(tree)) {
            self.apply(Batch::Drop(tree))?;
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        self.mount.apply_batch(batch).map_err(failed)
    }

    fn flush(&self) -> Result<()> {
        self.mount.flush_database().map_err(failed)
    }

    fn tree<T>(&self, name: &str, read: impl FnOnce(&Tree) -> T) -> Result<Option<T>> {
        self.mount.database(|trees| trees.get(name).map(read)).map_err(failed)
    }

    fn generation(&self, key: ReplicaKey) -> Result<Option<u64>> {
        let value = self.tree(CATALOGUE, |tree| tree.get(&catalogue_key(key)).cloned())?.flatten();
        Ok(value.and_then(|value| value.as_ref().try_into().ok().map(u64::from_be_bytes)))
    }

    fn point(&self, key: ReplicaKey, row: &Bytes) -> Result<Option<Bytes>> {
        let Some(generation) = self.generation(key)? else { return Ok(None) };
        Ok(self.tree(&tree_name(key, generation), |tree| tree.get(row).cloned())?.flatten())
    }

    fn fill(
        &self,
        tree: &str,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>>,
        meta: &mut dyn FnMut() -> Bytes,
        mark_ahead: bool,
    ) -> Result<()> {
        let mut rows = rows.map(|row| row.map(|(row, value)| (row_key(&row), value))).peekable();
        let mut chunk: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        let mut flush_first = false;
        while let Some(row) = rows.next() {
            chunk.push(row?);
            if chunk.len() >= CHUNK_ROWS && rows.peek().is_some() {
                if mark_ahead {
                    chunk.push((AHEAD, Some(meta())));
                }
                self.apply(Batch::Rows(tree.to_owned(), std::mem::take(&mut chunk)))?;
                flush_first = true;
            }
        }
        if flush_first {
            self.flush()?;
        }
        chunk.push((AHEAD, None));
        chunk.push((META, Some(meta())));
        self.apply(Batch::Rows(tree.to_owned(), chunk))?;
        self.flush()
    }

    fn replace(
        &self,
        key: ReplicaKey,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>>,
        meta: &mut dyn FnMut() -> Bytes,
    ) -> Result<()> {
        let old = self.generation(key)?;
        let new = old.unwrap_or(0) + 1;
        let tree = tree_name(key, new);
        // An attempt that failed may have left rows under this name.
        self.apply(Batch::Drop(tree.clone()))?;
        self.fill(&tree, rows, meta, false)?;
        let row = (catalogue_key(key), Some(Bytes::copy_from_slice(&new.to_be_bytes())));
        self.apply(Batch::Rows(CATALOGUE.to_owned(), vec![row]))?;
        self.flush()?;
        match old {
            Some(old) => self.apply(Batch::Drop(tree_name(key, old))),
            None => Ok(()),
        }
    }
}

impl StateBackend for SimBackend {
    fn name(&self) -> &'static str {
        "simulated sled"
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn serves_rows(&self) -> bool {
        true
    }

    fn get_many(&self, key: ReplicaKey, rows: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let Some(generation) = self.generation(key)? else { return Ok(vec![None; rows.len()]) };
        let get = |tree: &Tree| rows.iter().map(|row| tree.get(&row_key(row)).cloned()).collect();
        Ok(self.tree(&tree_name(key, generation), get)?.unwrap_or_else(|| vec![None; rows.len()]))
    }

    fn load(&self, key: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>> {
        let Some(generation) = self.generation(key)? else { return Ok(None) };
        let rows = self.tree(&tree_name(key, generation), Tree::clone)?.unwrap_or_default();
        let Some(meta) = rows.get(&META).cloned() else {
            return Err(Error::new(Code::CorruptLog, "a checkpoint has no meta row"));
        };
        for (row, value) in rows.into_iter().filter(|(row, _)| row.first() == Some(&ROW)) {
            visit(row.slice(1..), value);
        }
        Ok(Some(meta))
    }

    fn ahead(&self, key: ReplicaKey) -> Result<Option<Bytes>> {
        self.point(key, &AHEAD)
    }

    fn checkpoint(&self, key: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()> {
        match rows {
            Rows::All(rows) => self.replace(key, &mut rows.map(|row| row.map(|(row, value)| (row, Some(value)))), meta),
            Rows::Changed(rows) => match self.generation(key)? {
                Some(generation) => self.fill(&tree_name(key, generation), rows, meta, true),
                None => self.replace(key, rows, meta),
            },
        }
    }

    fn remove(&self, key: ReplicaKey) -> Result<()> {
        let Some(generation) = self.generation(key)? else { return Ok(()) };
        self.apply(Batch::Rows(CATALOGUE.to_owned(), vec![(catalogue_key(key), None)]))?;
        self.flush()?;
        self.apply(Batch::Drop(tree_name(key, generation)))?;
        self.flush()
    }

    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        let keys = self.tree(CATALOGUE, |tree| tree.keys().filter_map(|row| parse_key(row)).collect())?;
        Ok(keys.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use crate::disk::SimDisk;
    use keystead::storage::backend::conformance::{self, Model};
    use std::collections::BTreeSet;

    #[test]
    fn it_passes_the_backends_suite() {
        let disk = SimDisk::new(Dice::new(1, "disk"));
        conformance::run(&|| Box::new(SimBackend::open(disk.mount()).expect("opened")));
    }

    fn rows(range: std::ops::Range<u32>, value: &'static str) -> Vec<(Bytes, Option<Bytes>)> {
        let value = Bytes::from_static(value.as_bytes());
        range.map(|row| (Bytes::copy_from_slice(&row.to_be_bytes()), Some(value.clone()))).collect()
    }

    /// What is left when the power goes at the n-th change of a checkpoint of changes.
    fn cut_short(seed: u64, changes: u64) -> (String, Option<Bytes>, usize) {
        let disk = SimDisk::new(Dice::new(seed, "disk"));
        let key = ReplicaKey { group: GroupId(1), replica: 1 };
        let mut model = Model::default();
        let backend = SimBackend::open(disk.mount()).expect("opened");
        let old = Bytes::from_static(b"old");
        model.checkpoint(&backend, key, &rows(0..50, "old"), &old, true).expect("written");
        disk.power_off_after(changes);
        let new = Bytes::from_static(b"new");
        let _ = model.checkpoint(&backend, key, &rows(0..50, "new"), &new, false);
        disk.crash();
        let backend = SimBackend::open(disk.mount()).expect("opened");
        let found = conformance::loaded(&backend, key).expect("readable").expect("there");
        let newer = found.rows.values().filter(|value| value.as_ref() == b"new").count();
        (String::from_utf8_lossy(&found.meta).into_owned(), backend.ahead(key).expect("readable"), newer)
    }

    #[test]
    fn a_checkpoint_cut_short_says_how_far_ahead_its_rows_are() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            for changes in 1..8 {
                let (meta, ahead, newer) = cut_short(seed, changes);
                match (meta.as_str(), &ahead) {
                    ("old", None) => assert_eq!(newer, 0),
                    ("old", Some(_)) => assert!((1..50).contains(&newer)),
                    (_, ahead) => assert_eq!((newer, ahead), (50, &None)),
                }
                seen.insert((meta, newer));
            }
        }
        assert!(seen.len() >= 5, "a crash strikes in many places: {seen:?}");
    }
}
