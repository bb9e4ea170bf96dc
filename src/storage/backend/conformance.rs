//! What every [`StateBackend`] must do, as one suite that each implementation runs, the
//! simulator's included. It panics at the first thing that is not so; nothing but tests calls it.

use super::{ReplicaKey, Rows, StateBackend};
use crate::error::{Code, Error, Result};
use crate::types::GroupId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A checkpoint in memory, to compare with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Every row.
    pub rows: BTreeMap<Bytes, Bytes>,
    /// The meta.
    pub meta: Bytes,
}

impl Model {
    /// Applies changes and writes them with [`StateBackend::checkpoint`]: as changes if the
    /// backend takes them and `all` is not set, else as all rows.
    ///
    /// # Errors
    /// The backend's.
    pub fn checkpoint(
        &mut self,
        backend: &dyn StateBackend,
        key: ReplicaKey,
        changes: &[(Bytes, Option<Bytes>)],
        meta: &Bytes,
        all: bool,
    ) -> Result<()> {
        for (row, value) in changes {
            match value {
                Some(value) => drop(self.rows.insert(row.clone(), value.clone())),
                None => drop(self.rows.remove(row)),
            }
        }
        self.meta = meta.clone();
        if all || !backend.takes_changes() {
            let mut rows = self.rows.iter().map(|(row, value)| Ok((row.clone(), value.clone())));
            return backend.checkpoint(key, Rows::All(&mut rows), &mut || meta.clone());
        }
        // In key order and one change per row, as a partition draws them.
        let changes: BTreeMap<_, _> = changes.iter().cloned().collect();
        backend.checkpoint(key, Rows::Changed(&mut changes.into_iter().map(Ok)), &mut || meta.clone())
    }
}

/// What a backend holds for a replica; checks on the way that rows come in key order, each once.
///
/// # Errors
/// The backend's.
///
/// # Panics
/// When rows are out of order.
pub fn loaded(backend: &dyn StateBackend, key: ReplicaKey) -> Result<Option<Model>> {
    let mut rows: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut visit = |row: Bytes, value: Bytes| {
        if let Some((last, _)) = rows.last_key_value() {
            assert!(*last < row, "rows out of order: {last:?} before {row:?}");
        }
        rows.insert(row, value);
    };
    let meta = backend.load(key, &mut visit)?;
    Ok(meta.map(|meta| Model { rows, meta }))
}

/// Runs the suite. Each call of `make` opens the same storage, empty at first, after the backend
/// that the call before gave was dropped.
///
/// # Panics
/// When the backend breaks the contract.
pub fn run(make: &dyn Fn() -> Box<dyn StateBackend>) {
    starts_empty(make().as_ref());
    keeps_a_checkpoint_over_a_restart(make);
    replaces_and_deletes_rows(make);
    keeps_odd_rows(make);
    asks_for_the_meta_after_the_rows(make().as_ref());
    serves_single_rows(make);
    gives_up_when_a_row_cannot_be_had(make);
    keeps_replicas_apart(make);
    forgets_removed_replicas(make);
}

fn key(group: u32, replica: u64) -> ReplicaKey {
    ReplicaKey { group: GroupId(group), replica }
}

fn put(row: &'static str, value: &'static str) -> (Bytes, Option<Bytes>) {
    (Bytes::from_static(row.as_bytes()), Some(Bytes::from_static(value.as_bytes())))
}

fn delete(row: &'static str) -> (Bytes, Option<Bytes>) {
    (Bytes::from_static(row.as_bytes()), None)
}

const META: Bytes = Bytes::from_static(b"applied 7");

fn starts_empty(backend: &dyn StateBackend) {
    assert_eq!(backend.replicas(), Ok(vec![]));
    assert_eq!(loaded(backend, key(1, 1)), Ok(None));
    assert_eq!(backend.ahead(key(1, 1)), Ok(None));
    assert_eq!(backend.remove(key(1, 1)), Ok(()), "removing nothing is no error");
}

fn keeps_a_checkpoint_over_a_restart(make: &dyn Fn() -> Box<dyn StateBackend>) {
    let (mut model, key) = (Model::default(), key(1, 1));
    assert_eq!(model.checkpoint(make().as_ref(), key, &[put("a", "1"), put("b", "2")], &META, true), Ok(()));
    let again = make();
    assert_eq!(loaded(again.as_ref(), key), Ok(Some(model)));
    assert_eq!(again.ahead(key), Ok(None));
}

fn replaces_and_deletes_rows(make: &dyn Fn() -> Box<dyn StateBackend>) {
    let (mut model, key) = (Model::default(), key(2, 1));
    for all in [true, false] {
        let backend = make();
        let steps = [
            vec![put("a", "1"), put("b", "2"), put("c", "3")],
            vec![put("a", "new"), delete("b"), delete("never there")],
            vec![],
            vec![delete("a"), delete("c"), put("b", "back")],
        ];
        for (number, changes) in steps.iter().enumerate() {
            let meta = Bytes::from(format!("{number} {all}"));
            assert_eq!(model.checkpoint(backend.as_ref(), key, changes, &meta, all), Ok(()));
            assert_eq!(loaded(backend.as_ref(), key), Ok(Some(model.clone())), "after step {number}, all: {all}");
        }
        drop(backend);
        assert_eq!(loaded(make().as_ref(), key), Ok(Some(model.clone())));
    }
}

fn keeps_odd_rows(make: &dyn Fn() -> Box<dyn StateBackend>) {
    let (mut model, key) = (Model::default(), key(3, u64::MAX));
    let mut changes = vec![
        (Bytes::new(), Some(Bytes::new())),
        (Bytes::from_static(b"\0"), Some(Bytes::from_static(b"zero"))),
        (Bytes::from_static(b"\xff\xff"), Some(Bytes::from_static(b"high"))),
        (Bytes::from_static(b"large"), Some(Bytes::from(vec![7; 3 * 1024 * 1024]))),
    ];
    changes.extend((0..3000_u32).map(|n| (Bytes::from(n.to_be_bytes().to_vec()), Some(Bytes::from(vec![1; 200])))));
    assert_eq!(model.checkpoint(make().as_ref(), key, &changes, &Bytes::new(), false), Ok(()));
    assert_eq!(loaded(make().as_ref(), key), Ok(Some(model.clone())));
    let gone: Vec<_> = changes.into_iter().skip(1).step_by(2).map(|(row, _)| (row, None)).collect();
    assert_eq!(model.checkpoint(make().as_ref(), key, &gone, &META, false), Ok(()));
    assert_eq!(loaded(make().as_ref(), key), Ok(Some(model)));
}

fn asks_for_the_meta_after_the_rows(backend: &dyn StateBackend) {
    let drawn = std::cell::Cell::new(0_u32);
    let mut rows = (0..5000_u32).map(|n| {
        drawn.set(n + 1);
        Ok((Bytes::from(n.to_be_bytes().to_vec()), Bytes::from(vec![0; 100])))
    });
    let mut meta = || Bytes::from(drawn.get().to_string());
    assert_eq!(backend.checkpoint(key(4, 1), Rows::All(&mut rows), &mut meta), Ok(()));
    let meta = loaded(backend, key(4, 1)).map(|found| found.map(|model| model.meta));
    assert_eq!(meta, Ok(Some(Bytes::from_static(b"5000"))));
}

fn serves_single_rows(make: &dyn Fn() -> Box<dyn StateBackend>) {
    let (mut model, key) = (Model::default(), key(4, 3));
    let backend = make();
    if !backend.serves_rows() {
        assert!(backend.get(key, &Bytes::new()).is_err_and(|error| error.code == Code::Internal));
        return;
    }
    let row = |name: &'static str| Bytes::from_static(name.as_bytes());
    assert_eq!(backend.get(key, &row("a")), Ok(None), "a replica without a checkpoint");
    for all in [true, false, true] {
        let changes = [put("a", "1"), put("b", ""), put("m", "meta is no row"), put("c", "3")];
        assert_eq!(model.checkpoint(backend.as_ref(), key, &changes, &META, all), Ok(()));
        assert_eq!(model.checkpoint(backend.as_ref(), key, &[delete("c"), put("a", "2")], &META, all), Ok(()));
        let wanted = ["b", "a", "c", "never there", "m", "a"].map(row);
        let found = wanted.iter().map(|row| model.rows.get(row).cloned()).collect();
        assert_eq!(backend.get_many(key, &wanted), Ok(found), "all: {all}");
    }
    assert_eq!(backend.get_many(key, &[]), Ok(vec![]));
    // What a checkpoint under way has not written yet is there as before.
    let mut rows = std::iter::once_with(|| {
        assert_eq!(backend.get(key, &row("b")), Ok(Some(Bytes::new())));
        Ok((row("a"), Some(row("new"))))
    });
    assert_eq!(backend.checkpoint(key, Rows::Changed(&mut rows), &mut || META), Ok(()));
    drop(backend);
    let backend = make();
    assert_eq!(backend.get(key, &row("a")), Ok(Some(row("new"))));
    assert_eq!(backend.remove(key), Ok(()));
    assert_eq!(backend.get(key, &row("a")), Ok(None), "a row of a removed replica is served");
}

fn gives_up_when_a_row_cannot_be_had(make: &dyn Fn() -> Box<dyn StateBackend>) {
    let (mut model, key) = (Model::default(), key(4, 2));
    assert_eq!(model.checkpoint(make().as_ref(), key, &[put("a", "1")], &META, true), Ok(()));
    let error = Error::new(Code::CorruptRow, "the row cannot be had");
    let new = Bytes::from_static(b"b");
    let mut rows = [Ok((new.clone(), new.clone())), Err(error.clone())].into_iter();
    assert_eq!(make().checkpoint(key, Rows::All(&mut rows), &mut || META), Err(error));
    assert_eq!(loaded(make().as_ref(), key), Ok(Some(model)), "half of a checkpoint counts");
}

fn keeps_replicas_apart(make: &dyn Fn() -> Box<dyn StateBackend>) {
    let keys = [key(5, 1), key(5, 2), key(50, 1)];
    let mut models = BTreeMap::new();
    let backend = make();
    for (number, key) in keys.into_iter().enumerate() {
        let mut model = Model::default();
        let row = (Bytes::from_static(b"row"), Some(Bytes::from(number.to_string())));
        assert_eq!(model.checkpoint(backend.as_ref(), key, &[row], &META, false), Ok(()));
        models.insert(key, model);
    }
    drop(backend);
    let backend = make();
    for (key, model) in models {
        assert_eq!(loaded(backend.as_ref(), key), Ok(Some(model)), "replica {key}");
    }
}

fn forgets_removed_replicas(make: &dyn Fn() -> Box<dyn StateBackend>) {
    let backend = make();
    let Ok(before) = backend.replicas() else { panic!("replicas cannot be listed") };
    assert!(before.is_sorted() && before.contains(&key(5, 1)), "{before:?}");
    assert_eq!(backend.remove(key(5, 1)), Ok(()));
    assert_eq!(loaded(backend.as_ref(), key(5, 1)), Ok(None));
    drop(backend);
    let backend = make();
    let left: Vec<_> = before.into_iter().filter(|&at| at != key(5, 1)).collect();
    assert_eq!(backend.replicas(), Ok(left));
    assert_eq!(loaded(backend.as_ref(), key(5, 1)), Ok(None));
    let mut model = Model::default();
    assert_eq!(model.checkpoint(backend.as_ref(), key(5, 1), &[put("b", "new")], &META, false), Ok(()));
    assert_eq!(loaded(backend.as_ref(), key(5, 1)), Ok(Some(model)), "rows of a removed replica came back");
}
