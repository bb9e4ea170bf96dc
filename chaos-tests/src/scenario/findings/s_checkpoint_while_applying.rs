//! S: a replica's own checkpoint is a fuzzy scan too (`s-holds-replica`, `s-bug-serves-at-once`).
//!
//! Schedule: while the backend draws the rows of a checkpoint, entries are applied that change rows
//! before and behind the scan; every other seed the power goes in the middle, at a change of the disk
//! that the seed decides. The replica is loaded again and its log replayed. Must hold: at each index at
//! which it says that it may serve, its rows are those of that index, and from the scan's end on it
//! serves. The real state and checkpoint are driven directly, since a simulated thread would make a
//! checkpoint in no time.

use super::steps::{Said, stage};
use crate::backend::SimBackend;
use crate::checks::Violation;
use crate::dice::Dice;
use crate::disk::{Mount, SimDisk};
use crate::ports::SimThreads;
use bytes::Bytes;
use keystead::error::Result;
use keystead::partition::entry::{Batch, Change, Marker, PartitionEntry, RemovalCause, RowWrite};
use keystead::partition::{Memory, ReplicaMachine, ReplicaState, rows};
use keystead::raft::{Committed, LogId, Machine, decode_entry_id};
use keystead::storage::backend::{MemoryBackend, ReplicaKey, Rows, StateBackend};
use keystead::types::{GroupId, MapId, RunId, StoredValue, Value, slot_of};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const KEY: ReplicaKey = ReplicaKey { group: GroupId(1), replica: 1 };
/// More than a scan takes under one lock.
const KEYS: u64 = 1_200;
const ENTRIES: u64 = 40;
const TERM: u64 = 1;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    stage(seed, script(seed))
}

/// The log, and the rows at each of its indexes.
struct Truth {
    log: Vec<Bytes>,
    states: Vec<BTreeMap<Bytes, Bytes>>,
}

impl Truth {
    fn draw(dice: &mut Dice) -> Self {
        let marker = PartitionEntry::Marker(Marker { term: TERM, run: RunId(7) }).encode();
        let mut truth = Truth { log: vec![marker], states: vec![BTreeMap::new(); 2] };
        let first = (0..KEYS).map(|key| put(key, 0)).collect();
        truth.push(1, first, true);
        let mut number = 2;
        for index in 2..ENTRIES {
            let mut writes = BTreeMap::new();
            for _ in 0..dice.between(5, 30) {
                let key = dice.below(KEYS);
                let write = if dice.per_mille(200) { remove(key, index) } else { put(key, index) };
                writes.insert(key, write);
            }
            // Some entries are fenced: of them nothing may be seen.
            let fenced = dice.per_mille(150);
            truth.push(if fenced { number + 1 } else { number }, writes.into_values().collect(), !fenced);
            number += u64::from(!fenced);
        }
        truth
    }

    fn push(&mut self, number: u64, writes: Vec<RowWrite>, effective: bool) {
        let mut state = self.states.last().cloned().unwrap_or_default();
        for write in writes.iter().filter(|_| effective) {
            match &write.change {
                Change::Put(value) => drop(state.insert(write.row.clone(), value.clone())),
                Change::Drop | Change::Remove { .. } => drop(state.remove(&write.row)),
            }
        }
        self.states.push(state);
        self.log.push(PartitionEntry::Batch(Batch { term: TERM, run: RunId(7), number, writes }).encode());
    }

    /// Applies the next entry; false at the log's end.
    fn apply_next(&self, state: &Arc<ReplicaState>) -> std::result::Result<bool, String> {
        let index = state.applied_now() + 1;
        let Some(payload) = self.log.get(index as usize - 1) else { return Ok(false) };
        let machine = ReplicaMachine(state.clone());
        let applied = machine.apply(log_id(index)?, Committed::Payload(payload));
        applied.map(|_| true).map_err(|error| error.to_string())
    }
}

fn log_id(index: u64) -> std::result::Result<LogId, String> {
    let head = [&[1, 1][..], &TERM.to_le_bytes(), &index.to_le_bytes()].concat();
    decode_entry_id(&head).map_err(|error| error.to_string())
}

fn row(key: u64) -> Bytes {
    let key = key.to_string();
    rows::map_row(slot_of(key.as_bytes()), MapId(1), key.as_bytes())
}

fn put(key: u64, revision: u64) -> RowWrite {
    RowWrite::put(row(key), StoredValue { revision, value: Value::i64(revision as i64), expires_ms: 0 }.encode())
}

fn remove(key: u64, revision: u64) -> RowWrite {
    RowWrite::remove(row(key), revision, RemovalCause::Deleted)
}

async fn script(seed: u64) -> Said {
    let mut dice = Dice::new(seed, "checkpoint");
    let truth = Arc::new(Truth::draw(&mut dice));
    let (disk, changes) = (SimDisk::new(Dice::new(seed, "disk")), dice.per_mille(500));
    let backend = Arc::new(Drawn { backend: open(disk.mount(), changes)?, between: Mutex::default() });
    let state = load(backend.clone())?;
    let machine = ReplicaMachine(state.clone());
    let (first, second) = (dice.between(2, 6), dice.between(8, 16));
    while state.applied_now() < first {
        truth.apply_next(&state)?;
    }
    let before = disk.counts().changes;
    machine.checkpoint().await.map_err(|error| error.to_string())?;
    let changes_of_one = disk.counts().changes - before;
    while state.applied_now() < second {
        truth.apply_next(&state)?;
    }
    // With few rows to draw, an entry comes after each few of them.
    let every = if changes { 7 } else { dice.between(60, 140) };
    backend.apply_between(every, state.clone(), truth.clone());
    if seed % 2 == 1 {
        disk.power_off_after(1 + (seed / 2) % changes_of_one);
    }
    let written = machine.checkpoint().await;
    backend.stop();
    let (end, cut_short) = (state.applied_now(), disk.has_lost_power());
    if written.is_ok() == cut_short || (!cut_short && end < second + 2) {
        return Err(format!("entries {second} to {end} were applied during a checkpoint that gave {written:?}"));
    }
    crate::event!("checkpoint", "of {second}, ended at {end}, cut short: {cut_short}");
    drop((machine, state, backend));
    match dice.below(3) {
        0 => disk.kill(),
        1 => disk.crash(),
        _ => disk.crash_hard(),
    }
    replay(&truth, open(disk.mount(), changes)?, (first, second, end), cut_short)
}

fn replay(truth: &Truth, backend: Arc<dyn StateBackend>, at: (u64, u64, u64), cut_short: bool) -> Said {
    let (first, second, end) = at;
    let state = load(backend)?;
    let from = state.applied_now();
    if from != second && (from != first || !cut_short) {
        return Err(format!("loaded at index {from}; the checkpoints were of {first} and {second}"));
    }
    let mut mixed = false;
    loop {
        let index = state.applied_now();
        let rows = state.scan(&[], None, usize::MAX).map_err(|error| error.to_string())?;
        let right = rows.into_iter().collect::<BTreeMap<_, _>>() == truth.states[index as usize];
        mixed |= !right;
        if state.may_serve() && !right {
            return Err(format!("at index {index} it serves a state that never was; the scan ended at {end}"));
        }
        if index >= end && !state.may_serve() {
            return Err(format!("at index {index} it does not serve; the scan ended at {end}"));
        }
        if !truth.apply_next(&state)? {
            break;
        }
    }
    if !mixed && !cut_short {
        return Err("the checkpoint was to hold a state that never was".to_owned());
    }
    Ok(())
}

fn open(mount: Mount, changes: bool) -> std::result::Result<Arc<dyn StateBackend>, String> {
    let failed = |error: keystead::error::Error| error.to_string();
    Ok(match changes {
        true => Arc::new(SimBackend::open(mount).map_err(failed)?),
        false => Arc::new(MemoryBackend::open(Arc::new(mount), "/state").map_err(failed)?),
    })
}

fn load(backend: Arc<dyn StateBackend>) -> std::result::Result<Arc<ReplicaState>, String> {
    ReplicaState::load(KEY, backend, Arc::new(SimThreads), Memory::new(None)).map_err(|error| error.to_string())
}

type Between = Box<dyn FnMut() + Send>;

/// A backend between whose draws of rows something else happens.
struct Drawn {
    backend: Arc<dyn StateBackend>,
    between: Mutex<Option<Between>>,
}

impl Drawn {
    /// An entry is applied after every so many rows.
    fn apply_between(&self, every: u64, state: Arc<ReplicaState>, truth: Arc<Truth>) {
        let mut drawn = 0_u64;
        let between: Between = Box::new(move || {
            drawn += 1;
            if drawn.is_multiple_of(every) && state.applied_now() + 4 < ENTRIES {
                // What cannot be applied here is missing in the end.
                let _ = truth.apply_next(&state);
            }
        });
        *self.between.lock().unwrap_or_else(PoisonError::into_inner) = Some(between);
    }

    fn stop(&self) {
        *self.between.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn tick(&self) {
        if let Some(between) = &mut *self.between.lock().unwrap_or_else(PoisonError::into_inner) {
            between();
        }
    }
}

impl StateBackend for Drawn {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn takes_changes(&self) -> bool {
        self.backend.takes_changes()
    }

    fn load(&self, key: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>> {
        self.backend.load(key, visit)
    }

    fn ahead(&self, key: ReplicaKey) -> Result<Option<Bytes>> {
        self.backend.ahead(key)
    }

    fn checkpoint(&self, key: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()> {
        match rows {
            Rows::All(rows) => self.backend.checkpoint(key, Rows::All(&mut rows.inspect(|_| self.tick())), meta),
            Rows::Changed(rows) => {
                self.backend.checkpoint(key, Rows::Changed(&mut rows.inspect(|_| self.tick())), meta)
            }
        }
    }

    fn remove(&self, key: ReplicaKey) -> Result<()> {
        self.backend.remove(key)
    }

    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        self.backend.replicas()
    }
}
