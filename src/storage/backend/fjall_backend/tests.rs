use super::*;
use crate::storage::backend::conformance::{self, Model, loaded};
use crate::types::GroupId;

const KEY: ReplicaKey = ReplicaKey { group: GroupId(3), replica: 9 };

fn small() -> FjallConfig {
    FjallConfig { max_batch_rows: 2, ..FjallConfig::within(Some(1 << 20)) }
}

fn open(dir: &tempfile::TempDir, config: FjallConfig) -> FjallBackend {
    FjallBackend::open(dir.path(), config).expect("opens")
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn row(key: &str, value: &str) -> (Bytes, Option<Bytes>) {
    (Bytes::from(key.to_owned()), Some(Bytes::from(value.to_owned())))
}

#[test]
fn conforms() {
    for config in [FjallConfig::default(), FjallConfig { max_batch_rows: 100, ..small() }] {
        let dir = dir();
        conformance::run(&|| Box::new(open(&dir, config)));
    }
}

#[test]
fn rows_have_golden_bytes() {
    let dir = dir();
    let backend = open(&dir, FjallConfig::default());
    Model::default().checkpoint(&backend, KEY, &[row("k", "v")], &Bytes::from_static(b"meta"), true).expect("written");
    let all = |space: &Keyspace| -> Vec<(Vec<u8>, Vec<u8>)> {
        space
            .iter()
            .map(|row| row.into_inner().expect("read"))
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    };
    let prefix = format::prefix(KEY, 1);
    let row = |key: Vec<u8>, data: &[u8]| (key.clone(), encode_value(&key, data));
    assert_eq!(
        all(&backend.rows),
        [row([&prefix[..], b"m"].concat(), b"meta"), row([&prefix[..], b"rk"].concat(), b"v")]
    );
    let name = format::catalogue_key(KEY).to_vec();
    assert_eq!(all(&backend.catalogue), [row(name, b"\x01\0\0\0\0\0\0\0")]);
}

#[test]
fn damaged_rows_are_refused() {
    let dir = dir();
    let backend = open(&dir, FjallConfig::default());
    let changes = [row("j", "other"), row("k", "v")];
    Model::default().checkpoint(&backend, KEY, &changes, &Bytes::from_static(b"meta"), true).expect("written");
    let prefix = format::prefix(KEY, 1);
    let key = format::row_key(&prefix, b"k");
    let good = backend.rows.get(&key).expect("read").expect("there").to_vec();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        backend.rows.insert(key.clone(), bad).expect("written");
        let error = loaded(&backend, KEY).expect_err("refused");
        assert!(matches!(error.code, Code::CorruptLog | Code::UnknownFormat), "{error}");
        assert!(error.place.contains("fjall, replica 3-9"), "{error}");
        assert!(backend.get(KEY, &Bytes::from_static(b"k")).is_err());
    }
    let other = backend.rows.get(format::row_key(&prefix, b"j")).expect("read").expect("there");
    backend.rows.insert(key, other).expect("written");
    assert_eq!(loaded(&backend, KEY).expect_err("a value under another key").code, Code::CorruptLog);
    backend.rows.remove(format::meta_key(&prefix)).expect("removed");
    assert_eq!(loaded(&backend, KEY).expect_err("no meta").code, Code::CorruptLog);
}

/// An iterator that ends the checkpoint with a panic, as a crash would: whatever was applied stays.
fn cut_short(backend: &FjallBackend, rows: Rows<'_>, metas: &[&'static str]) {
    let mut metas = metas.iter();
    let mut meta = || Bytes::from_static(metas.next().expect("a meta").as_bytes());
    let attempt = std::panic::AssertUnwindSafe(|| backend.checkpoint(KEY, rows, &mut meta));
    assert!(std::panic::catch_unwind(attempt).is_err(), "the checkpoint was not cut short");
}

#[test]
fn an_interrupted_checkpoint_of_changes_says_how_far_it_is_ahead() {
    let dir = dir();
    let old = [row("a", "old"), row("b", "old"), row("c", "old")];
    let mut model = Model::default();
    {
        let backend = open(&dir, small());
        model.checkpoint(&backend, KEY, &old, &Bytes::from_static(b"1"), true).expect("written");
        let changes = [row("a", "new"), (Bytes::from_static(b"b"), None), row("c", "new")];
        let mut rows = changes.into_iter().map(Ok).chain(std::iter::from_fn(|| panic!("the crash")));
        cut_short(&backend, Rows::Changed(&mut rows), &["2"]);
    }
    let backend = open(&dir, small());
    let found = loaded(&backend, KEY).expect("loads").expect("there");
    assert_eq!(found.meta, "1", "the meta went ahead of the rows");
    assert_eq!(found.rows.get(&b"a"[..]).map(|value| &value[..]), Some(&b"new"[..]), "the first chunk is there");
    assert!(!found.rows.contains_key(&b"b"[..]));
    assert_eq!(backend.ahead(KEY), Ok(Some(Bytes::from_static(b"2"))));
    let changes = [row("a", "newer"), (Bytes::from_static(b"b"), None), row("c", "new")];
    model.checkpoint(&backend, KEY, &changes, &Bytes::from_static(b"3"), false).expect("written");
    assert_eq!((loaded(&backend, KEY), backend.ahead(KEY)), (Ok(Some(model)), Ok(None)));
}

#[test]
fn an_interrupted_checkpoint_of_all_rows_leaves_the_old_one_and_nothing_else() {
    let dir = dir();
    let mut model = Model::default();
    {
        let backend = open(&dir, small());
        model.checkpoint(&backend, KEY, &[row("a", "old")], &Bytes::from_static(b"1"), true).expect("written");
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
    assert_eq!(loaded(&backend, KEY), Ok(Some(model)));
    assert_eq!(backend.rows.iter().count(), 2, "what the attempt left is gone");
}

#[test]
fn a_database_that_another_has_open_is_busy() {
    let dir = dir();
    let _first = open(&dir, small());
    let second = FjallBackend::open(dir.path(), small());
    assert_eq!(second.err().map(|error| error.code), Some(Code::DataDirBusy));
}

#[test]
fn what_is_written_faster_than_tables_are_does_not_gather_in_ram() {
    let dir = dir();
    let config = FjallConfig { memtable_bytes: 1 << 20, ..FjallConfig::default() };
    let backend = open(&dir, config);
    let (value, mut most) = (vec![7; 8 << 10], 0);
    for number in 0..4000_u32 {
        let mut chunk = backend.chunk();
        chunk.batch.insert(&backend.rows, number.to_be_bytes(), value.clone());
        backend.commit(chunk).expect("written");
        most = most.max(backend.rows.tree.active_memtable().size());
    }
    let bound = MEMTABLE_SLACK * config.memtable_bytes + (64 << 10);
    assert!((config.memtable_bytes..bound).contains(&most), "{most} bytes");
}
