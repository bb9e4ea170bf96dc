use super::*;
use crate::error::Code;
use crate::storage::backend::conformance::{self, Model, loaded};
use crate::storage::backend::test_disk::TestDisk;
use crate::storage::disk::StdDisk;
use proptest::prelude::*;
use std::path::Path;

const KEY: ReplicaKey = ReplicaKey { group: GroupId(3), replica: 9 };

fn on(disk: &TestDisk) -> MemoryBackend {
    MemoryBackend::open(Arc::new(disk.clone()), "/checkpoints").expect("opens")
}

fn row(key: &str, value: &str) -> (Bytes, Option<Bytes>) {
    (Bytes::from(key.to_owned()), Some(Bytes::from(value.to_owned())))
}

#[test]
fn conforms_on_the_machines_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    conformance::run(&|| Box::new(MemoryBackend::open(Arc::new(StdDisk), dir.path()).expect("opens")));
}

#[test]
fn conforms_when_every_reopening_is_a_crash() {
    let disk = TestDisk::default();
    conformance::run(&|| {
        disk.crash();
        Box::new(on(&disk))
    });
}

#[test]
fn the_snapshot_file_has_golden_bytes() {
    let disk = TestDisk::default();
    let backend = on(&disk);
    let changes = [row("a", "xyz"), row("b", "")];
    Model::default().checkpoint(&backend, KEY, &changes, &Bytes::from_static(b"meta"), true).expect("written");
    let bytes = disk.read(&backend.path(KEY)).expect("read");
    let mut expected = b"KSSNAP\x01\0\x03\0\0\0\x09\0\0\0\0\0\0\0".to_vec();
    expected.extend(0x6cd8_36e4_u32.to_le_bytes());
    expected.extend(b"\x01\x15\0\0\0");
    expected.extend(0xbe4a_f05c_u32.to_le_bytes());
    expected.extend(b"\x01\0\0\0a\x03\0\0\0xyz\x01\0\0\0b\0\0\0\0");
    expected.extend(b"\x02\x10\0\0\0");
    expected.extend(0x936b_6418_u32.to_le_bytes());
    expected.extend(b"\x02\0\0\0\0\0\0\0");
    expected.extend(0x3314_25d2_u32.to_le_bytes());
    expected.extend(b"meta");
    assert_eq!(bytes, expected);
}

#[test]
fn changes_alone_are_refused() {
    let error = on(&TestDisk::default())
        .checkpoint(KEY, Rows::Changed(&mut std::iter::empty()), &mut Bytes::new)
        .expect_err("refused");
    assert_eq!(error.code, Code::Internal);
}

/// Every byte of a snapshot file counts: whichever is changed, cut off or added, load refuses.
#[test]
fn no_damage_is_served_or_ignored() {
    let disk = TestDisk::default();
    let backend = on(&disk);
    let changes = [row("a", "1"), row("b", "2")];
    Model::default().checkpoint(&backend, KEY, &changes, &Bytes::from_static(b"meta"), true).expect("written");
    let path = backend.path(KEY);
    let good = disk.read(&path).expect("read");
    let refused = |bytes: &[u8], how: &str| {
        disk.write_atomically(&path, bytes).expect("written");
        let error = loaded(&backend, KEY).expect_err(how);
        assert!(matches!(error.code, Code::CorruptLog | Code::UnknownFormat), "{how}: {error}");
        assert!(error.place.contains("snap-3-9"), "the file is not named: {error}");
    };
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        refused(&bad, &format!("byte {at} changed"));
        refused(&good[..at], &format!("cut to {at} bytes"));
    }
    let mut longer = good.clone();
    longer.push(0);
    refused(&longer, "a byte added");
    disk.write_atomically(&path, &good).expect("written");
    assert!(loaded(&backend, KEY).is_ok());
}

#[test]
fn exchanged_and_missing_blocks_are_found() {
    let disk = TestDisk::default();
    let backend = on(&disk);
    let large = "v".repeat(300 * 1024);
    let changes = [row("a", &large), row("b", &large)];
    Model::default().checkpoint(&backend, KEY, &changes, &Bytes::new(), true).expect("written");
    let path = backend.path(KEY);
    let good = disk.read(&path).expect("read");
    let block = 9 + 4 + 1 + 4 + large.len();
    let (header, rest) = good.split_at(24);
    let (first, rest) = rest.split_at(block);
    let (second, trailer) = rest.split_at(block);
    for blocks in [vec![second, first], vec![first], vec![first, first]] {
        let bad = [header, &blocks.concat(), trailer].concat();
        disk.write_atomically(&path, &bad).expect("written");
        assert_eq!(backend.load(KEY, &mut |_, _| ()).expect_err("refused").code, Code::CorruptLog);
    }
}

#[test]
fn another_replicas_file_is_refused() {
    let disk = TestDisk::default();
    let backend = on(&disk);
    Model::default().checkpoint(&backend, KEY, &[row("a", "1")], &Bytes::new(), true).expect("written");
    let other = ReplicaKey { replica: 10, ..KEY };
    disk.rename(&backend.path(KEY), &backend.path(other)).expect("renamed");
    assert_eq!(loaded(&backend, other).expect_err("refused").code, Code::CorruptLog);
}

#[test]
fn a_crash_at_any_change_leaves_the_old_checkpoint_or_the_new_one() {
    let large = "v".repeat(200 * 1024);
    let second_changes = [row("a", "new"), (Bytes::from_static(b"b"), None), row("c", &large), row("d", &large)];
    let mut kept_old = 0;
    for fail_after in 0.. {
        let disk = TestDisk::default();
        let mut model = Model::default();
        model
            .checkpoint(&on(&disk), KEY, &[row("a", "old"), row("b", "old")], &Bytes::from_static(b"1"), true)
            .expect("written");
        let old = model.clone();
        disk.fail_after(fail_after);
        let before = disk.changes();
        let result = model.checkpoint(&on(&disk), KEY, &second_changes, &Bytes::from_static(b"2"), true);
        assert_eq!(result.is_err(), disk.changes() - before > fail_after, "an error was swallowed at {fail_after}");
        disk.crash();
        let backend = on(&disk);
        let found = loaded(&backend, KEY).expect("intact").expect("there");
        if result.is_ok() {
            assert_eq!(found, model, "an acknowledged checkpoint was lost");
            break;
        }
        assert!(found == old || found == model, "neither old nor new after failing at {fail_after}");
        kept_old += usize::from(found == old);
        let left_over = disk.list(Path::new("/checkpoints")).expect("listed");
        assert_eq!(left_over, ["snap-3-9"], "left over after failing at {fail_after}");
    }
    assert!(kept_old >= 6, "the failures did not reach the writes: {kept_old}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sequences_of_checkpoints_equal_the_model(
        steps in proptest::collection::vec(
            (proptest::collection::vec((0u8..12, proptest::option::of(any::<Vec<u8>>())), 0..8), any::<bool>()), 1..10)
    ) {
        let disk = TestDisk::default();
        let mut model = Model::default();
        for (number, (changes, crash)) in steps.into_iter().enumerate() {
            let changes: Vec<_> =
                changes.into_iter().map(|(key, value)| (Bytes::from(vec![key]), value.map(Bytes::from))).collect();
            let meta = Bytes::from(number.to_string());
            model.checkpoint(&on(&disk), KEY, &changes, &meta, true).expect("written");
            if crash {
                disk.crash();
            }
            prop_assert_eq!(loaded(&on(&disk), KEY).expect("loads"), Some(model.clone()));
        }
    }
}
