//! What an executor has computed and not yet seen applied: row values with the number of the
//! batch that carries them. Cheap to share with user code: a shared overlay is copied only when
//! it changes meanwhile.

use super::replica::ReplicaState;
use super::rows;
use super::user_code::{PAGE_BYTES, Page, Place, SlotView};
use crate::error::{Code, Error, Result};
use crate::types::{MapDescriptor, MapId, Slot, StoredValue};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Finds maps by name: the local copy of the meta group.
pub trait MapDirectory: Send + Sync + 'static {
    /// The map of that name.
    fn map(&self, name: &str) -> Option<MapDescriptor>;
}

/// Rows that a page is gathered by, so that it ends soon after it is full.
const PAGE_STEP: usize = 16;

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

    /// Rows that start with `prefix`, after `after`, in order, at most `limit`: both layers merged.
    fn scan_rows(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let overlaid = || {
            let range = self.pending.range::<[u8], _>((from, Bound::Unbounded));
            range.take_while(|(row, _)| row.starts_with(prefix))
        };
        // Each deletion in the overlay may hide one applied row.
        let hidden = overlaid().filter(|(_, (_, value))| value.is_none()).count();
        let applied = self.replica.scan(prefix, after, limit.saturating_add(hidden))?;
        if overlaid().next().is_none() {
            return Ok(applied);
        }
        let mut merged: BTreeMap<Bytes, Option<Bytes>> =
            applied.into_iter().map(|(row, value)| (row, Some(value))).collect();
        merged.extend(overlaid().map(|(row, (_, value))| (row.clone(), value.clone())));
        Ok(merged.into_iter().filter_map(|(row, value)| Some((row, value?))).take(limit).collect())
    }
}

fn decode_entry(row: &Bytes, value: &Bytes) -> Result<(Bytes, StoredValue)> {
    let key = rows::map_key(row).ok_or_else(|| Error::new(Code::CorruptRow, "a map's row has no key"))?;
    Ok((key, StoredValue::decode(value)?))
}

impl SlotView for View {
    fn get(&self, slot: Slot, map: &str, key: &[u8]) -> Result<Option<StoredValue>> {
        self.entry(slot, self.named(map)?.id, key)
    }

    fn scan(&self, slot: Slot, map: &str, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, StoredValue)>> {
        let map = self.named(map)?;
        let rows = self.scan_rows(&rows::map_prefix(slot, map.id, prefix), None, limit)?;
        rows.into_iter().map(|(row, value)| decode_entry(&row, &value)).collect()
    }

    fn page(&self, slots: (Slot, Slot), map: &str, after: Option<&Place>, limit: usize) -> Result<Page> {
        let map = self.named(map)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let first = after.map_or(slots.0, |(slot, _)| *slot);
        for slot in (first.0..=slots.1.0).map(Slot) {
            let prefix = rows::map_prefix(slot, map.id, b"");
            let mut from = after.filter(|(at, _)| *at == slot).map(|(_, key)| rows::map_row(slot, map.id, key));
            loop {
                let wanted = PAGE_STEP.min(limit - entries.len());
                if wanted == 0 || bytes >= PAGE_BYTES {
                    return Ok(Page { entries, more: true });
                }
                let rows = self.scan_rows(&prefix, from.as_deref(), wanted)?;
                let ended = rows.len() < wanted;
                for (row, value) in &rows {
                    bytes += row.len() + value.len();
                    let (key, stored) = decode_entry(row, value)?;
                    entries.push(((slot, key), stored));
                }
                if ended {
                    break;
                }
                from = rows.into_iter().last().map(|(row, _)| row);
            }
        }
        Ok(Page { entries, more: false })
    }
}
