//! Several entries of one slot, checked and written all at once.

use super::ops::unexpected;
use super::{Client, Transacted, Written};
use crate::error::{Code, Error, Result};
use crate::types::{Condition, Op, ReplyBody, Slot, Value, affinity_of, slot_of};
use bytes::Bytes;

/// A transaction under construction: checks, puts and deletions of one map's entries in one slot.
/// All keys need a common `{tag}`, those of a replicated map too.
#[must_use = "nothing happens before `commit`"]
pub struct Transaction<'a> {
    client: &'a Client,
    map: String,
    checks: Vec<(Bytes, Condition)>,
    writes: Vec<(Bytes, Option<Value>)>,
}

impl Client {
    /// Begins a transaction on a map. Nothing is sent before [`Transaction::commit`].
    pub fn transaction(&self, map: &str) -> Transaction<'_> {
        Transaction { client: self, map: map.to_owned(), checks: Vec::new(), writes: Vec::new() }
    }
}

fn copied(key: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(key.as_ref())
}

impl Transaction<'_> {
    /// Demands that a key's entry has exactly this revision.
    pub fn check(mut self, key: impl AsRef<[u8]>, revision: u64) -> Self {
        self.checks.push((copied(key), Condition::Revision(revision)));
        self
    }

    /// Demands that a key has no entry.
    pub fn check_absent(mut self, key: impl AsRef<[u8]>) -> Self {
        self.checks.push((copied(key), Condition::Absent));
        self
    }

    /// Demands that a key has an entry, whatever it holds.
    pub fn check_present(mut self, key: impl AsRef<[u8]>) -> Self {
        self.checks.push((copied(key), Condition::Present));
        self
    }

    /// Demands that a key's entry has exactly this value, codec and bytes.
    pub fn check_value(mut self, key: impl AsRef<[u8]>, value: Value) -> Self {
        self.checks.push((copied(key), Condition::Value(value)));
        self
    }

    /// Writes an entry, which lives as long as its map says.
    pub fn put(mut self, key: impl AsRef<[u8]>, value: Value) -> Self {
        self.writes.push((copied(key), Some(value)));
        self
    }

    /// Deletes an entry.
    pub fn delete(mut self, key: impl AsRef<[u8]>) -> Self {
        self.writes.push((copied(key), None));
        self
    }

    /// Writes everything if all checks hold, else nothing.
    ///
    /// # Errors
    /// `CrossSlot` when the keys lie in several slots; else as [`Client::execute`].
    pub async fn commit(self) -> Result<Transacted> {
        self.one_slot()?;
        let codec = self.writes.iter().find_map(|(_, value)| value.as_ref()).map(|value| value.codec);
        let op = Op::Transact { map: self.map, checks: self.checks, writes: self.writes };
        let reply = self.client.write(op, codec).await?;
        match reply.body {
            ReplyBody::Written { revision, .. } => Ok(Transacted::Written(Written { revision, served: reply.served })),
            ReplyBody::CheckFailed { key, present } => Ok(Transacted::Refused { key, present, served: reply.served }),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Said here rather than by a peer, so that the two keys are named.
    fn one_slot(&self) -> Result<()> {
        let keys = self.checks.iter().map(|(key, _)| key).chain(self.writes.iter().map(|(key, _)| key));
        let placed: Vec<(&Bytes, Slot)> = keys.map(|key| (key, slot_of(affinity_of(key)))).collect();
        let Some((first, slot)) = placed.first() else {
            return Err(Error::new(Code::InvalidRequest, "the transaction names no key"));
        };
        match placed.iter().find(|(_, other)| other != slot) {
            None => Ok(()),
            Some((other, at)) => {
                let (first, other) = (String::from_utf8_lossy(first), String::from_utf8_lossy(other));
                let what =
                    format!("a transaction's keys share a slot, but {first:?} lies in slot {slot}, {other:?} in {at}");
                let remedy = "give all keys one {tag}, as in {cart-7}:items and {cart-7}:total";
                Err(Error::new(Code::CrossSlot, what).at(format!("map {:?}", self.map)).remedy(remedy))
            }
        }
    }
}
