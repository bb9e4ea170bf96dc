//! What an executor has computed and not yet seen applied: row values with the number of the
//! batch that carries them. Cheap to share with user code: a shared overlay is copied only when
//! it changes meanwhile.

use super::replica::ReplicaState;
use super::rows;
use super::user_code::SlotView;
use crate::error::{Code, Error, Result};
use crate::types::{MapDescriptor, MapId, Slot, StoredValue};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Finds maps by name: the local copy of the meta group.
pub trait MapDirectory: Send + Sync + 'static {
    /// The map of that name.
    fn map(&self, name: &str) -> Option<MapDescriptor>;
}

type Pending = BTreeMap<Bytes, (u64, Option<Bytes>)>;

/// The rows of a replica as its executor sees them: the overlay above the applied state.
#[derive(Clone)]
pub struct View {
    replica: Arc<ReplicaState>,
    pending: Arc<Pending>,
    maps: Arc<dyn MapDirectory>,
}

impl View {
    /// The applied state, with an empty overlay.
    pub fn new(replica: Arc<ReplicaState>, maps: Arc<dyn MapDirectory>) -> Self {
        View { replica, pending: Arc::default(), maps }
    }

    /// A row's value.
    ///
    /// # Errors
    /// When the value is not in RAM and cannot be read from the backend.
    pub fn get(&self, row: &[u8]) -> Result<Option<Bytes>> {
        match self.pending.get(row) {
            Some((_, value)) => Ok(value.clone()),
            None => self.replica.get(row),
        }
    }

    /// Whether a row is there; never reads the backend.
    pub fn contains(&self, row: &[u8]) -> bool {
        match self.pending.get(row) {
            Some((_, value)) => value.is_some(),
            None => self.replica.contains(row),
        }
    }

    /// The number of the batch that a row's value waits for; `None` if it is applied.
    pub fn pending_number(&self, row: &[u8]) -> Option<u64> {
        self.pending.get(row).map(|(number, _)| *number)
    }

    /// Puts a batch's write on top.
    pub fn write(&mut self, number: u64, row: Bytes, value: Option<Bytes>) {
        Arc::make_mut(&mut self.pending).insert(row, (number, value));
    }

    /// Takes away what batch `number` wrote: it is applied.
    pub fn settle(&mut self, number: u64, rows: &[Bytes]) {
        let pending = Arc::make_mut(&mut self.pending);
        for row in rows {
            if pending.get(row).is_some_and(|(by, _)| *by == number) {
                pending.remove(row);
            }
        }
    }

    /// The entry of a key.
    ///
    /// # Errors
    /// `CorruptRow`.
    pub fn entry(&self, slot: Slot, map: MapId, key: &[u8]) -> Result<Option<StoredValue>> {
        self.get(&rows::map_row(slot, map, key))?.map(|row| StoredValue::decode(&row)).transpose()
    }

    fn named(&self, name: &str) -> Result<MapDescriptor> {
        self.maps.map(name).ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map {name:?}")))
    }

    /// Rows that start with `prefix`, in order, at most `limit`: both layers merged.
    fn scan_rows(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let overlaid = || {
            let range = self.pending.range::<[u8], _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
            range.take_while(|(row, _)| row.starts_with(prefix))
        };
        // Each deletion in the overlay may hide one applied row.
        let hidden = overlaid().filter(|(_, (_, value))| value.is_none()).count();
        let applied = self.replica.scan(prefix, None, limit + hidden)?;
        if overlaid().next().is_none() {
            return Ok(applied);
        }
        let mut merged: BTreeMap<Bytes, Option<Bytes>> =
            applied.into_iter().map(|(row, value)| (row, Some(value))).collect();
        merged.extend(overlaid().map(|(row, (_, value))| (row.clone(), value.clone())));
        Ok(merged.into_iter().filter_map(|(row, value)| Some((row, value?))).take(limit).collect())
    }
}

impl SlotView for View {
    fn get(&self, slot: Slot, map: &str, key: &[u8]) -> Result<Option<StoredValue>> {
        self.entry(slot, self.named(map)?.id, key)
    }

    fn scan(&self, slot: Slot, map: &str, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, StoredValue)>> {
        let map = self.named(map)?;
        let rows = self.scan_rows(&rows::map_prefix(slot, map.id, prefix), limit)?;
        let entry = |(row, value): (Bytes, Bytes)| {
            let key = rows::map_key(&row).ok_or_else(|| Error::new(Code::CorruptRow, "a map's row has no key"))?;
            Ok((key, StoredValue::decode(&value)?))
        };
        rows.into_iter().map(entry).collect()
    }
}
