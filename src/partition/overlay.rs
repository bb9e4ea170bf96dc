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
use std::ops::Bound;
use std::sync::Arc;

/// Finds maps by name: the local copy of the meta group.
pub trait MapDirectory: Send + Sync + 'static {
    /// The map of that name.
    fn map(&self, name: &str) -> Option<MapDescriptor>;
}

/// Rows that a walk takes from the layers at a time.
const WALK_ROWS: usize = 256;

/// What a walk shows entries to: slot, key and row bytes; false ends the walk.
pub(super) type Visit<'a> = dyn FnMut(Slot, Bytes, Bytes) -> Result<bool> + 'a;

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
    pub fn get(&self, row: &[u8]) -> Option<Bytes> {
        match self.pending.get(row) {
            Some((_, value)) => value.clone(),
            None => self.replica.get(row),
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
        self.get(&rows::map_row(slot, map, key)).map(|row| StoredValue::decode(&row)).transpose()
    }

    fn named(&self, name: &str) -> Result<MapDescriptor> {
        self.maps.map(name).ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map {name:?}")))
    }

    /// Rows that start with `prefix`, in order, from `after` (exclusive) on, at most `limit`: both
    /// layers merged.
    fn scan_rows(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        let overlaid = || {
            let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
            let range = self.pending.range::<[u8], _>((from, Bound::Unbounded));
            range.take_while(|(row, _)| row.starts_with(prefix))
        };
        // Each deletion in the overlay may hide one applied row.
        let hidden = overlaid().filter(|(_, (_, value))| value.is_none()).count();
        let applied = self.replica.scan(prefix, after, limit + hidden);
        if overlaid().next().is_none() {
            return applied;
        }
        let mut merged: BTreeMap<Bytes, Option<Bytes>> =
            applied.into_iter().map(|(row, value)| (row, Some(value))).collect();
        merged.extend(overlaid().map(|(row, (_, value))| (row.clone(), value.clone())));
        merged.into_iter().filter_map(|(row, value)| Some((row, value?))).take(limit).collect()
    }

    /// Shows the entries of a map whose keys start with `prefix`, by slot and key, from a slot
    /// (behind a key of it) to the slot `until`, until `visit` says that it is enough. What lies in
    /// this partition is all that there is to see.
    ///
    /// # Errors
    /// `CorruptRow`, and what `visit` says.
    pub(super) fn walk(
        &self,
        map: MapId,
        (mut slot, after): (Slot, Option<&Bytes>),
        until: Slot,
        prefix: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let mut after = after.map(|key| rows::map_row(slot, map, key));
        while slot <= until {
            let of_slot = rows::map_prefix(slot, map, prefix);
            // A key from elsewhere may lie before the prefix.
            after = after.filter(|after| **after >= *of_slot);
            loop {
                let chunk = self.scan_rows(&of_slot, after.as_deref(), WALK_ROWS);
                let is_last = chunk.len() < WALK_ROWS;
                for (row, value) in chunk {
                    let key = rows::map_key(&row);
                    let key = key.ok_or_else(|| Error::new(Code::CorruptRow, "a map's row has no key"))?;
                    if !visit(slot, key, value)? {
                        return Ok(());
                    }
                    after = Some(row);
                }
                if is_last {
                    break;
                }
            }
            after = None;
            match self.next_slot(slot) {
                Some(next) => slot = next,
                None => break,
            }
        }
        Ok(())
    }

    /// The next slot behind this one in which there are rows of any kind.
    fn next_slot(&self, slot: Slot) -> Option<Slot> {
        let from = slot.0.checked_add(1)?.to_be_bytes();
        let pending = self.pending.range::<[u8], _>((Bound::Included(&from[..]), Bound::Unbounded));
        let pending = pending.map(|(row, _)| rows::slot_of_row(row)).next().flatten();
        let applied = self.replica.first_from(&from).and_then(|row| rows::slot_of_row(&row));
        pending.into_iter().chain(applied).min()
    }
}

impl SlotView for View {
    fn get(&self, slot: Slot, map: &str, key: &[u8]) -> Result<Option<StoredValue>> {
        self.entry(slot, self.named(map)?.id, key)
    }

    fn scan(&self, slot: Slot, map: &str, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, StoredValue)>> {
        let map = self.named(map)?;
        let rows = self.scan_rows(&rows::map_prefix(slot, map.id, prefix), None, limit);
        let entry = |(row, value): (Bytes, Bytes)| {
            let key = rows::map_key(&row).ok_or_else(|| Error::new(Code::CorruptRow, "a map's row has no key"))?;
            Ok((key, StoredValue::decode(&value)?))
        };
        rows.into_iter().map(entry).collect()
    }
}
