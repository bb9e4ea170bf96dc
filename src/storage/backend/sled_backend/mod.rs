//! The backend for states that persist row by row: sled, one database per node.
//!
//! In: the rows that changed since the last checkpoint (or all), and the meta. Out: the rows of
//! the last checkpoint. It never flushes by itself between checkpoints, never runs in the
//! simulator (sled does its own I/O), and never holds more than one chunk of rows in memory.
//!
//! # Why a checkpoint of changes may be cut short by a crash
//! Changes go into the replica's tree in chunks, each one atomic sled batch; the last chunk holds
//! the new meta too, and everything before it was flushed. So after a crash sled has the old meta
//! and the rows of some chunks, or the new meta and all rows. The second is the new checkpoint.
//! The first is a fuzzy state: some rows are newer than the old meta's index `i`, none older.
//! That is repaired by the log, which is kept from `i` on until this call has returned: entries
//! hold absolute puts and deletes and nothing that applies them reads a row, so replaying
//! everything after `i` gives each touched row its last value, whatever it held; a deletion that
//! arrived early is either repeated by the entry that made it, or undone by a later put. What
//! decides whether an entry applies is in the meta, exactly as of `i`, never among the rows.
//!
//! One thing must be known: how far to replay before the rows agree with each other. Hence each
//! chunk but the last carries, in the same batch, the meta as of that chunk; [`SledBackend`]
//! gives it back as `ahead`, and the last chunk deletes it. Log entries up to there are committed,
//! but a power loss may have taken them from this replica's own log, so the replica must wait
//! until its leader has sent them again.
//!
//! A checkpoint of all rows fills a new tree, which the catalogue names in one put once it is
//! flushed: old or new, with nothing between. The old tree is dropped then; one that a crash left
//! behind is dropped at the next open.
//!
//! # What sled 0.34 costs
//! It keeps several times the data on disk and exceeds its cache bound in memory. Held down by a
//! small cache, by batches of bounded size, by its `LowSpace` mode, and by writing each changed
//! row once per checkpoint, however often it changed.

mod config;
mod format;

pub use config::SledConfig;

use super::row_value::{decode_value, encode_value};
use super::{ReplicaKey, Rows, StateBackend};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use config::sled_error;
use format::{AHEAD, CATALOGUE, META, ROW, ROWS_PREFIX};
use sled::{Batch, Db, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Checkpoints in a sled database.
pub struct SledBackend {
    db: Db,
    catalogue: Tree,
    config: SledConfig,
    /// The trees that rows are read from, by replica: opening one costs several look-ups.
    open: Mutex<BTreeMap<ReplicaKey, (u64, Tree)>>,
}

/// One replica's tree and the generation in its name.
struct Generation {
    number: u64,
    name: String,
    tree: Tree,
}

fn place(tree: &str) -> String {
    format!("sled tree {tree}")
}

/// Rows on their way into one sled batch.
#[derive(Default)]
struct Chunk {
    batch: Batch,
    rows: usize,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let key = format::row_key(key);
        self.rows += 1;
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        match value {
            Some(value) => {
                let value = encode_value(&key, value);
                self.batch.insert(key, value);
            }
            None => self.batch.remove(key),
        }
    }

    fn is_full(&self, config: &SledConfig) -> bool {
        self.rows >= config.max_batch_rows || self.bytes >= config.max_batch_bytes
    }
}

impl SledBackend {
    /// Opens the database in a directory, which is created if need be.
    ///
    /// # Errors
    /// `DataDirBusy` when another process has it open; `CorruptLog`, `DiskFull`, `DiskFailed`.
    pub fn open(dir: &Path, config: SledConfig) -> Result<Self> {
        let db = config::open(dir, &config)?;
        let catalogue = db.open_tree(CATALOGUE).map_err(|error| sled_error("cannot be opened", &error))?;
        let backend = SledBackend { db, catalogue, config, open: Mutex::default() };
        backend.drop_left_overs()?;
        Ok(backend)
    }

    /// Drops trees that no catalogue row names.
    fn drop_left_overs(&self) -> Result<()> {
        let mut named = BTreeSet::new();
        for key in self.replicas()? {
            named.extend(self.generation_of(key)?.map(|number| format::tree_name(key, number).into_bytes()));
        }
        for name in self.db.tree_names() {
            if name.starts_with(ROWS_PREFIX.as_bytes()) && !named.contains(name.as_ref()) {
                self.db.drop_tree(&name).map_err(|error| sled_error("cannot drop a left-over tree", &error))?;
            }
        }
        Ok(())
    }

    fn generation_of(&self, key: ReplicaKey) -> Result<Option<u64>> {
        let row = format::catalogue_key(key);
        let found = self.catalogue.get(row).map_err(|error| sled_error("cannot be read", &error))?;
        let Some(value) = found else { return Ok(None) };
        let value = decode_value(&place(CATALOGUE), &row, &value)?;
        let number = <[u8; 8]>::try_from(&value[..]).map_err(|_| {
            Error::new(Code::CorruptLog, format!("the catalogue row of replica {key} is malformed")).at("sled")
        })?;
        Ok(Some(u64::from_le_bytes(number)))
    }

    fn open_generation(&self, key: ReplicaKey, number: u64) -> Result<Generation> {
        let name = format::tree_name(key, number);
        let tree = self.db.open_tree(&name).map_err(|error| sled_error("cannot open a tree", &error))?;
        Ok(Generation { number, name, tree })
    }

    fn current(&self, key: ReplicaKey) -> Result<Option<Generation>> {
        self.generation_of(key)?.map(|number| self.open_generation(key, number)).transpose()
    }

    fn open_trees(&self) -> MutexGuard<'_, BTreeMap<ReplicaKey, (u64, Tree)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree that a replica's rows are read from.
    fn serving(&self, key: ReplicaKey) -> Result<Option<(String, Tree)>> {
        if let Some((number, tree)) = self.open_trees().get(&key) {
            return Ok(Some((format::tree_name(key, *number), tree.clone())));
        }
        let Some(current) = self.current(key)? else { return Ok(None) };
        self.open_trees().insert(key, (current.number, current.tree.clone()));
        Ok(Some((current.name, current.tree)))
    }

    fn point(&self, generation: &Generation, row: &[u8]) -> Result<Option<Bytes>> {
        let found = generation.tree.get(row).map_err(|error| sled_error("cannot be read", &error))?;
        found.map(|value| decode_value(&place(&generation.name), row, &value)).transpose()
    }

    fn flush(&self) -> Result<()> {
        self.db.flush().map(|_| ()).map_err(|error| sled_error("cannot be flushed", &error))
    }

    /// Writes rows in chunks, then the meta with the last one. In a new tree nobody can see the
    /// chunks before the catalogue names it, so `mark_ahead` is for existing ones only.
    fn fill(
        &self,
        tree: &Tree,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>>,
        meta: &mut dyn FnMut() -> Bytes,
        mark_ahead: bool,
    ) -> Result<()> {
        let apply = |batch| tree.apply_batch(batch).map_err(|error| sled_error("cannot write rows", &error));
        let mut rows = rows.peekable();
        let mut chunk = Chunk::default();
        let mut chunks = 0_usize;
        while let Some(row) = rows.next() {
            let (key, value) = row?;
            chunk.push(&key, value.as_deref());
            if chunk.is_full(&self.config) && rows.peek().is_some() {
                let mut full = std::mem::take(&mut chunk);
                if mark_ahead {
                    full.batch.insert(AHEAD, encode_value(AHEAD, &meta()));
                }
                apply(full.batch)?;
                chunks += 1;
            }
        }
        if chunks > 0 {
            // The meta must not become durable before the rows; not left to sled's recovery.
            self.flush()?;
        }
        chunk.batch.remove(AHEAD);
        chunk.batch.insert(META, encode_value(META, &meta()));
        apply(chunk.batch)?;
        self.flush()
    }

    /// Makes a filled tree the replica's checkpoint.
    fn publish(&self, key: ReplicaKey, new: &Generation, old: Option<&Generation>) -> Result<()> {
        let row = format::catalogue_key(key);
        let value = encode_value(&row, &new.number.to_le_bytes());
        self.catalogue.insert(row, value).map_err(|error| sled_error("cannot write its catalogue", &error))?;
        self.flush()?;
        self.open_trees().insert(key, (new.number, new.tree.clone()));
        if let Some(old) = old {
            self.db.drop_tree(&old.name).map_err(|error| sled_error("cannot drop the old tree", &error))?;
        }
        Ok(())
    }

    fn replace(
        &self,
        key: ReplicaKey,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>>,
        meta: &mut dyn FnMut() -> Bytes,
    ) -> Result<()> {
        let old = self.current(key)?;
        let number = old.as_ref().map_or(1, |old| old.number + 1);
        // An attempt that failed may have left rows under this name.
        let name = format::tree_name(key, number);
        self.db.drop_tree(name).map_err(|error| sled_error("cannot drop a left-over tree", &error))?;
        let new = self.open_generation(key, number)?;
        self.fill(&new.tree, rows, meta, false)?;
        self.publish(key, &new, old.as_ref())
    }
}

impl StateBackend for SledBackend {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn serves_rows(&self) -> bool {
        true
    }

    fn get_many(&self, key: ReplicaKey, rows: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let Some((name, tree)) = self.serving(key)? else { return Ok(vec![None; rows.len()]) };
        let get = |row: &Bytes| {
            let row = format::row_key(row);
            let found = tree.get(&row).map_err(|error| sled_error("cannot be read", &error))?;
            found.map(|value| decode_value(&place(&name), &row, &value)).transpose()
        };
        rows.iter().map(get).collect()
    }

    fn load(&self, key: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>> {
        let Some(generation) = self.current(key)? else { return Ok(None) };
        let Some(meta) = self.point(&generation, META)? else {
            return Err(Error::new(Code::CorruptLog, "a checkpoint has no meta row")
                .at(format!("sled tree {}", generation.name)));
        };
        for row in generation.tree.scan_prefix([ROW]) {
            let (row_key, value) = row.map_err(|error| sled_error("cannot be read", &error))?;
            let value = decode_value(&place(&generation.name), &row_key, &value)?;
            visit(Bytes::copy_from_slice(&row_key[1..]), value);
        }
        Ok(Some(meta))
    }

    fn ahead(&self, key: ReplicaKey) -> Result<Option<Bytes>> {
        let Some(generation) = self.current(key)? else { return Ok(None) };
        self.point(&generation, AHEAD)
    }

    fn checkpoint(&self, key: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()> {
        match rows {
            Rows::All(rows) => {
                let mut rows = rows.map(|row| row.map(|(key, value)| (key, Some(value))));
                self.replace(key, &mut rows, meta)
            }
            Rows::Changed(rows) => match self.current(key)? {
                Some(generation) => self.fill(&generation.tree, rows, meta, true),
                None => self.replace(key, rows, meta),
            },
        }
    }

    fn remove(&self, key: ReplicaKey) -> Result<()> {
        let Some(generation) = self.current(key)? else { return Ok(()) };
        self.catalogue
            .remove(format::catalogue_key(key))
            .map_err(|error| sled_error("cannot write its catalogue", &error))?;
        self.flush()?;
        self.open_trees().remove(&key);
        self.db.drop_tree(&generation.name).map_err(|error| sled_error("cannot drop a tree", &error))?;
        self.flush()
    }

    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        let mut keys = Vec::new();
        for row in self.catalogue.iter() {
            let (row, _) = row.map_err(|error| sled_error("cannot be read", &error))?;
            keys.push(format::parse_catalogue_key(&row).ok_or_else(|| {
                Error::new(Code::CorruptLog, format!("a catalogue key of {} bytes is malformed", row.len())).at("sled")
            })?);
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
