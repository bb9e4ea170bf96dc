//! A partition's entries for tests.

use crate::error::{Code, Error, Result};
use crate::partition::{Page, Place, SlotView, TaskCall, TaskOutcome};
use crate::types::{Slot, StoredValue, TaskPayload, Value, ValueCodec, affinity_of, slot_of};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::RwLock;
use std::time::Duration;

type Entries = BTreeMap<(Slot, Bytes), StoredValue>;

pub(super) struct FakeView {
    maps: RwLock<BTreeMap<String, Entries>>,
}

impl FakeView {
    pub(super) fn with_maps(maps: &[&str]) -> Self {
        let maps = maps.iter().map(|map| ((*map).to_owned(), Entries::new())).collect();
        FakeView { maps: RwLock::new(maps) }
    }

    pub(super) fn put(&self, map: &str, key: &str, value: Value) {
        let slot = slot_of(affinity_of(key.as_bytes()));
        let mut maps = self.maps.write().expect("not poisoned");
        let entries = maps.get_mut(map).expect("a map");
        entries.insert((slot, Bytes::from(key.to_owned())), StoredValue::new(1, value));
    }

    /// Does what an executor does with an outcome.
    pub(super) fn apply(&self, outcome: &TaskOutcome) {
        let mut maps = self.maps.write().expect("not poisoned");
        for write in &outcome.writes {
            let entries = maps.get_mut(&write.map).expect("a map");
            match &write.value {
                Some(value) => {
                    entries.insert((write.slot, write.key.clone()), StoredValue::new(1, value.clone()));
                }
                None => drop(entries.remove(&(write.slot, write.key.clone()))),
            }
        }
    }

    pub(super) fn entries(&self, map: &str) -> usize {
        self.maps.read().expect("not poisoned").get(map).expect("a map").len()
    }
}

impl SlotView for FakeView {
    fn get(&self, slot: Slot, map: &str, key: &[u8]) -> Result<Option<StoredValue>> {
        let maps = self.maps.read().expect("not poisoned");
        let entries = maps.get(map).ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map \"{map}\"")))?;
        Ok(entries.get(&(slot, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(&self, slot: Slot, map: &str, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, StoredValue)>> {
        let maps = self.maps.read().expect("not poisoned");
        let entries = maps.get(map).ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map \"{map}\"")))?;
        let from = (slot, Bytes::copy_from_slice(prefix));
        let found = entries.range(from..).take_while(|((at, key), _)| *at == slot && key.starts_with(prefix));
        Ok(found.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn page(&self, slots: (Slot, Slot), map: &str, after: Option<&Place>, limit: usize) -> Result<Page> {
        let maps = self.maps.read().expect("not poisoned");
        let entries = maps.get(map).ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map \"{map}\"")))?;
        let inside = |place: &Place| (slots.0..=slots.1).contains(&place.0) && after.is_none_or(|after| place > after);
        let found: Vec<_> = entries.iter().filter(|(place, _)| inside(place)).collect();
        let more = found.len() > limit;
        let entry = |(place, stored): (&Place, &StoredValue)| (place.clone(), stored.clone());
        Ok(Page { entries: found.into_iter().take(limit).map(entry).collect(), more })
    }
}

/// A call with a MessagePack payload.
pub(super) fn call<T: serde::Serialize>(name: &str, key: impl AsRef<[u8]>, input: &T) -> TaskCall {
    let key = Bytes::copy_from_slice(key.as_ref());
    TaskCall {
        name: name.to_owned(),
        slot: slot_of(affinity_of(&key)),
        last_slot: None,
        affinity: None,
        key,
        payload: TaskPayload {
            codec: ValueCodec::Msgpack,
            data: rmp_serde::to_vec_named(input).expect("encodes").into(),
        },
        deadline: Duration::from_secs(60),
        now_ms: 1_000,
    }
}

/// An answer decoded from MessagePack.
pub(super) fn answer<T: serde::de::DeserializeOwned>(outcome: &TaskOutcome) -> T {
    let payload = outcome.answer.as_ref().expect("an answer");
    crate::types::msgpack::from_slice(&payload.data).expect("decodes")
}
