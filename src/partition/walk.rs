//! Walks over a map's rows in one partition, both layers of a view merged: which entries there are,
//! in which order, and how large, without those that have expired. In: a map, a place to begin. Out:
//! row keys and lengths. Never touches a value, so that nothing is loaded that a page has no room for.

use super::indexes::MapSize;
use super::overlay::View;
use super::rows;
use crate::error::{Code, Error, Result};
use crate::types::{MapId, Slot};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Rows that a walk takes from the layers at a time.
const WALK_ROWS: usize = 256;

/// An entry that a walk has come to.
pub(super) struct Found {
    /// Its slot.
    pub(super) slot: Slot,
    /// Its key.
    pub(super) key: Bytes,
    /// Its row.
    pub(super) row: Bytes,
    /// Bytes of its stored value.
    pub(super) len: usize,
}

/// What a walk shows entries to; false ends the walk.
pub(super) type Visit<'a> = dyn FnMut(Found) -> bool + 'a;

impl View {
    /// Shows the entries of a map whose keys start with `prefix`, by slot and key, from a slot
    /// (behind a key of it) to the slot `until`, until `visit` says that it is enough. What lies in
    /// this partition is all that there is to see.
    ///
    /// # Errors
    /// `CorruptRow`.
    pub(super) fn walk(
        &self,
        map: MapId,
        (mut slot, after): (Slot, Option<&Bytes>),
        until: Slot,
        prefix: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let mut after = after.map(|key| rows::map_row(slot, map, key));
        let may_hide = self.may_hide();
        while slot <= until {
            let of_slot = rows::map_prefix(slot, map, prefix);
            // A key from elsewhere may lie before the prefix.
            after = after.filter(|after| **after >= *of_slot);
            loop {
                let chunk = self.lengths(&of_slot, after.as_deref(), WALK_ROWS);
                let is_last = chunk.len() < WALK_ROWS;
                for (row, len) in chunk {
                    // What has expired is not there, and goes with the batch of whoever looked.
                    if may_hide && !self.contains(&row) {
                        after = Some(row);
                        continue;
                    }
                    let key = rows::map_key(&row);
                    let key = key.ok_or_else(|| Error::new(Code::CorruptRow, "a map's row has no key"))?;
                    if !visit(Found { slot, key, row: row.clone(), len }) {
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

    /// Rows that start with `prefix`, after `after`, in order, at most `limit`, with their lengths.
    fn lengths(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Bytes, usize)> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let overlaid = || {
            let range = self.pending.range::<[u8], _>((from, Bound::Unbounded));
            range.take_while(|(row, _)| row.starts_with(prefix))
        };
        // Each deletion in the overlay may hide one applied row.
        let hidden = overlaid().filter(|(_, (_, value))| value.is_none()).count();
        let applied = self.replica.lengths(prefix, after, limit.saturating_add(hidden));
        if overlaid().next().is_none() {
            return applied;
        }
        let mut merged: BTreeMap<Bytes, Option<usize>> =
            applied.into_iter().map(|(row, len)| (row, Some(len))).collect();
        merged.extend(overlaid().map(|(row, (_, value))| (row.clone(), value.as_ref().map(Bytes::len))));
        merged.into_iter().filter_map(|(row, len)| Some((row, len?))).take(limit).collect()
    }

    /// The next slot behind this one in which there are rows of any kind.
    fn next_slot(&self, slot: Slot) -> Option<Slot> {
        let from = slot.0.checked_add(1)?.to_be_bytes();
        let mut pending = self.pending.range::<[u8], _>((Bound::Included(&from[..]), Bound::Unbounded));
        let pending = pending.next().and_then(|(row, _)| rows::slot_of_row(row));
        let applied = self.replica.first_from(&from).and_then(|row| rows::slot_of_row(&row));
        pending.into_iter().chain(applied).min()
    }

    /// What there is of a map without what has expired.
    pub(super) fn live_size(&self, map: MapId) -> MapSize {
        let mut size = self.map_size(map);
        let mut due: BTreeSet<Bytes> = self.replica.expired(self.now_ms(), usize::MAX).into_iter().collect();
        due.extend(self.pending.keys().cloned());
        for row in due.into_iter().filter(|row| rows::map_of(row) == Some(map)) {
            if self.expiry(&row).is_some_and(|at| self.hides(&row, at)) {
                size = size.with(row.len(), self.row_len(&row), None);
            }
        }
        size
    }

    /// What there is of a map, expired entries included, by the replica's index and what is not
    /// applied yet.
    pub(super) fn map_size(&self, map: MapId) -> MapSize {
        self.replica.map_size_with(map, self.pending.iter().map(|(row, (_, value))| (row, value.as_ref())))
    }
}
