//! What is counted and found beside a replica's rows: when rows expire, and entries and bytes per
//! map. In: every put and delete of a row, in the order in which they are applied, and all rows
//! at a start; so each replica has the same, and a new leader has them at once. Out: look-ups.
//! They are RAM only, rebuilt from rows, never written.

use super::cells::Before;
use super::expiry::ExpiryIndex;
use super::rows;
use crate::types::{HybridTime, MapId, StoredValue};
use std::collections::BTreeMap;

/// What a replica holds of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapSize {
    /// Entries, those included that have expired and are not deleted yet.
    pub entries: u64,
    /// Bytes of their row keys and stored values.
    pub bytes: u64,
}

impl MapSize {
    /// The size when a row changes: value lengths before and after, `None` where there is no row.
    #[must_use]
    pub fn with(mut self, row: usize, before: Option<usize>, after: Option<usize>) -> Self {
        if let Some(len) = before {
            self.entries = self.entries.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub((row + len) as u64);
        }
        if let Some(len) = after {
            self.entries += 1;
            self.bytes += (row + len) as u64;
        }
        self
    }
}

/// The indexes of a replica.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    maps: BTreeMap<MapId, MapSize>,
    /// Rows that expire, by their time.
    pub(super) expiry: ExpiryIndex,
    /// The partition's time, in Unix milliseconds.
    pub(super) time_ms: u64,
}

impl Indexes {
    /// When a row with this value expires, by the partition's time; 0: never.
    pub(super) fn expiry_of(row: &[u8], value: &[u8]) -> u64 {
        if rows::is_map_row(row) { StoredValue::expiry_of(value) } else { 0 }
    }

    /// A row was put; `before` is what was there.
    pub(super) fn on_put(&mut self, row: &[u8], value: &[u8], expires_ms: u64, before: Option<Before>) {
        self.expiry.moved(row, before.map_or(0, |before| before.expires_ms), expires_ms);
        if let Some(map) = rows::map_of(row) {
            let size = self.maps.entry(map).or_default();
            match before {
                Some(before) => size.bytes = size.bytes - before.len as u64 + value.len() as u64,
                None => {
                    size.entries += 1;
                    size.bytes += (row.len() + value.len()) as u64;
                }
            }
        } else if rows::is_time_row(row) {
            self.time_ms = rows::decode_number(value).map_or(0, |time| HybridTime(time).ms());
        }
    }

    /// A row was deleted; `before` is what was there.
    pub(super) fn on_delete(&mut self, row: &[u8], before: Before) {
        self.expiry.moved(row, before.expires_ms, 0);
        if let Some(map) = rows::map_of(row)
            && let Some(size) = self.maps.get_mut(&map)
        {
            size.entries -= 1;
            size.bytes -= (row.len() + before.len) as u64;
            if size.entries == 0 {
                self.maps.remove(&map);
            }
        }
    }

    /// Bytes of RAM that the indexes take.
    pub(super) fn held(&self) -> usize {
        self.expiry.held()
    }

    /// What there is of a map.
    pub(super) fn map_size(&self, map: MapId) -> MapSize {
        self.maps.get(&map).copied().unwrap_or_default()
    }

    /// The maps that have entries here.
    pub(super) fn map_sizes(&self) -> impl Iterator<Item = (MapId, MapSize)> {
        self.maps.iter().map(|(map, size)| (*map, *size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Slot;

    #[test]
    fn a_maps_entries_and_bytes_are_counted() {
        let mut indexes = Indexes::default();
        let row = rows::map_row(Slot(3), MapId(7), b"key");
        let other = rows::map_row(Slot(3), MapId(8), b"key");
        let before = |len| Before { len, expires_ms: 0, changed_in: 0 };
        indexes.on_put(&row, b"value", 0, None);
        indexes.on_put(&other, b"", 0, None);
        indexes.on_put(&row, b"longer value", 0, Some(before(5)));
        let size = |entries, bytes| MapSize { entries, bytes };
        assert_eq!(indexes.map_size(MapId(7)), size(1, row.len() as u64 + 12));
        indexes.on_delete(&row, before(12));
        assert_eq!(indexes.map_sizes().collect::<Vec<_>>(), [(MapId(8), size(1, other.len() as u64))]);
        assert_eq!(indexes.map_size(MapId(7)), size(0, 0));
    }
}
