//! What a handler sees of the grid: its slot.

use super::TaskError;
use super::overlay::Overlay;
use super::replicated::Replicated;
use crate::error::{Code, Error, Result};
use crate::partition::{Place, SlotView, TaskCall, TaskWrite};
use crate::types::{Slot, Value, ValueCodec, affinity_of, slot_of};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Keys and values.
pub type Entries = Vec<(Bytes, Value)>;

/// The entries of a task's slot, with the writes of earlier calls of the same turn and its own
/// laid over them. Its own writes count only if the handler succeeds.
pub struct TaskContext<'a> {
    view: &'a dyn SlotView,
    earlier: &'a Overlay,
    call: &'a TaskCall,
    max_write_bytes: usize,
    own: Overlay,
    /// Keys in the order in which they were first written.
    order: Vec<(String, Place)>,
    written_bytes: usize,
    known_maps: BTreeSet<String>,
    reads: u64,
}

impl<'a> TaskContext<'a> {
    pub(super) fn new(
        view: &'a dyn SlotView,
        earlier: &'a Overlay,
        call: &'a TaskCall,
        max_write_bytes: usize,
    ) -> Self {
        TaskContext {
            view,
            earlier,
            call,
            max_write_bytes,
            own: Overlay::default(),
            order: Vec::new(),
            written_bytes: 0,
            known_maps: BTreeSet::new(),
            reads: 0,
        }
    }

    /// The key that the task was submitted by.
    pub fn key(&self) -> &[u8] {
        &self.call.key
    }

    /// The partition's time at this call, Unix milliseconds. It never runs backwards within a
    /// partition; use it instead of a clock.
    pub fn now_ms(&self) -> u64 {
        self.call.now_ms
    }

    /// A replicated map, as this peer's copy has it: to read beyond the task's slot.
    pub fn replicated(&self, map: &str) -> Replicated<'a> {
        Replicated { view: self.view, map: map.to_owned() }
    }

    /// The slots that the call may touch, first and last.
    pub(super) fn slots(&self) -> (Slot, Slot) {
        self.call.slots()
    }

    /// How many entries this call has read: one for each get, and each entry that a scan gave.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// The slot of a key that the task may touch.
    fn check_key(&self, map: &str, key: &[u8]) -> Result<Slot> {
        if let Some(slot) = self.call.slot_of(key) {
            return Ok(slot);
        }
        let (slot, key) = (slot_of(affinity_of(key)), String::from_utf8_lossy(key));
        let what = match self.call.slots() {
            (first, last) if self.call.last_slot.is_some() => {
                format!("the partition holds slots {first} to {last}; key \"{key}\" lives in slot {slot}")
            }
            (own, _) => format!("the task's slot is {own}; key \"{key}\" lives in slot {slot}"),
        };
        Err(Error::new(Code::TaskOutsideSlot, what).at(format!("map {map}")))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// `TaskOutsideSlot`, `NoSuchMap`, `CorruptRow`.
    pub fn get_value(&mut self, map: &str, key: &[u8]) -> Result<Option<Value>> {
        let slot = self.check_key(map, key)?;
        self.reads += 1;
        if let Some(written) = self.own.get(slot, map, key).or_else(|| self.earlier.get(slot, map, key)) {
            return Ok(written.clone());
        }
        Ok(self.view.get(slot, map, key)?.map(|stored| stored.value))
    }

    /// The value of a key, decoded by its own codec: MessagePack, JSON, a number or text.
    ///
    /// # Errors
    /// As [`TaskContext::get_value`]; `WrongCodec` when the value is not a `T`.
    pub fn get<T: DeserializeOwned>(&mut self, map: &str, key: &[u8]) -> Result<Option<T>> {
        let value = self.get_value(map, key)?;
        value.map(|value| decode(&value).map_err(|error| error.at(format!("map {map}")))).transpose()
    }

    /// Writes a value as it is.
    ///
    /// # Errors
    /// `TaskOutsideSlot`; `NoSuchMap`; `TooLarge` when the call writes more than is allowed.
    pub fn put_value(&mut self, map: &str, key: &[u8], value: Value) -> Result<()> {
        self.write(map, key, Some(value))
    }

    /// Writes a value as MessagePack with field names.
    ///
    /// # Errors
    /// As [`TaskContext::put_value`]; `WrongCodec` when it cannot be encoded.
    pub fn put<T: Serialize + ?Sized>(&mut self, map: &str, key: &[u8], value: &T) -> Result<()> {
        let data = rmp_serde::to_vec_named(value).map_err(|error| {
            Error::new(Code::WrongCodec, format!("a value cannot be encoded: {error}")).at(format!("map {map}"))
        })?;
        self.put_value(map, key, Value { codec: ValueCodec::Msgpack, schema: 0, data: data.into() })
    }

    /// Deletes a key; no error if it is not there.
    ///
    /// # Errors
    /// `TaskOutsideSlot`, `NoSuchMap`, `TooLarge`.
    pub fn delete(&mut self, map: &str, key: &[u8]) -> Result<()> {
        self.write(map, key, None)
    }

    fn write(&mut self, map: &str, key: &[u8], value: Option<Value>) -> Result<()> {
        let slot = self.check_key(map, key)?;
        if !self.known_maps.contains(map) {
            // A write to a map that is not there must fail here, not when the batch is made.
            self.view.get(slot, map, key)?;
            self.known_maps.insert(map.to_owned());
        }
        let bytes = key.len() + value.as_ref().map_or(0, |value| value.data.len());
        let written = self.written_bytes.saturating_add(bytes);
        if written > self.max_write_bytes {
            let limit = self.max_write_bytes;
            return Err(Error::new(Code::TooLarge, format!("the task writes more than {limit} bytes in one call"))
                .at(format!("map {map}")));
        }
        self.written_bytes = written;
        let key = Bytes::copy_from_slice(key);
        if self.own.insert(slot, map, key.clone(), value) {
            self.order.push((map.to_owned(), (slot, key)));
        }
        Ok(())
    }

    /// The entries of the slot whose keys start with `prefix`, in key order, at most `limit`.
    ///
    /// # Errors
    /// `NoSuchMap`, `CorruptRow`.
    pub fn scan(&mut self, map: &str, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Value)>> {
        let slot = self.call.slot;
        let mut written: BTreeMap<&Bytes, &Option<Value>> = self.earlier.prefixed(slot, map, prefix).collect();
        written.extend(self.own.prefixed(slot, map, prefix));
        // Each deleted entry may take the place of one that is there.
        let deleted = written.values().filter(|value| value.is_none()).count();
        let stored = self.view.scan(slot, map, prefix, limit.saturating_add(deleted))?;
        let mut found: BTreeMap<Bytes, Value> = stored.into_iter().map(|(key, stored)| (key, stored.value)).collect();
        for (key, value) in written {
            match value {
                Some(value) => drop(found.insert(key.clone(), value.clone())),
                None => drop(found.remove(key)),
            }
        }
        let found: Vec<_> = found.into_iter().take(limit).collect();
        self.reads += found.len() as u64;
        Ok(found)
    }

    /// Some entries of a map, in the order of the partition's slots, after a place. Says where the
    /// next page begins; `None` at the end.
    pub(super) fn page(&mut self, map: &str, after: Option<&Place>, limit: usize) -> Result<(Entries, Option<Place>)> {
        let (slots, limit) = (self.call.slots(), limit.max(1));
        let stored = self.view.page(slots, map, after, limit)?;
        let end = stored.entries.last().map(|(place, _)| place.clone()).filter(|_| stored.more);
        let mut found: BTreeMap<Place, Value> =
            stored.entries.into_iter().map(|(place, stored)| (place, stored.value)).collect();
        for written in [self.earlier, &self.own] {
            for (place, value) in written.between(slots, map, after, end.as_ref()) {
                match value {
                    Some(value) => drop(found.insert(place, value.clone())),
                    None => drop(found.remove(&place)),
                }
            }
        }
        self.reads += found.len() as u64;
        Ok((found.into_iter().map(|((_, key), value)| (key, value)).collect(), end))
    }

    /// The writes, in the order in which their keys were first written.
    pub(super) fn into_writes(self) -> Vec<TaskWrite> {
        let TaskContext { own, order, .. } = self;
        let write = |(map, (slot, key)): (String, Place)| {
            let value = own.get(slot, &map, &key).cloned().flatten();
            TaskWrite { map, slot, key, value }
        };
        order.into_iter().map(write).collect()
    }
}

/// Decodes a value by its own codec.
pub(super) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::new(Code::WrongCodec, format!("a {} value is not what the task reads: {error}", value.codec))
    };
    match value.codec {
        ValueCodec::Msgpack => rmp_serde::from_slice(&value.data).map_err(|error| bad(&error)),
        ValueCodec::Json => serde_json::from_slice(&value.data).map_err(|error| bad(&error)),
        ValueCodec::I64 => {
            let bytes = <[u8; 8]>::try_from(&value.data[..]).map_err(|error| bad(&error))?;
            serde_json::from_value(i64::from_le_bytes(bytes).into()).map_err(|error| bad(&error))
        }
        ValueCodec::Utf8 => {
            let text = std::str::from_utf8(&value.data).map_err(|error| bad(&error))?;
            serde_json::from_value(text.into()).map_err(|error| bad(&error))
        }
        ValueCodec::Bytes => Err(bad(&"raw bytes have no type; use get_value")),
    }
}

/// A handler's result.
pub(super) type Handled<T> = std::result::Result<T, TaskError>;
