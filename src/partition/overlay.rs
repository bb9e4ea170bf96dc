//! What an executor has computed and not yet seen applied: row values with the number of the
//! batch that carries them. A view shows entries as they are at the executor's time. Cheap to
//! share with user code: a shared overlay is copied only when it changes meanwhile.

use super::copies::MapCopy;
use super::expiry::is_expired;
use super::indexes::Indexes;
use super::replica::ReplicaState;
use super::rows;
use super::user_code::{PAGE_BYTES, Page, Place, SlotView};
use crate::error::{Code, Error, Result};
use crate::types::{MapDescriptor, MapId, Slot, StoredValue};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Finds maps by name: the local copy of the meta group.
pub trait MapDirectory: Send + Sync + 'static {
    /// The map of that name.
    fn map(&self, name: &str) -> Option<MapDescriptor>;

    /// This peer's copy of a replicated map, if it has one.
    fn copy(&self, _name: &str) -> Option<Arc<MapCopy>> {
        None
    }

    /// How many partitions share a map's limits.
    fn partitions(&self) -> u32;
}

/// Rows that a page is gathered by, so that it ends soon after it is full.
const PAGE_STEP: usize = 16;

type Pending = BTreeMap<Bytes, (u64, Option<Bytes>)>;

/// Expired rows that a view remembers having hidden, at most; the rest is found by the clock.
const HIDDEN_ROWS: usize = 1_024;

/// The rows of a replica as its executor sees them: the overlay above the applied state, without
/// the entries that have expired at the view's time.
#[derive(Clone)]
pub struct View {
    pub(super) replica: Arc<ReplicaState>,
    pub(super) pending: Arc<Pending>,
    maps: Arc<dyn MapDirectory>,
    now_ms: u64,
    /// Expired rows that somebody looked for. Who hides them must commit that they are gone.
    hidden: Arc<Mutex<BTreeSet<Bytes>>>,
}

impl View {
    /// The applied state at its own time, with an empty overlay.
    pub fn new(replica: Arc<ReplicaState>, maps: Arc<dyn MapDirectory>) -> Self {
        let now_ms = replica.time_ms();
        View { replica, pending: Arc::default(), maps, now_ms, hidden: Arc::default() }
    }

    /// The time at which it shows entries, in Unix milliseconds of the partition's time.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Shows entries as at this time from now on.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.hidden().clear();
    }

    fn hidden(&self) -> MutexGuard<'_, BTreeSet<Bytes>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The expired rows that were looked for since this was last asked.
    pub fn take_hidden(&self) -> BTreeSet<Bytes> {
        std::mem::take(&mut *self.hidden())
    }

    /// Whether a row that expires then is to be hidden; takes note of it.
    pub(super) fn hides(&self, row: &[u8], expires_ms: u64) -> bool {
        let expired = is_expired(expires_ms, self.now_ms);
        if expired {
            let mut hidden = self.hidden();
            if hidden.len() < HIDDEN_ROWS {
                hidden.insert(Bytes::copy_from_slice(row));
            }
        }
        expired
    }

    /// When a row that is there expires (0: never), whether it is shown or not.
    pub fn expiry(&self, row: &[u8]) -> Option<u64> {
        match self.pending.get(row) {
            Some((_, value)) => value.as_ref().map(|value| Indexes::expiry_of(row, value)),
            None => self.replica.expiry(row),
        }
    }

    /// Whether anything may have to be hidden: else nobody need look.
    pub(super) fn may_hide(&self) -> bool {
        !self.pending.is_empty() || self.replica.next_expiry().is_some_and(|at| is_expired(at, self.now_ms))
    }

    /// The length of a row's value, whether it is shown or not.
    pub fn row_len(&self, row: &[u8]) -> Option<usize> {
        match self.pending.get(row) {
            Some((_, value)) => value.as_ref().map(Bytes::len),
            None => self.replica.row_len(row),
        }
    }

    /// A row's value.
    ///
    /// # Errors
    /// When the value is not in RAM and cannot be read from the backend.
    pub fn get(&self, row: &[u8]) -> Result<Option<Bytes>> {
        let value = match self.pending.get(row) {
            Some((_, value)) => value.clone(),
            None => self.replica.get(row)?,
        };
        Ok(value.filter(|value| !self.hides(row, Indexes::expiry_of(row, value))))
    }

    /// Whether a row is there; never reads the backend.
    pub fn contains(&self, row: &[u8]) -> bool {
        self.expiry(row).is_some_and(|expires_ms| !self.hides(row, expires_ms))
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
        self.stored(&rows::map_row(slot, map, key))
    }

    /// The entry of a map's row.
    ///
    /// # Errors
    /// `CorruptRow`.
    pub(super) fn stored(&self, row: &[u8]) -> Result<Option<StoredValue>> {
        self.get(row)?.map(|row| StoredValue::decode(&row)).transpose()
    }

    fn named(&self, name: &str) -> Result<MapDescriptor> {
        let map = self.maps.map(name);
        let map = map.ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map {name:?}")))?;
        if map.options.replicated {
            let what = format!("the map {name:?} is replicated, and lies in no task's slot");
            return Err(Error::new(Code::TaskOutsideSlot, what)
                .remedy("read its copy with the context's `replicated`; write it from outside of tasks"));
        }
        Ok(map)
    }

    /// Entries' rows that start with `prefix`, in order, from `after` (exclusive) on, at most
    /// `limit`: both layers merged, without what has expired.
    pub(super) fn scan_rows(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut shown = Vec::new();
        let mut after = after.map(Bytes::copy_from_slice);
        loop {
            let wanted = limit - shown.len();
            let chunk = self.scan_layers(prefix, after.as_deref(), wanted)?;
            let is_last = chunk.len() < wanted;
            after = chunk.last().map(|(row, _)| row.clone());
            shown.extend(chunk.into_iter().filter(|(row, value)| !self.hides(row, Indexes::expiry_of(row, value))));
            if is_last || shown.len() >= limit {
                return Ok(shown);
            }
        }
    }

    fn scan_layers(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
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
    fn replicated(&self, map: &str, key: &[u8]) -> Result<(Option<StoredValue>, u64)> {
        match self.maps.copy(map) {
            Some(copy) => copy.get(key),
            None => Err(self.maps.map(map).map_or_else(
                || Error::new(Code::NoSuchMap, format!("there is no map {map:?}")),
                |_| Error::new(Code::NoLocalCopy, format!("this peer has no copy of the map {map:?}")),
            )),
        }
    }

    fn descriptor(&self, map: &str) -> Option<MapDescriptor> {
        self.maps.map(map)
    }

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
