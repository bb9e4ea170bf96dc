//! Values that are in the backend alone: how they come back, and how others leave. In: rows to
//! read, the keeper's sweeps. Out: values, verified by the backend's checksum. It never changes
//! what a row says: a loaded value is taken only while its row is still cold, and a row that is
//! being loaded is pinned, so that it cannot have changed and become cold again meanwhile.

use super::cells::{RowKey, Swept};
use super::replica::ReplicaState;
use super::rows;
use super::state::State;
use crate::clock::{ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// Rows whose values are in RAM, and stay there until this is dropped.
pub struct Pinned {
    state: Arc<ReplicaState>,
    rows: Vec<RowKey>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.state.write().unpin(&self.rows);
    }
}

/// Where a sweep over a replica's rows stands.
#[derive(Clone, Debug, Default)]
pub struct Hand(Option<RowKey>);

impl Hand {
    /// Whether the sweep has come round.
    pub fn is_at_the_start(&self) -> bool {
        self.0.is_none()
    }
}

impl State {
    fn pin(&mut self, row: RowKey) {
        *self.pins.entry(row).or_default() += 1;
    }

    fn unpin(&mut self, rows: &[RowKey]) {
        for row in rows {
            if let Some(count) = self.pins.get_mut(row.as_slice()) {
                *count -= 1;
                if *count == 0 {
                    self.pins.remove(row.as_slice());
                }
            }
        }
    }

    fn is_cold(&self, row: &[u8]) -> bool {
        self.rows.get(row).is_some_and(super::cells::Cell::is_cold)
    }
}

impl ReplicaState {
    /// Held while values are loaded: no snapshot takes the place of the rows meanwhile.
    fn loading(&self) -> RwLockReadGuard<'_, ()> {
        self.installing.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn replacing(&self) -> RwLockWriteGuard<'_, ()> {
        self.installing.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any of the rows is cold, and must be loaded before it is read on a thread that may
    /// not wait.
    pub fn any_cold<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let state = self.read();
        state.rows.cold() > 0 && rows.into_iter().any(|row| state.is_cold(row))
    }

    /// Of a replica that has cold rows: a row's length if it is one of them.
    pub(super) fn cold_len(&self, row: &[u8]) -> Option<usize> {
        let state = self.read();
        state.rows.get(row).filter(|cell| cell.is_cold()).map(super::cells::Cell::len)
    }

    pub(super) fn has_cold(&self) -> bool {
        self.read().rows.cold() > 0
    }

    /// Brings cold rows into RAM on a thread that may wait, and keeps them there until the pins are
    /// dropped.
    ///
    /// # Errors
    /// Damage in the backend; what the disk says.
    pub async fn warm(self: &Arc<Self>, wanted: Vec<Bytes>) -> Result<Option<Pinned>> {
        let Some(pinned) = self.pin_cold(&wanted) else { return Ok(None) };
        let load = move || {
            pinned.state.load_pinned(&pinned.rows)?;
            Ok(Some(pinned))
        };
        run_on(&self.threads, ThreadKind::Backend, load).await?
    }

    fn pin_cold(self: &Arc<Self>, wanted: &[Bytes]) -> Option<Pinned> {
        let mut state = self.write();
        let cold = wanted.iter().filter(|row| state.is_cold(row));
        let rows: Vec<RowKey> = cold.map(|row| RowKey::new(row)).collect();
        rows.iter().for_each(|row| state.pin(row.clone()));
        drop(state);
        (!rows.is_empty()).then(|| Pinned { state: self.clone(), rows })
    }

    /// Reads pinned rows from the backend; gives those that the backend has.
    fn fetch(&self, rows: &[RowKey]) -> Result<Vec<Option<Bytes>>> {
        let wanted: Vec<Bytes> = rows.iter().map(RowKey::to_bytes).collect();
        self.memory.stats.cold_reads.fetch_add(wanted.len() as u64, Relaxed);
        self.backend.get_many(self.key, &wanted)
    }

    /// Loads pinned rows into their cells. Blocks.
    fn load_pinned(&self, pinned: &[RowKey]) -> Result<()> {
        let _whole = self.loading();
        let cold: Vec<RowKey> = {
            let state = self.read();
            pinned.iter().filter(|row| state.is_cold(row.as_slice())).cloned().collect()
        };
        let found = self.fetch(&cold)?;
        let mut state = self.write();
        for (row, value) in cold.iter().zip(found) {
            // Changed or deleted meanwhile: what is there is newer.
            let Some(len) = state.rows.get(row.as_slice()).filter(|cell| cell.is_cold()).map(|cell| cell.len()) else {
                continue;
            };
            let value = value.filter(|value| value.len() == len).ok_or_else(|| self.missing(row))?;
            state.rows.warm(row.as_slice(), &value);
        }
        self.report(&mut state);
        Ok(())
    }

    fn missing(&self, row: &RowKey) -> Error {
        let what = format!("the {} backend does not have the value of row {row:?} any more", self.backend.name());
        Error::new(Code::CorruptRow, what).at(format!("replica {}", self.key))
    }

    /// A row's value, from the backend if it is cold. Blocks then.
    pub(super) fn get_cold(&self, row: &[u8]) -> Result<Option<Bytes>> {
        let pinned = [RowKey::new(row)];
        self.write().pin(pinned[0].clone());
        self.memory.stats.cold_reads_inline.fetch_add(1, Relaxed);
        let loaded = self.load_pinned(&pinned);
        let mut state = self.write();
        let value = state.rows.get(row).map(|cell| cell.value());
        state.unpin(&pinned);
        drop(state);
        loaded?;
        match value {
            Some(None) => Err(self.missing(&pinned[0])),
            Some(value) => Ok(value),
            None => Ok(None),
        }
    }

    /// Fills in the values that are missing because their rows are cold, without keeping them in
    /// RAM; rows that were deleted meanwhile are left out. Blocks if there are any.
    pub(super) fn fill(&self, taken: Vec<(RowKey, Option<Bytes>)>) -> Result<Vec<(Bytes, Bytes)>> {
        let cold: Vec<RowKey> = taken.iter().filter(|(_, value)| value.is_none()).map(|(row, _)| row.clone()).collect();
        let mut filled = Vec::with_capacity(taken.len());
        if cold.is_empty() {
            filled.extend(taken.into_iter().filter_map(|(row, value)| Some((row.to_bytes(), value?))));
            return Ok(filled);
        }
        {
            let mut state = self.write();
            cold.iter().for_each(|row| state.pin(row.clone()));
        }
        let whole = self.loading();
        let found = self.fetch(&cold);
        let mut state = self.write();
        state.unpin(&cold);
        drop(whole);
        let mut found = found?.into_iter();
        for (row, value) in taken {
            if let Some(value) = value {
                filled.push((row.to_bytes(), value));
                continue;
            }
            let loaded = found.next().flatten();
            let Some(cell) = state.rows.get(row.as_slice()) else { continue };
            let value = match cell.peek() {
                Some(value) => value,
                None => loaded.filter(|value| value.len() == cell.len()).ok_or_else(|| self.missing(&row))?,
            };
            filled.push((row.to_bytes(), value));
        }
        Ok(filled)
    }

    /// One step of the sweep: values of clean rows that nobody used since the last round leave
    /// RAM. Gives where to go on, and the bytes given back.
    pub fn sweep(&self, hand: Hand, most_rows: usize) -> (Hand, usize) {
        if !self.evictable {
            return (Hand(None), 0);
        }
        let mut state = self.write();
        let State { rows, pins, .. } = &mut *state;
        let keep = |row: &RowKey| rows::is_partition_wide(row.as_slice()) || pins.contains_key(row.as_slice());
        let Swept { next, evicted, freed } = rows.sweep(hand.0.as_ref(), most_rows, keep);
        self.memory.stats.evicted.fetch_add(evicted as u64, Relaxed);
        self.report(&mut state);
        (Hand(next), freed)
    }

    /// Bytes of RAM that could be given back once a checkpoint has been made.
    pub fn evictable_bytes(&self) -> usize {
        if self.evictable { self.read().held().1 } else { 0 }
    }

    /// Rows whose values are in the backend alone.
    pub fn cold_rows(&self) -> usize {
        self.read().rows.cold()
    }
}
