//! What a handler sees of the grid: its slot.

use super::TaskError;
use super::overlay::Overlay;
use super::replicated::Replicated;
use crate::error::{Code, Error, Result};
use crate::partition::{Place, SlotView, TaskCall, TaskWrite};
use crate::types::{Schema, Slot, Value, ValueCodec, affinity_of, read_value, rewrite_value, slot_of, write_value};
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
    /// As [`TaskContext::get_value`]; `ValueMismatch` when the value is not a `T`; `WrongCodec` for
    /// raw bytes.
    pub fn get<T: DeserializeOwned>(&mut self, map: &str, key: &[u8]) -> Result<Option<T>> {
        self.get_as(Schema::default(), map, key)
    }

    /// As [`TaskContext::get`], for a program that says which versions it reads.
    ///
    /// # Errors
    /// As [`TaskContext::get`]; `NewerSchema`.
    pub fn get_as<T: DeserializeOwned>(&mut self, schema: Schema, map: &str, key: &[u8]) -> Result<Option<T>> {
        let value = self.get_value(map, key)?;
        value.map(|value| read_value(schema, &value).map_err(|error| error.at(place(map, key)))).transpose()
    }

    /// Writes a value as it is.
    ///
    /// # Errors
    /// `TaskOutsideSlot`; `NoSuchMap`; `TooLarge` when the call writes more than is allowed.
    pub fn put_value(&mut self, map: &str, key: &[u8], value: Value) -> Result<()> {
        self.write(map, key, Some(value))
    }

    /// Writes a value in the map's codec, whatever was there, with the map's schema version. Fields that
    /// only another version of the program knows are gone: see [`TaskContext::update`].
    ///
    /// # Errors
    /// As [`TaskContext::put_value`]; `ValueMismatch` when it cannot be encoded; `WrongCodec` for a
    /// map of raw bytes.
    pub fn put<T: Serialize + ?Sized>(&mut self, map: &str, key: &[u8], value: &T) -> Result<()> {
        let known = self.view.descriptor(map).map(|map| (map.schema, map.value_codec));
        let (schema, codec) = known.unwrap_or((0, ValueCodec::Msgpack));
        let value = write_value(Schema::of(schema), codec, value).map_err(|error| error.at(place(map, key)))?;
        self.put_value(map, key, value)
    }

    /// As [`TaskContext::put`], for a program that says which version it writes.
    ///
    /// # Errors
    /// As [`TaskContext::put`].
    pub fn put_as<T: Serialize + ?Sized>(&mut self, schema: Schema, map: &str, key: &[u8], value: &T) -> Result<()> {
        let codec = self.view.descriptor(map).map_or(ValueCodec::Msgpack, |map| map.value_codec);
        let value = write_value(schema, codec, value).map_err(|error| error.at(place(map, key)))?;
        self.put_value(map, key, value)
    }

    /// Reads an entry, changes it, and writes it back. `None` in is no entry, `None` out deletes it. What
    /// the present value holds beside what `T` knows stays, and with it the newer of the two schema
    /// versions, as with `TypedMap::update`. Gives what was written.
    ///
    /// # Errors
    /// As [`TaskContext::get`] and [`TaskContext::put`].
    pub fn update<T: Serialize + DeserializeOwned>(
        &mut self,
        map: &str,
        key: &[u8],
        change: impl FnOnce(Option<T>) -> Option<T>,
    ) -> Result<Option<T>> {
        self.update_as(Schema::default(), map, key, change)
    }

    /// As [`TaskContext::update`], for a program that says which versions it writes and reads.
    ///
    /// # Errors
    /// As [`TaskContext::update`]; `NewerSchema`.
    pub fn update_as<T: Serialize + DeserializeOwned>(
        &mut self,
        schema: Schema,
        map: &str,
        key: &[u8],
        change: impl FnOnce(Option<T>) -> Option<T>,
    ) -> Result<Option<T>> {
        let before = self.get_value(map, key)?;
        let read = before.as_ref().map(|value| read_value(schema, value)).transpose();
        let new = change(read.map_err(|error| error.at(place(map, key)))?);
        match (&new, &before) {
            (Some(value), Some(before)) => {
                let value = rewrite_value(schema, value, before).map_err(|error| error.at(place(map, key)))?;
                self.put_value(map, key, value)?;
            }
            (Some(value), None) => self.put_as(schema, map, key, value)?,
            (None, Some(_)) => self.delete(map, key)?,
            (None, None) => {}
        }
        Ok(new)
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

/// Where an entry is, for errors.
pub(super) fn place(map: &str, key: &[u8]) -> String {
    format!("map {map:?}, key {:?}", String::from_utf8_lossy(key))
}

/// A handler's result.
pub(super) type Handled<T> = std::result::Result<T, TaskError>;
