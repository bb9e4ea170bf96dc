//! What a job task sees: the grid, as a client does, and the rows of its own partition at hand.
//!
//! A job is asynchronous and runs on a thread of its own beside the executor. What it writes it
//! writes by commands, each atomic in itself, under a session of its attempt. When its peer loses
//! the partition's leadership the job is begun again on the next leader: so it runs *at least
//! once*, and must bear that, by writing what is absolute or by asking what is there.

use super::context::{Entries, place};
use super::{Cursor, payload};
use crate::error::{Code, Error, Result};
use crate::partition::{Page, Place};
use crate::types::{
    Condition, JobId, MapDescriptor, Op, Reply, ReplyBody, Schema, Slot, StoredValue, Value, ValueCodec, affinity_of,
    read_value, rewrite_value, slot_of, write_value,
};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How a job reaches the grid; the node implements it.
#[async_trait::async_trait]
pub trait JobGrid: Send + Sync + 'static {
    /// Executes a command under the attempt's session.
    async fn execute(&self, op: Op) -> Result<Reply>;

    /// Waits until all that was acknowledged before is applied in the job's partition.
    async fn confirm(&self) -> Result<()>;

    /// What a map is; `None` where that is not known.
    fn descriptor(&self, _map: &str) -> Option<MapDescriptor> {
        None
    }

    /// Entries of the job's partition, from its leader's applied rows.
    fn page(&self, slots: (Slot, Slot), map: &str, after: Option<&Place>, limit: usize) -> Result<Page>;
}

/// Who a job is.
#[derive(Clone, Debug)]
pub struct JobIdentity {
    /// The job.
    pub id: JobId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The key that it was started by.
    pub key: Bytes,
    /// Its partition's first and last slot.
    pub slots: (Slot, Slot),
}

/// How far a job says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// In thousandths.
    pub permille: u16,
    /// In words; cut at [`MAX_TEXT`] bytes.
    pub text: String,
}

/// How often an update is worked out again when other writes come first.
const UPDATE_ATTEMPTS: usize = 1000;

/// The longest text of a job's progress.
pub const MAX_TEXT: usize = 256;

/// A text's first bytes, whole characters.
pub fn cut(mut text: String, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// A job task's view of the grid. Clones are the same.
#[derive(Clone)]
pub struct JobContext {
    identity: Arc<JobIdentity>,
    grid: Arc<dyn JobGrid>,
    ending: CancellationToken,
    progress: watch::Sender<JobProgress>,
}

impl JobContext {
    /// A job's context; `ending` is cancelled when the job is asked to end.
    pub fn new(
        identity: JobIdentity,
        grid: Arc<dyn JobGrid>,
        ending: CancellationToken,
        progress: watch::Sender<JobProgress>,
    ) -> Self {
        JobContext { identity: Arc::new(identity), grid, ending, progress }
    }

    /// Which job.
    pub fn id(&self) -> JobId {
        self.identity.id
    }

    /// How often it has been begun, this time included.
    pub fn attempt(&self) -> u32 {
        self.identity.attempt
    }

    /// The key that it was started by.
    pub fn key(&self) -> &[u8] {
        &self.identity.key
    }

    /// Its partition's first and last slot.
    pub fn slots(&self) -> (Slot, Slot) {
        self.identity.slots
    }

    /// Says how far the job is, from 0 to 1, and in words. Written down twice a second at most.
    pub fn progress(&self, fraction: f64, text: impl Into<String>) {
        let text = cut(text.into(), MAX_TEXT);
        self.progress.send_replace(JobProgress { permille: (fraction.clamp(0.0, 1.0) * 1000.0) as u16, text });
    }

    /// Whether the job is to end: it was cancelled, its time is over, or its peer leads no more.
    pub fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Waits until the job is to end; for `select!` with what it calls outside of the grid.
    pub async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// # Errors
    /// `TaskCancelled` when the job is to end.
    pub fn check(&self) -> Result<()> {
        match self.is_ending() {
            true => Err(Error::new(Code::TaskCancelled, format!("job {} was asked to end", self.id()))),
            false => Ok(()),
        }
    }

    /// Executes a command: one entry, or several of one partition, atomically; or a task.
    ///
    /// # Errors
    /// `TaskCancelled` when the job is to end; what the grid answers.
    pub async fn execute(&self, op: Op) -> Result<Reply> {
        self.check()?;
        self.grid.execute(op).await
    }

    /// An entry of any key, linearizably.
    ///
    /// # Errors
    /// As [`JobContext::execute`].
    pub async fn get_stored(&self, map: &str, key: &[u8]) -> Result<Option<StoredValue>> {
        let reply = self.execute(Op::Get { map: map.to_owned(), key: Bytes::copy_from_slice(key) }).await?;
        match reply.body {
            ReplyBody::Entry(entry) => Ok(entry),
            _ => Err(Error::internal("a read got an answer of another kind")),
        }
    }

    /// The value of any key, linearizably, decoded by its own codec.
    ///
    /// # Errors
    /// As [`JobContext::execute`]; `ValueMismatch` when it is not a `T`; `WrongCodec` for raw bytes.
    pub async fn get<T: DeserializeOwned>(&self, map: &str, key: &[u8]) -> Result<Option<T>> {
        let stored = self.get_stored(map, key).await?;
        let read = |stored: StoredValue| read_value(Schema::default(), &stored.value);
        stored.map(|stored| read(stored).map_err(|error| error.at(place(map, key)))).transpose()
    }

    /// Writes a value.
    ///
    /// # Errors
    /// As [`JobContext::execute`].
    pub async fn put_value(&self, map: &str, key: &[u8], value: Value) -> Result<()> {
        let (map, key, condition) = (map.to_owned(), Bytes::copy_from_slice(key), Condition::Always);
        self.execute(Op::Put { map, key, value, condition, previous: false, ttl_ms: None }).await.map(drop)
    }

    /// Writes a value in the map's codec, whatever was there, with the map's schema version. Fields that
    /// only another version of the program knows are gone: see [`JobContext::update`].
    ///
    /// # Errors
    /// As [`JobContext::execute`]; `ValueMismatch` when it cannot be encoded; `WrongCodec` for a map
    /// of raw bytes.
    pub async fn put<T: Serialize + Sync + ?Sized>(&self, map: &str, key: &[u8], value: &T) -> Result<()> {
        let schema = Schema::of(self.grid.descriptor(map).map_or(0, |map| map.schema));
        self.put_value(map, key, self.written(schema, map, key, value)?).await
    }

    fn written<T: Serialize + ?Sized>(&self, schema: Schema, map: &str, key: &[u8], value: &T) -> Result<Value> {
        let codec = self.grid.descriptor(map).map_or(ValueCodec::Msgpack, |map| map.value_codec);
        write_value(schema, codec, value).map_err(|error| error.at(place(map, key)))
    }

    /// Reads an entry, changes it, and writes it back, again and again until no other write came
    /// between. `None` in is no entry, `None` out deletes it. What the present value holds beside what
    /// `T` knows stays, and with it the newer of the two schema versions, as with `TypedMap::update`.
    /// Gives what was written.
    ///
    /// # Errors
    /// As [`JobContext::get`] and [`JobContext::put`]; `NewerSchema`; `Overloaded` when other writes
    /// always come first.
    pub async fn update<T: Serialize + DeserializeOwned>(
        &self,
        schema: Schema,
        map: &str,
        key: &[u8],
        change: impl Fn(Option<T>) -> Option<T>,
    ) -> Result<Option<T>> {
        let at = |error: Error| error.at(place(map, key));
        for _ in 0..UPDATE_ATTEMPTS {
            let stored = self.get_stored(map, key).await?;
            let read = stored.as_ref().map(|stored| read_value(schema, &stored.value)).transpose().map_err(at)?;
            let new = change(read);
            let condition = stored.as_ref().map_or(Condition::Absent, |stored| Condition::Revision(stored.revision));
            let value = match (&new, &stored) {
                (None, None) => return Ok(None),
                (None, Some(_)) => None,
                (Some(value), None) => Some(self.written(schema, map, key, value)?),
                (Some(value), Some(before)) => Some(rewrite_value(schema, value, &before.value).map_err(at)?),
            };
            let (map, key) = (map.to_owned(), Bytes::copy_from_slice(key));
            let op = match value {
                Some(value) => Op::Put { map, key, value, condition, previous: false, ttl_ms: None },
                None => Op::Delete { map, key, condition, previous: false },
            };
            if !matches!(self.execute(op).await?.body, ReplyBody::ConditionFailed(_)) {
                return Ok(new);
            }
        }
        Err(at(Error::new(Code::Overloaded, "other writes always came first")))
    }

    /// Runs a task beside its key.
    ///
    /// # Errors
    /// As [`JobContext::execute`]; the task's.
    pub async fn submit<In: Serialize + Sync, Out: DeserializeOwned>(
        &self,
        name: &str,
        key: &[u8],
        input: &In,
    ) -> Result<Out> {
        let payload = payload::encode(ValueCodec::Msgpack, input)?;
        let op = Op::Task { name: name.to_owned(), key: Bytes::copy_from_slice(key), payload, id: 0 };
        match self.execute(op).await?.body {
            ReplyBody::Task(answer) => payload::decode(name, "", &answer),
            _ => Err(Error::internal("a task got an answer of another kind")),
        }
    }

    /// The next entries of the job's own partition, at most `limit` and about 256 KiB, by slot and
    /// key: read here, without a way over the network but for one at the first page, after which
    /// nothing that was acknowledged before it is missed. Not a snapshot.
    ///
    /// # Errors
    /// `TaskCancelled` when the job is to end; `NoSuchMap`, `NotLeader`.
    pub async fn page(&self, map: &str, cursor: &mut Cursor, limit: usize) -> Result<Entries> {
        self.check()?;
        if cursor.ended {
            return Ok(Entries::new());
        }
        if cursor.after.is_none() {
            self.grid.confirm().await?;
        }
        let page = self.grid.page(self.slots(), map, cursor.after.as_ref(), limit.max(1))?;
        let end = page.entries.last().map(|(place, _)| place.clone()).filter(|_| page.more);
        cursor.advance(end);
        Ok(page.entries.into_iter().map(|((_, key), stored)| (key, stored.value)).collect())
    }

    /// Whether a key lives in the job's own partition.
    pub fn is_local(&self, key: &[u8]) -> bool {
        let (first, last) = self.slots();
        (first..=last).contains(&slot_of(affinity_of(key)))
    }
}
