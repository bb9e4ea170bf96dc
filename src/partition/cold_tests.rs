//! Replicas with a tiny memory limit, against a model: whatever leaves RAM comes back as it was.

use super::cells::RowKey;
use super::checkpoint::Position;
use super::cold::Hand;
use super::entry::{Batch, Marker, PartitionEntry, RowWrite};
use super::memory::Memory;
use super::replica::ReplicaState;
use super::rows;
use crate::clock::{SystemThreads, Threads};
use crate::error::{Code, Error, Result};
use crate::raft::{Committed, LogId};
use crate::storage::backend::{ReplicaKey, Rows, StateBackend};
use crate::types::{GroupId, MapId, RunId, Slot};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

const KEY: ReplicaKey = ReplicaKey { group: GroupId(1), replica: 1 };

type Kept = BTreeMap<Bytes, Bytes>;
type Between = Box<dyn FnOnce() + Send>;

/// A backend that serves rows, on a disk that survives it.
#[derive(Clone, Default)]
struct Shelf {
    kept: Arc<Mutex<Option<(Kept, Bytes)>>>,
    /// Runs once in the middle of the next look-up, after the values have been read.
    while_reading: Arc<Mutex<Option<Between>>>,
    /// Runs once at the end of the next checkpoint, when its rows have been drawn.
    while_writing: Arc<Mutex<Option<Between>>>,
    /// The next checkpoint fails after its rows.
    full: Arc<Mutex<bool>>,
}

impl StateBackend for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }
    fn takes_changes(&self) -> bool {
        true
    }
    fn serves_rows(&self) -> bool {
        true
    }
    fn get_many(&self, _: ReplicaKey, wanted: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let kept = self.kept.lock().expect("lock").clone().unwrap_or_default().0;
        let between = self.while_reading.lock().expect("lock").take();
        if let Some(between) = between {
            between();
        }
        Ok(wanted.iter().map(|row| kept.get(row).cloned()).collect())
    }
    fn load(&self, _: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>> {
        let Some((kept, meta)) = self.kept.lock().expect("lock").clone() else { return Ok(None) };
        kept.into_iter().for_each(|(row, value)| visit(row, value));
        Ok(Some(meta))
    }
    fn checkpoint(&self, _: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()> {
        let mut kept = match rows {
            Rows::All(rows) => rows.collect::<Result<Kept>>()?,
            Rows::Changed(rows) => {
                let mut kept = self.kept.lock().expect("lock").clone().unwrap_or_default().0;
                for row in rows {
                    match row? {
                        (row, Some(value)) => drop(kept.insert(row, value)),
                        (row, None) => drop(kept.remove(&row)),
                    }
                }
                kept
            }
        };
        let between = self.while_writing.lock().expect("lock").take();
        if let Some(between) = between {
            between();
        }
        if std::mem::take(&mut *self.full.lock().expect("lock")) {
            return Err(Error::new(Code::DiskFull, "the shelf is full"));
        }
        *self.kept.lock().expect("lock") = Some((std::mem::take(&mut kept), meta()));
        Ok(())
    }
    fn remove(&self, _: ReplicaKey) -> Result<()> {
        *self.kept.lock().expect("lock") = None;
        Ok(())
    }
    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        Ok(vec![KEY])
    }
}

/// A replica with what drives it.
struct Bench {
    shelf: Shelf,
    memory: Arc<Memory>,
    state: Arc<ReplicaState>,
    index: u64,
    number: u64,
}

fn log_id(index: u64) -> LogId {
    LogId::new_term_index(1, index)
}

fn row(name: &[u8]) -> Bytes {
    rows::map_row(Slot(3), MapId(1), name)
}

impl Bench {
    fn new(shelf: Shelf) -> Self {
        // So small that nothing stays in RAM at a start.
        let memory = Memory::new(Some(64));
        let threads: Arc<dyn Threads> = Arc::new(SystemThreads);
        let state = ReplicaState::load(KEY, Arc::new(shelf.clone()), threads, memory.clone()).expect("loads");
        let index = *state.applied_index().borrow();
        let mut bench = Bench { shelf, memory, state, index, number: 0 };
        bench.apply(PartitionEntry::Marker(Marker { term: 1, run: RunId(7) }));
        bench
    }

    fn apply(&mut self, entry: PartitionEntry) {
        self.index += 1;
        apply(&self.state, self.index, entry);
    }

    fn write(&mut self, name: &[u8], value: Option<&[u8]>) {
        let write = match value {
            Some(value) => RowWrite::put(row(name), Bytes::copy_from_slice(value)),
            None => RowWrite::drop(row(name)),
        };
        self.number += 1;
        let batch = Batch { term: 1, run: RunId(7), number: self.number, writes: vec![write] };
        self.apply(PartitionEntry::Batch(batch));
    }

    fn checkpoint(&self) -> Result<()> {
        self.state.write_checkpoint(true).map(drop)
    }

    /// Sweeps often enough that every clean value leaves RAM.
    fn evict(&self) {
        for _ in 0..2 {
            let mut hand = Hand::default();
            loop {
                hand = self.state.sweep(hand, 3).0;
                if hand.is_at_the_start() {
                    break;
                }
            }
        }
    }

    fn get(&self, name: &[u8]) -> Option<Bytes> {
        self.state.get(&row(name)).expect("readable")
    }

    fn restart(self) -> Self {
        let Bench { shelf, state, memory, .. } = self;
        drop(state);
        assert_eq!((memory.used(), memory.dirty()), (0, 0), "a dropped replica gives all its memory back");
        Bench::new(shelf)
    }
}

fn apply(state: &ReplicaState, index: u64, entry: PartitionEntry) {
    let payload = entry.encode();
    let outcome = state.apply(log_id(index), Committed::Payload(&payload)).expect("applies");
    assert!(outcome.took_effect);
}

#[test]
fn a_value_is_cold_only_when_a_checkpoint_has_it_and_comes_back_as_it_was() {
    let mut bench = Bench::new(Shelf::default());
    bench.write(b"a", Some(b"first"));
    bench.evict();
    assert_eq!(bench.state.cold_rows(), 0, "no checkpoint has it");
    bench.checkpoint().expect("written");
    bench.evict();
    assert_eq!(bench.state.cold_rows(), 1);
    assert!(bench.state.expiry(&row(b"a")).is_some());
    assert_eq!(bench.get(b"a").as_deref(), Some(&b"first"[..]));
    assert_eq!(bench.state.cold_rows(), 0, "what was read stays in RAM for a while");
    bench.evict();
    bench.write(b"a", Some(b"second"));
    bench.evict();
    assert_eq!(bench.get(b"a").as_deref(), Some(&b"second"[..]), "the newer value is not durable yet");
    assert_eq!(bench.state.cold_rows(), 0);
    bench.write(b"a", None);
    assert_eq!(bench.get(b"a"), None, "the backend still has it");
}

#[test]
fn what_changes_while_a_checkpoint_is_written_does_not_become_cold() {
    let mut bench = Bench::new(Shelf::default());
    bench.write(b"a", Some(b"first"));
    bench.write(b"b", Some(b"first"));
    bench.checkpoint().expect("written");
    bench.write(b"a", Some(b"second"));
    // "a" changes again when its second value has been drawn already.
    let (state, index, number) = (bench.state.clone(), bench.index + 1, bench.number + 1);
    *bench.shelf.while_writing.lock().expect("lock") = Some(Box::new(move || {
        let writes = vec![RowWrite::put(row(b"a"), Bytes::from_static(b"third"))];
        apply(&state, index, PartitionEntry::Batch(Batch { term: 1, run: RunId(7), number, writes }));
    }));
    bench.checkpoint().expect("written");
    bench.evict();
    assert_eq!(bench.get(b"a").as_deref(), Some(&b"third"[..]));
    assert_eq!(bench.state.cold_rows(), 1, "only b");
}

#[test]
fn a_failed_checkpoint_makes_nothing_cold() {
    let mut bench = Bench::new(Shelf::default());
    bench.write(b"a", Some(b"first"));
    bench.checkpoint().expect("written");
    bench.write(b"a", Some(b"second"));
    *bench.shelf.full.lock().expect("lock") = true;
    assert_eq!(bench.checkpoint().expect_err("full").code, Code::DiskFull);
    bench.evict();
    assert_eq!((bench.state.cold_rows(), bench.get(b"a").as_deref()), (0, Some(&b"second"[..])));
    bench.checkpoint().expect("there is room again");
    bench.evict();
    assert_eq!((bench.state.cold_rows(), bench.get(b"a").as_deref()), (1, Some(&b"second"[..])));
}

#[test]
fn a_row_that_changes_while_it_is_loaded_keeps_the_newer_value() {
    let mut bench = Bench::new(Shelf::default());
    bench.write(b"a", Some(b"old"));
    bench.checkpoint().expect("written");
    bench.evict();
    // While the old value is on its way: a newer one, its checkpoint, and a sweep that would make
    // it cold again, were the row not pinned.
    let (state, index, number) = (bench.state.clone(), bench.index + 1, bench.number + 1);
    *bench.shelf.while_reading.lock().expect("lock") = Some(Box::new(move || {
        let writes = vec![RowWrite::put(row(b"a"), Bytes::from_static(b"new"))];
        apply(&state, index, PartitionEntry::Batch(Batch { term: 1, run: RunId(7), number, writes }));
        state.write_checkpoint(true).expect("written");
        for _ in 0..2 {
            state.sweep(Hand::default(), 100);
        }
    }));
    assert_eq!(bench.get(b"a").as_deref(), Some(&b"new"[..]));
    assert_eq!(bench.get(b"a").as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_value_that_the_backend_lost_is_an_error_and_never_passes_for_absent() {
    let mut bench = Bench::new(Shelf::default());
    bench.write(b"a", Some(b"value"));
    bench.checkpoint().expect("written");
    bench.evict();
    if let Some((kept, _)) = &mut *bench.shelf.kept.lock().expect("lock") {
        kept.clear();
    }
    assert_eq!(bench.state.get(&row(b"a")).expect_err("lost").code, Code::CorruptRow);
    assert_eq!(bench.state.scan(b"", None, 10).expect_err("lost").code, Code::CorruptRow);
}

#[test]
fn a_scan_goes_on_past_rows_that_were_deleted_while_it_loaded() {
    let mut bench = Bench::new(Shelf::default());
    for name in [b"a", b"b", b"c"] {
        bench.write(name, Some(b"value"));
    }
    bench.checkpoint().expect("written");
    bench.evict();
    let (state, index, number) = (bench.state.clone(), bench.index + 1, bench.number + 1);
    *bench.shelf.while_reading.lock().expect("lock") = Some(Box::new(move || {
        let writes = vec![RowWrite::drop(row(b"a"))];
        apply(&state, index, PartitionEntry::Batch(Batch { term: 1, run: RunId(7), number, writes }));
    }));
    let found = bench.state.scan(b"", None, 2).expect("readable");
    assert_eq!(found.into_iter().map(|(row, _)| row).collect::<Vec<_>>(), [row(b"b"), row(b"c")]);
}

#[tokio::test]
async fn pinned_rows_stay_in_ram() {
    let mut bench = Bench::new(Shelf::default());
    bench.write(b"a", Some(b"value"));
    bench.write(b"b", Some(b"value"));
    bench.checkpoint().expect("written");
    bench.evict();
    let pinned = bench.state.warm(vec![row(b"a"), row(b"never there")]).await.expect("readable");
    bench.evict();
    assert!(!bench.state.any_cold([&row(b"a")[..]]) && bench.state.any_cold([&row(b"b")[..]]));
    drop(pinned);
    bench.evict();
    assert!(bench.state.any_cold([&row(b"a")[..]]));
    assert!(bench.state.warm(vec![row(b"never there")]).await.expect("readable").is_none());
}

#[test]
fn a_snapshot_takes_the_place_of_cold_rows() {
    let mut source = Bench::new(Shelf::default());
    for name in 0..50u8 {
        source.write(&[name], Some(&[name; 40]));
    }
    source.checkpoint().expect("written");
    source.evict();
    let (mut chunks, mut cursor) = (Vec::new(), None::<Bytes>);
    loop {
        let (rows, next) = source.state.scan_from(cursor.as_deref(), 7, usize::MAX).expect("readable");
        chunks.push(super::snapshot::encode_chunk(&rows));
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(source.state.cold_rows(), 50, "sending does not fill the RAM");
    let mut bench = Bench::new(Shelf::default());
    bench.write(b"old", Some(b"gone with the snapshot"));
    bench.checkpoint().expect("written");
    bench.evict();
    let position = Position { applied: Some(log_id(60)), ..source.state.last_checkpoint().clone().expect("there") };
    let broken = Err(Error::new(Code::CorruptRow, "a piece is damaged"));
    let mut half = chunks.iter().take(2).cloned().map(Ok).chain([broken]);
    bench.state.write_installed(&mut half, position.clone()).expect_err("damaged");
    assert_eq!(bench.get(b"old").as_deref(), Some(&b"gone with the snapshot"[..]), "the state stays as it was");
    bench.state.write_installed(&mut chunks.into_iter().map(Ok), position).expect("installed");
    assert_eq!(bench.get(b"old"), None);
    assert_eq!(bench.state.cold_rows(), 50);
    for name in 0..50u8 {
        assert_eq!(bench.get(&[name]).as_deref(), Some(&[name; 40][..]));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Get(u8),
    Scan,
    Checkpoint,
    FailedCheckpoint,
    Sweep(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..12, 0u8..70).prop_map(|(key, length)| Step::Put(key, length)),
        2 => (0u8..12).prop_map(Step::Delete),
        6 => (0u8..12).prop_map(Step::Get),
        1 => Just(Step::Scan),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::FailedCheckpoint),
        5 => (1u8..20).prop_map(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// What a row's value of that length is at step `n`.
fn value_of(length: u8, n: usize) -> Vec<u8> {
    (0..length).map(|at| at.wrapping_add(n as u8)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn rows_that_come_and_go_are_those_of_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        let mut bench = Bench::new(Shelf::default());
        let (mut model, mut durable, mut hand) = (BTreeMap::new(), BTreeMap::new(), Hand::default());
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(key, length) => {
                    bench.write(&[key], Some(&value_of(length, n)));
                    model.insert(row(&[key]), Bytes::from(value_of(length, n)));
                }
                Step::Delete(key) => {
                    bench.write(&[key], None);
                    model.remove(&row(&[key]));
                }
                Step::Get(key) => prop_assert_eq!(bench.get(&[key]), model.get(&row(&[key])).cloned()),
                Step::Scan => {
                    let rows = bench.state.scan(b"", None, 100).expect("readable");
                    prop_assert_eq!(rows, model.clone().into_iter().collect::<Vec<_>>());
                }
                Step::Checkpoint => {
                    bench.checkpoint().expect("written");
                    durable = model.clone();
                }
                Step::FailedCheckpoint => {
                    *bench.shelf.full.lock().expect("lock") = true;
                    prop_assert!(bench.checkpoint().is_err());
                }
                Step::Sweep(most) => hand = bench.state.sweep(hand, usize::from(most)).0,
                Step::Restart => {
                    hand = Hand::default();
                    bench = bench.restart();
                    // The log that a real replica would replay is not here.
                    model = durable.clone();
                    bench.number = 0;
                }
            }
            let held: usize = bench.state.held_bytes();
            prop_assert_eq!(held as u64, bench.memory.used());
        }
        bench.evict();
        for key in 0..12 {
            prop_assert_eq!(bench.get(&[key]), model.get(&row(&[key])).cloned());
        }
        prop_assert!(bench.state.read().pins.is_empty(), "{:?}", bench.state.read().pins.keys().map(RowKey::to_bytes).collect::<Vec<_>>());
        prop_assert!(bench.memory.stats.stalls.load(Relaxed) == 0);
    }
}
