use super::*;
use crate::storage::backend::conformance::{self, Model, loaded};
use crate::types::GroupId;
use proptest::prelude::*;
use std::time::Duration;

const KEY: ReplicaKey = ReplicaKey { group: GroupId(3), replica: 9 };

fn small() -> SledConfig {
    SledConfig { cache_bytes: 1024 * 1024, max_batch_rows: 2, ..SledConfig::default() }
}

fn open(dir: &tempfile::TempDir, config: SledConfig) -> SledBackend {
    SledBackend::open(dir.path(), config).expect("opens")
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn row(key: &str, value: &str) -> (Bytes, Option<Bytes>) {
    (Bytes::from(key.to_owned()), Some(Bytes::from(value.to_owned())))
}

#[test]
fn conforms() {
    for config in [SledConfig::default(), SledConfig { max_batch_rows: 100, ..small() }] {
        let dir = dir();
        conformance::run(&|| Box::new(open(&dir, config)));
    }
}

#[test]
fn rows_have_golden_bytes() {
    let dir = dir();
    let backend = open(&dir, SledConfig::default());
    Model::default().checkpoint(&backend, KEY, &[row("k", "v")], &Bytes::from_static(b"meta"), true).expect("written");
    let mut names: Vec<_> = backend.db.tree_names().into_iter().filter(|name| !name.starts_with(b"__")).collect();
    names.sort();
    assert_eq!(names, [&b"replicas"[..], b"rows-3-9-1"]);
    let tree = backend.db.open_tree("rows-3-9-1").expect("opens");
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        tree.iter().map(|row| row.expect("read")).map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let value = |crc: u32, data: &[u8]| [&[1][..], &crc.to_le_bytes(), data].concat();
    assert_eq!(rows, [(b"m".to_vec(), value(0xed8a_0ad3, b"meta")), (b"rk".to_vec(), value(0xf1e2_6222, b"v"))]);
    let catalogue = backend.catalogue.get(*b"\0\0\0\x03\0\0\0\0\0\0\0\x09").expect("read").expect("there");
    assert_eq!(catalogue.to_vec(), value(0xed4d_ab54, b"\x01\0\0\0\0\0\0\0"));
}

#[test]
fn damaged_rows_are_refused() {
    let dir = dir();
    let backend = open(&dir, SledConfig::default());
    let changes = [row("j", "other"), row("k", "v")];
    Model::default().checkpoint(&backend, KEY, &changes, &Bytes::from_static(b"meta"), true).expect("written");
    let tree = backend.db.open_tree("rows-3-9-1").expect("opens");
    for key in [&b"rk"[..], b"m"] {
        let good = tree.get(key).expect("read").expect("there");
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            tree.insert(key, bad).expect("written");
            let error = loaded(&backend, KEY).expect_err("refused");
            assert!(matches!(error.code, Code::CorruptLog | Code::UnknownFormat), "{error}");
            assert!(error.place.contains("rows-3-9-1"), "{error}");
        }
        tree.insert(key, good).expect("written");
    }
    let other = tree.get(b"rj").expect("read").expect("there");
    tree.insert(b"rk", other).expect("written");
    assert_eq!(loaded(&backend, KEY).expect_err("a value under another key").code, Code::CorruptLog);
    tree.remove(b"m").expect("removed");
    assert_eq!(loaded(&backend, KEY).expect_err("no meta").code, Code::CorruptLog);
}

/// An iterator that ends the checkpoint with a panic, as a crash would: whatever was applied stays.
fn cut_short(backend: &SledBackend, rows: Rows<'_>, metas: &[&'static str]) {
    let mut metas = metas.iter();
    let mut meta = || Bytes::from_static(metas.next().expect("a meta").as_bytes());
    let attempt = std::panic::AssertUnwindSafe(|| backend.checkpoint(KEY, rows, &mut meta));
    assert!(std::panic::catch_unwind(attempt).is_err(), "the checkpoint was not cut short");
}

#[test]
fn an_interrupted_checkpoint_of_changes_says_how_far_it_is_ahead() {
    let dir = dir();
    let old = [row("a", "old"), row("b", "old"), row("c", "old"), row("d", "old")];
    let mut model = Model::default();
    {
        let backend = open(&dir, small());
        model.checkpoint(&backend, KEY, &old, &Bytes::from_static(b"1"), true).expect("written");
        assert_eq!(backend.ahead(KEY), Ok(None));
        let changes = [row("a", "new"), (Bytes::from_static(b"b"), None), row("c", "new")];
        let mut rows = changes.into_iter().map(Ok).chain(std::iter::from_fn(|| panic!("the crash")));
        cut_short(&backend, Rows::Changed(&mut rows), &["2"]);
    }
    let backend = open(&dir, small());
    let found = loaded(&backend, KEY).expect("loads").expect("there");
    assert_eq!(found.meta, "1", "the meta went ahead of the rows");
    assert_eq!(found.rows.get(&b"a"[..]).map(|value| &value[..]), Some(&b"new"[..]), "the first chunk is there");
    assert!(!found.rows.contains_key(&b"b"[..]));
    assert_eq!(found.rows.get(&b"c"[..]).map(|value| &value[..]), Some(&b"old"[..]));
    assert_eq!(backend.ahead(KEY), Ok(Some(Bytes::from_static(b"2"))));

    // The next one repeats the changes and completes.
    let changes = [row("a", "newer"), (Bytes::from_static(b"b"), None), row("c", "new")];
    model.checkpoint(&backend, KEY, &changes, &Bytes::from_static(b"3"), false).expect("written");
    assert_eq!(loaded(&backend, KEY), Ok(Some(model)));
    assert_eq!(backend.ahead(KEY), Ok(None));
}

#[test]
fn an_interrupted_checkpoint_of_all_rows_leaves_the_old_one_untouched() {
    let dir = dir();
    let mut model = Model::default();
    {
        let backend = open(&dir, small());
        model
            .checkpoint(&backend, KEY, &[row("a", "old"), row("b", "old")], &Bytes::from_static(b"1"), true)
            .expect("written");
        let mut n = 0_u8;
        let mut rows = std::iter::from_fn(|| {
            n += 1;
            assert!(n < 10, "the crash");
            Some(Ok((Bytes::from(vec![n]), Bytes::from_static(b"new"))))
        });
        cut_short(&backend, Rows::All(&mut rows), &[]);
        assert_eq!(loaded(&backend, KEY), Ok(Some(model.clone())));
    }
    let backend = open(&dir, small());
    assert_eq!(loaded(&backend, KEY), Ok(Some(model.clone())));
    assert_eq!(backend.ahead(KEY), Ok(None));
    assert!(!backend.db.tree_names().iter().any(|name| name.as_ref() == b"rows-3-9-2"), "the left-over tree stayed");
    model.checkpoint(&backend, KEY, &[row("c", "new")], &Bytes::from_static(b"2"), true).expect("written");
    assert_eq!(loaded(&backend, KEY), Ok(Some(model)));
}

#[test]
fn a_second_process_is_told_that_the_directory_is_busy() {
    let dir = dir();
    let _backend = open(&dir, small());
    let error =
        SledBackend::open(dir.path(), SledConfig { lock_wait: Duration::ZERO, ..small() }).err().expect("refused");
    assert_eq!(error.code, Code::DataDirBusy);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sequences_of_checkpoints_equal_the_model(
        steps in proptest::collection::vec(
            (proptest::collection::vec((0u8..12, proptest::option::of(any::<Vec<u8>>())), 0..8), any::<(bool, bool)>()),
            1..8)
    ) {
        let dir = dir();
        let mut backend = Some(open(&dir, small()));
        let mut model = Model::default();
        for (number, (changes, (all, reopen))) in steps.into_iter().enumerate() {
            if reopen {
                drop(backend.take());
            }
            let backend = backend.get_or_insert_with(|| open(&dir, small()));
            let changes: Vec<_> =
                changes.into_iter().map(|(key, value)| (Bytes::from(vec![key]), value.map(Bytes::from))).collect();
            let meta = Bytes::from(number.to_string());
            model.checkpoint(backend, KEY, &changes, &meta, all).expect("written");
            prop_assert_eq!(loaded(backend, KEY).expect("loads"), Some(model.clone()));
            prop_assert_eq!(backend.ahead(KEY), Ok(None));
        }
    }
}
