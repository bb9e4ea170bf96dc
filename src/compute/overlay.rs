//! Writes that are not in the partition yet, laid over its entries.

use crate::partition::{Place, TaskWrite};
use crate::types::{Slot, Value};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

type Entries = BTreeMap<Bytes, Option<Value>>;

/// Written entries; `None` is a deleted one. The slot is part of the key, because with a named
/// affinity the same key bytes may live in several slots.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    slots: BTreeMap<Slot, BTreeMap<String, Entries>>,
}

impl Overlay {
    /// What was written to a key: `None` if nothing, `Some(None)` if it was deleted.
    pub(super) fn get(&self, slot: Slot, map: &str, key: &[u8]) -> Option<&Option<Value>> {
        self.slots.get(&slot)?.get(map)?.get(key)
    }

    /// Writes; says whether the key had not been written before.
    pub(super) fn insert(&mut self, slot: Slot, map: &str, key: Bytes, value: Option<Value>) -> bool {
        let maps = self.slots.entry(slot).or_default();
        if let Some(entries) = maps.get_mut(map) {
            return entries.insert(key, value).is_none();
        }
        maps.insert(map.to_owned(), Entries::from([(key, value)]));
        true
    }

    /// The written entries of a map whose keys start with `prefix`, in key order.
    pub(super) fn prefixed<'a>(
        &'a self,
        slot: Slot,
        map: &str,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Option<Value>)> {
        let entries = self.slots.get(&slot).and_then(|maps| maps.get(map));
        entries
            .into_iter()
            .flat_map(move |entries| entries.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded)))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The written entries of a map in some slots, first and last, after a place and up to one,
    /// in the order of pages.
    pub(super) fn between<'a>(
        &'a self,
        slots: (Slot, Slot),
        map: &'a str,
        after: Option<&'a Place>,
        to: Option<&'a Place>,
    ) -> impl Iterator<Item = (Place, &'a Option<Value>)> {
        let of_slot = move |(slot, maps): (&Slot, &'a BTreeMap<String, Entries>)| {
            let slot = *slot;
            let entries = maps.get(map).into_iter().flatten();
            entries.map(move |(key, value)| ((slot, key.clone()), value))
        };
        self.slots
            .range(slots.0..=slots.1)
            .flat_map(of_slot)
            .filter(move |(place, _)| after.is_none_or(|after| place > after) && to.is_none_or(|to| place <= to))
    }

    /// Takes over what a call wrote.
    pub(super) fn absorb(&mut self, writes: &[TaskWrite]) {
        for write in writes {
            self.insert(write.slot, &write.map, write.key.clone(), write.value.clone());
        }
    }
}
