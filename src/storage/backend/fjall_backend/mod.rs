//! The backend for states larger than RAM: fjall, a log-structured merge tree, one database per
//! node. Opt-in: cargo feature `fjall`.
//!
//! In: the rows that changed since the last checkpoint (or all), and the meta. Out: the rows of the
//! last checkpoint, all or single ones. It never runs in the simulator (fjall does its own I/O) and
//! never holds more than one chunk of rows in memory besides fjall's own bounded buffers.
//!
//! Checkpoints are made as in the sled backend, whose head says why one may be cut short by a
//! crash: changes go in in chunks, each one atomic batch that carries the meta as of that chunk as
//! `ahead`; the journal is synced; the last chunk holds the meta and takes `ahead` away; the journal
//! is synced again. A checkpoint of all rows fills a new generation, which the catalogue then names
//! in one synced put. Generations that no catalogue row names are deleted at the next open.

mod config;
mod format;

pub use config::FjallConfig;

use super::row_value::{decode_value, encode_value};
use super::{ReplicaKey, Rows, StateBackend};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use config::fjall_error;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch as WriteBatch, PersistMode};
use format::PREFIX;
use std::path::Path;
use std::time::Duration;

type Prefix = [u8; PREFIX];

/// The memtable that is being filled may hold so many times its size before writes wait.
const MEMTABLE_SLACK: u64 = 2;
/// Between two looks whether there is room.
const ROOM_PAUSE: Duration = Duration::from_millis(2);
/// Looks before it goes on all the same: 10 s.
const ROOM_PAUSES: usize = 5000;

/// Checkpoints in a fjall database.
pub struct FjallBackend {
    db: Database,
    catalogue: Keyspace,
    rows: Keyspace,
    config: FjallConfig,
}

/// A batch with its size.
struct Chunk {
    batch: WriteBatch,
    rows: usize,
    bytes: usize,
}

fn place(key: ReplicaKey) -> String {
    format!("fjall, replica {key}")
}

impl FjallBackend {
    /// Opens the database in a directory, which is created if need be.
    ///
    /// # Errors
    /// `DataDirBusy` when another process has it open; `CorruptLog`, `DiskFull`, `DiskFailed`.
    pub fn open(dir: &Path, config: FjallConfig) -> Result<Self> {
        let db = config::open(dir, &config)?;
        let keyspace = |name: &str, options: KeyspaceCreateOptions| {
            db.keyspace(name, || options.clone()).map_err(|error| fjall_error("cannot be opened", &error))
        };
        let catalogue = keyspace(format::CATALOGUE, KeyspaceCreateOptions::default())?;
        let rows = keyspace(format::ROWS, config.rows())?;
        let backend = FjallBackend { db, catalogue, rows, config };
        backend.drop_left_overs()?;
        Ok(backend)
    }

    /// Deletes generations that no catalogue row names.
    fn drop_left_overs(&self) -> Result<()> {
        let mut from = Vec::new();
        while let Some(first) = self.rows.range(from.clone()..).next() {
            let key = first.key().map_err(|error| fjall_error("cannot be read", &error))?;
            let malformed = || Error::new(Code::CorruptLog, "a row's key is too short").at("fjall");
            let prefix: Prefix = *key.first_chunk().ok_or_else(malformed)?;
            let (replica, generation) = prefix.split_at(PREFIX - 8);
            let named = format::parse_catalogue_key(replica).map(|key| self.generation_of(key)).transpose()?.flatten();
            if named.is_none_or(|number| number.to_be_bytes() != generation) {
                self.delete(&prefix)?;
            }
            let Some(next) = after(&prefix) else { return Ok(()) };
            from = next;
        }
        Ok(())
    }

    /// Deletes everything of one generation.
    fn delete(&self, prefix: &Prefix) -> Result<()> {
        let mut chunk = self.chunk();
        for row in self.rows.prefix(prefix) {
            let key = row.key().map_err(|error| fjall_error("cannot be read", &error))?;
            chunk.rows += 1;
            chunk.batch.remove(&self.rows, key);
            if chunk.rows >= self.config.max_batch_rows {
                self.commit(std::mem::replace(&mut chunk, self.chunk()))?;
            }
        }
        self.commit(chunk)
    }

    fn chunk(&self) -> Chunk {
        Chunk { batch: self.db.batch(), rows: 0, bytes: 0 }
    }

    fn commit(&self, chunk: Chunk) -> Result<()> {
        self.wait_for_room();
        chunk.batch.commit().map_err(|error| fjall_error("cannot write rows", &error))
    }

    /// fjall begins a new memtable on the thread that also merges tables: for as long as that takes, the
    /// one that is being filled would grow without a bound.
    fn wait_for_room(&self) {
        let full = || self.rows.tree.active_memtable().size() > MEMTABLE_SLACK * self.config.memtable_bytes;
        // Bounded: where fjall has stopped for good, the commit says so.
        for _ in 0..ROOM_PAUSES {
            if !full() {
                return;
            }
            std::thread::sleep(ROOM_PAUSE);
        }
    }

    fn sync(&self) -> Result<()> {
        self.db.persist(PersistMode::SyncData).map_err(|error| fjall_error("cannot be synced", &error))
    }

    fn generation_of(&self, key: ReplicaKey) -> Result<Option<u64>> {
        let row = format::catalogue_key(key);
        let found = self.catalogue.get(row).map_err(|error| fjall_error("cannot be read", &error))?;
        let Some(value) = found else { return Ok(None) };
        let value = decode_value("the catalogue of fjall", &row, &value)?;
        let number = <[u8; 8]>::try_from(&value[..]).map_err(|_| {
            Error::new(Code::CorruptLog, format!("the catalogue row of replica {key} is malformed")).at("fjall")
        })?;
        Ok(Some(u64::from_le_bytes(number)))
    }

    fn current(&self, key: ReplicaKey) -> Result<Option<Prefix>> {
        Ok(self.generation_of(key)?.map(|number| format::prefix(key, number)))
    }

    fn point(&self, key: ReplicaKey, row: &[u8]) -> Result<Option<Bytes>> {
        let found = self.rows.get(row).map_err(|error| fjall_error("cannot be read", &error))?;
        found.map(|value| decode_value(&place(key), row, &value)).transpose()
    }

    /// Writes rows in chunks, then the meta with the last one. In a new generation nobody can see
    /// the chunks before the catalogue names it, so `mark_ahead` is for existing ones only.
    fn fill(
        &self,
        prefix: &Prefix,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>>,
        meta: &mut dyn FnMut() -> Bytes,
        mark_ahead: bool,
    ) -> Result<()> {
        let (ahead, last) = (format::ahead_key(prefix), format::meta_key(prefix));
        let mut rows = rows.peekable();
        let (mut chunk, mut chunks) = (self.chunk(), 0_usize);
        while let Some(row) = rows.next() {
            let (row, value) = row?;
            let key = format::row_key(prefix, &row);
            chunk.rows += 1;
            chunk.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            match value {
                Some(value) => {
                    let value = encode_value(&key, &value);
                    chunk.batch.insert(&self.rows, key, value);
                }
                None => chunk.batch.remove(&self.rows, key),
            }
            let full = chunk.rows >= self.config.max_batch_rows || chunk.bytes >= self.config.max_batch_bytes;
            if full && rows.peek().is_some() {
                let mut full = std::mem::replace(&mut chunk, self.chunk());
                if mark_ahead {
                    full.batch.insert(&self.rows, ahead.clone(), encode_value(&ahead, &meta()));
                }
                self.commit(full)?;
                chunks += 1;
            }
        }
        if chunks > 0 {
            // The meta must not become durable before the rows; not left to fjall's recovery.
            self.sync()?;
        }
        chunk.batch.remove(&self.rows, ahead);
        let value = encode_value(&last, &meta());
        chunk.batch.insert(&self.rows, last, value);
        self.commit(chunk)?;
        self.sync()
    }

    fn replace(
        &self,
        key: ReplicaKey,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>>,
        meta: &mut dyn FnMut() -> Bytes,
    ) -> Result<()> {
        let old = self.generation_of(key)?;
        let number = old.map_or(1, |old| old + 1);
        let new = format::prefix(key, number);
        // An attempt that failed may have left rows under this generation.
        self.delete(&new)?;
        self.fill(&new, rows, meta, false)?;
        let row = format::catalogue_key(key);
        let value = encode_value(&row, &number.to_le_bytes());
        self.catalogue.insert(row, value).map_err(|error| fjall_error("cannot write its catalogue", &error))?;
        self.sync()?;
        match old {
            Some(old) => self.delete(&format::prefix(key, old)),
            None => Ok(()),
        }
    }
}

/// The first key after all that start with a prefix; `None` if there can be none.
fn after(prefix: &Prefix) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

impl StateBackend for FjallBackend {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn serves_rows(&self) -> bool {
        true
    }

    fn get_many(&self, key: ReplicaKey, rows: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let Some(prefix) = self.current(key)? else { return Ok(vec![None; rows.len()]) };
        rows.iter().map(|row| self.point(key, &format::row_key(&prefix, row))).collect()
    }

    fn load(&self, key: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>> {
        let Some(prefix) = self.current(key)? else { return Ok(None) };
        let Some(meta) = self.point(key, &format::meta_key(&prefix))? else {
            return Err(Error::new(Code::CorruptLog, "a checkpoint has no meta row").at(place(key)));
        };
        for row in self.rows.prefix(format::row_key(&prefix, b"")) {
            let (row_key, value) = row.into_inner().map_err(|error| fjall_error("cannot be read", &error))?;
            let value = decode_value(&place(key), &row_key, &value)?;
            visit(Bytes::copy_from_slice(format::own_key(&row_key)), value);
        }
        Ok(Some(meta))
    }

    fn ahead(&self, key: ReplicaKey) -> Result<Option<Bytes>> {
        let Some(prefix) = self.current(key)? else { return Ok(None) };
        self.point(key, &format::ahead_key(&prefix))
    }

    fn checkpoint(&self, key: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()> {
        match rows {
            Rows::All(rows) => {
                let mut rows = rows.map(|row| row.map(|(key, value)| (key, Some(value))));
                self.replace(key, &mut rows, meta)
            }
            Rows::Changed(rows) => match self.current(key)? {
                Some(prefix) => self.fill(&prefix, rows, meta, true),
                None => self.replace(key, rows, meta),
            },
        }
    }

    fn remove(&self, key: ReplicaKey) -> Result<()> {
        let Some(prefix) = self.current(key)? else { return Ok(()) };
        let row = format::catalogue_key(key);
        self.catalogue.remove(row).map_err(|error| fjall_error("cannot write its catalogue", &error))?;
        self.sync()?;
        self.delete(&prefix)
    }

    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        let mut keys = Vec::new();
        for row in self.catalogue.iter() {
            let row = row.key().map_err(|error| fjall_error("cannot be read", &error))?;
            keys.push(format::parse_catalogue_key(&row).ok_or_else(|| {
                Error::new(Code::CorruptLog, format!("a catalogue key of {} bytes is malformed", row.len())).at("fjall")
            })?);
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests;
