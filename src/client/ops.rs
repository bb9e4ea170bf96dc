//! Operations on single entries, and tasks, with the default options.

use super::compute;
use super::{CallOptions, Client, Conditional, Deleted, Number, Removed, Replaced, TaskAnswer, Written};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::types::{Condition, KeyCodec, Op, Reply, ReplyBody, StoredValue, TaskPayload, Value, ValueCodec};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Pause before a write to a map that was just created is tried again: the leader's copy of the
/// map list follows the meta group.
const MAP_PAUSE: Duration = Duration::from_millis(20);

fn copied(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::internal(format!("a reply of another kind than its request: {:?}", reply.body))
}

impl Client {
    /// Executes a write; creates its map first if there is none and the settings say so.
    pub(crate) async fn write(&self, op: Op, codec: Option<ValueCodec>) -> Result<Reply> {
        self.write_with(op, codec, CallOptions::default()).await
    }

    /// The same, with options.
    pub(crate) async fn write_with(&self, op: Op, codec: Option<ValueCodec>, options: CallOptions) -> Result<Reply> {
        let give_up = Instant::now() + self.shared.config.deadline;
        let mut outcome = self.execute(op.clone(), options.clone()).await;
        let Some(codec) = codec.filter(|_| self.shared.config.create_maps) else { return outcome };
        while outcome.as_ref().is_err_and(|error| error.code == Code::NoSuchMap) && Instant::now() < give_up {
            let Some(map) = op.map() else { break };
            self.create_map(map, KeyCodec::Utf8, codec, 0).await?;
            outcome = self.execute(op.clone(), options.clone()).await;
            if outcome.is_err() {
                clock::sleep(MAP_PAUSE).await;
            }
        }
        outcome
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn put(&self, map: &str, key: impl AsRef<[u8]>, value: Value) -> Result<Written> {
        match self.conditional(map, copied(key), value, Condition::Always).await? {
            Conditional::Written(written) => Ok(written),
            Conditional::Refused { .. } => Err(Error::internal("a write without a condition was refused")),
        }
    }

    /// Writes an entry if there is none.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn put_if_absent(&self, map: &str, key: impl AsRef<[u8]>, value: Value) -> Result<Conditional> {
        self.conditional(map, copied(key), value, Condition::Absent).await
    }

    /// Writes an entry if there is one already.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn replace(&self, map: &str, key: impl AsRef<[u8]>, value: Value) -> Result<Conditional> {
        self.conditional(map, copied(key), value, Condition::Present).await
    }

    /// Writes an entry and gives the one that was there before.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn get_and_put(&self, map: &str, key: impl AsRef<[u8]>, value: Value) -> Result<Replaced> {
        let codec = value.codec;
        let (key, condition) = (copied(key), Condition::Always);
        let reply = self
            .write(Op::Put { map: map.to_owned(), key, value, condition, previous: true, ttl_ms: None }, Some(codec))
            .await?;
        match reply.body {
            ReplyBody::Written { revision, previous } => {
                Ok(Replaced { previous, written: Written { revision, served: reply.served } })
            }
            _ => Err(unexpected(&reply)),
        }
    }

    /// Writes an entry if the present one's value is `expected`, codec and bytes.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn compare_and_set(
        &self,
        map: &str,
        key: impl AsRef<[u8]>,
        expected: Value,
        value: Value,
    ) -> Result<Conditional> {
        self.conditional(map, copied(key), value, Condition::Value(expected)).await
    }

    /// Writes an entry if the present one's revision is `expected`.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn compare_and_set_revision(
        &self,
        map: &str,
        key: impl AsRef<[u8]>,
        expected: u64,
        value: Value,
    ) -> Result<Conditional> {
        self.conditional(map, copied(key), value, Condition::Revision(expected)).await
    }

    async fn conditional(&self, map: &str, key: Bytes, value: Value, condition: Condition) -> Result<Conditional> {
        let codec = value.codec;
        let op = Op::Put { map: map.to_owned(), key, value, condition, previous: false, ttl_ms: None };
        let reply = self.write(op, Some(codec)).await?;
        match reply.body {
            ReplyBody::Written { revision, .. } => Ok(Conditional::Written(Written { revision, served: reply.served })),
            ReplyBody::ConditionFailed(present) => Ok(Conditional::Refused { present, served: reply.served }),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Reads an entry, linearizably.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn get(&self, map: &str, key: impl AsRef<[u8]>) -> Result<Option<StoredValue>> {
        let op = Op::Get { map: map.to_owned(), key: copied(key) };
        let reply = self.execute(op, CallOptions::default()).await?;
        match reply.body {
            ReplyBody::Entry(entry) => Ok(entry),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn delete(&self, map: &str, key: impl AsRef<[u8]>) -> Result<Deleted> {
        match self.remove(map, copied(key), Condition::Always, false).await?.0 {
            Removed::Deleted(deleted) => Ok(deleted),
            Removed::Refused { .. } => Err(Error::internal("a deletion without a condition was refused")),
        }
    }

    /// Deletes an entry and gives it.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn get_and_delete(&self, map: &str, key: impl AsRef<[u8]>) -> Result<Option<StoredValue>> {
        Ok(self.remove(map, copied(key), Condition::Always, true).await?.1)
    }

    /// Deletes an entry if the condition holds of it.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn remove_if(&self, map: &str, key: impl AsRef<[u8]>, condition: Condition) -> Result<Removed> {
        Ok(self.remove(map, copied(key), condition, false).await?.0)
    }

    async fn remove(
        &self,
        map: &str,
        key: Bytes,
        condition: Condition,
        previous: bool,
    ) -> Result<(Removed, Option<StoredValue>)> {
        let reply = self.write(Op::Delete { map: map.to_owned(), key, condition, previous }, None).await?;
        match reply.body {
            ReplyBody::Deleted { existed, revision, previous } => {
                Ok((Removed::Deleted(Deleted { existed, revision, served: reply.served }), previous))
            }
            ReplyBody::ConditionFailed(present) => Ok((Removed::Refused { present, served: reply.served }, None)),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Adds to a number; a missing entry counts as 0. If the map is created by this call, its
    /// values are utf8 decimals.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn increment(&self, map: &str, key: impl AsRef<[u8]>, delta: i64) -> Result<Number> {
        let op = Op::Increment { map: map.to_owned(), key: copied(key), delta };
        let reply = self.write(op, Some(ValueCodec::Utf8)).await?;
        match reply.body {
            ReplyBody::Number { value, revision } => Ok(Number { value, revision, served: reply.served }),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Runs a task beside its key.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn task(&self, name: &str, key: impl AsRef<[u8]>, payload: TaskPayload) -> Result<TaskAnswer> {
        let op = Op::Task { name: name.to_owned(), key: copied(key), payload, id: 0 };
        let reply = self.execute(op, CallOptions::default()).await?;
        match reply.body {
            ReplyBody::Task(payload) => Ok(TaskAnswer { payload, served: reply.served }),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Runs a task beside its key, with typed payload and answer (MessagePack with field names).
    ///
    /// # Errors
    /// As [`Client::execute`]; `TaskCodec` when payload or answer cannot be encoded or decoded.
    pub async fn submit<In: Serialize, Out: DeserializeOwned>(
        &self,
        name: &str,
        key: impl AsRef<[u8]>,
        input: &In,
    ) -> Result<Out> {
        let answer = self.task(name, key, compute::encode(input)?).await?;
        compute::decode(&answer.payload)
    }
}
