use super::*;
use keystead::storage::disk::{Disk, OpenMode, StdDisk};
use std::collections::BTreeSet;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(Dice::new(seed, "disk"))
}

fn put(mount: &Mount, path: &str, bytes: &[u8]) {
    let file = mount.open(Path::new(path), OpenMode::Truncate).expect("opened");
    file.write_all_at(bytes, 0).expect("written");
}

#[test]
fn the_simulated_disk_passes_the_suite() {
    suite::run(&disk(1).mount(), Path::new("/"));
}

#[test]
fn the_real_disk_passes_the_suite() {
    let dir = tempfile::tempdir().expect("a directory");
    suite::run(&StdDisk, dir.path());
}

#[test]
fn what_is_synced_survives_every_crash() {
    for seed in 0..200 {
        let disk = disk(seed);
        let mount = disk.mount();
        mount.create_dir_all(Path::new("/d")).expect("created");
        mount.write_atomically(Path::new("/d/f"), b"one").expect("written");
        mount.write_atomically(Path::new("/d/f"), b"two").expect("written");
        disk.crash();
        assert!(mount.read(Path::new("/d/f")).is_err(), "a dead process reads nothing");
        assert_eq!(disk.mount().read(Path::new("/d/f")).expect("there"), b"two", "seed {seed}");
    }
}

/// What 200 seeds leave of a file that was synced as "ab", then overwritten in three steps.
fn left_of_three_writes() -> BTreeSet<Vec<u8>> {
    let outcome = |seed| {
        let disk = disk(seed);
        let mount = disk.mount();
        put(&mount, "/f", b"ab");
        let file = mount.open(Path::new("/f"), OpenMode::ReadWrite).expect("opened");
        file.sync_data().expect("synced");
        mount.sync_dir(Path::new("/")).expect("synced");
        file.write_all_at(b"CD", 2).expect("written");
        file.write_all_at(b"EF", 4).expect("written");
        disk.crash();
        disk.mount().read(Path::new("/f")).expect("there")
    };
    (0..200).map(outcome).collect()
}

#[test]
fn unsynced_bytes_meet_every_fate() {
    let left = left_of_three_writes();
    for expected in [&b"ab"[..], b"abCD", b"abCDEF", b"abC", b"abCDE", b"ab\0\0EF", b"ab\0\0\0\0"] {
        assert!(left.contains(expected), "never left {expected:?} of {left:?}");
    }
    assert!(left.iter().all(|bytes| bytes.starts_with(b"ab")), "a synced byte was lost: {left:?}");
}

#[test]
fn unsynced_names_may_be_lost_but_not_half() {
    let mut kept = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        let mount = disk.mount();
        put(&mount, "/old", b"");
        mount.sync_dir(Path::new("/")).expect("synced");
        mount.rename(Path::new("/old"), Path::new("/new")).expect("renamed");
        put(&mount, "/more", b"");
        disk.crash();
        kept.insert(disk.mount().list(Path::new("/")).expect("listed").join(" "));
    }
    assert_eq!(kept, BTreeSet::from(["old", "new", "more new"].map(str::to_owned)));
}

#[test]
fn a_hard_crash_leaves_only_what_was_synced() {
    let disk = disk(3);
    let mount = disk.mount();
    put(&mount, "/f", b"x");
    mount.sync_dir(Path::new("/")).expect("synced");
    mount.create_dir_all(Path::new("/d/e")).expect("created");
    put(&mount, "/d/e/g", b"x");
    put(&mount, "/g", b"x");
    disk.crash_hard();
    assert_eq!(disk.mount().list(Path::new("/")).expect("listed"), ["d", "f"]);
    assert_eq!(disk.mount().list(Path::new("/d/e")).expect("directories are durable at once"), [""; 0]);
    assert_eq!(disk.mount().read(Path::new("/f")).expect("there"), b"", "its bytes were never synced");
}

#[test]
fn a_killed_process_loses_nothing_but_its_lock() {
    let disk = disk(4);
    let mount = disk.mount();
    put(&mount, "/f", b"x");
    let lock = mount.lock(Path::new("/")).expect("free");
    disk.kill();
    let again = disk.mount();
    let second = again.lock(Path::new("/")).expect("the lock died with its process");
    drop(lock);
    assert!(again.lock(Path::new("/")).is_err(), "an old lock's end must not free the new one");
    drop(second);
    assert_eq!(again.read(Path::new("/f")).expect("there"), b"x");
}

#[test]
fn the_power_goes_in_the_middle() {
    let disk = disk(5);
    let mount = disk.mount();
    disk.power_off_after(3);
    put(&mount, "/f", b"x");
    let file = mount.open(Path::new("/f"), OpenMode::Read).expect("opened");
    assert!(file.sync_data().is_err(), "the third change");
    assert!(disk.has_lost_power() && file.len().is_err());
    disk.crash();
    assert!(!disk.has_lost_power());
    assert!(disk.mount().list(Path::new("/")).is_ok(), "on again after a restart");
}

#[test]
fn a_failed_sync_is_not_mended_by_the_next() {
    let disk = disk(6);
    let mount = disk.mount();
    put(&mount, "/f", b"x");
    mount.sync_dir(Path::new("/")).expect("synced");
    let file = mount.open(Path::new("/f"), OpenMode::ReadWrite).expect("opened");
    disk.fail_sync_after(1);
    assert!(file.sync_data().is_err());
    file.sync_data().expect("the next one claims success");
    disk.crash_hard();
    assert_eq!(disk.mount().read(Path::new("/f")).expect("there"), b"");
}

#[test]
fn a_lying_disk_loses_what_it_acknowledged() {
    let disk = disk(6);
    disk.set_lying(true);
    let mount = disk.mount();
    mount.write_atomically(Path::new("/f"), b"abc").expect("acknowledged");
    disk.clear_faults();
    disk.crash_hard();
    assert_eq!(disk.mount().read(Path::new("/f")).expect("its name is there"), b"");
}

#[test]
fn a_full_disk_says_so_and_keeps_what_it_has() {
    let disk = disk(7);
    let mount = disk.mount();
    put(&mount, "/f", b"1234");
    disk.set_capacity(Some(6));
    let file = mount.open(Path::new("/f"), OpenMode::ReadWrite).expect("opened");
    let full = file.write_all_at(b"5678", 4).expect_err("no room");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(mount.read(Path::new("/f")).expect("there"), b"123456", "what fitted was written");
    file.write_all_at(b"abcd", 0).expect("overwriting takes no room");
    assert_eq!(file.set_len(7).expect_err("no room").kind(), io::ErrorKind::StorageFull);
    disk.set_capacity(None);
    file.write_all_at(b"5678", 4).expect("room again");
}

#[test]
fn rot_damages_one_durable_byte() {
    let disk = disk(8);
    let mount = disk.mount();
    mount.write_atomically(Path::new("/f"), b"abc").expect("written");
    disk.rot(Path::new("/f"), 1).expect("damaged");
    assert_eq!(mount.read(Path::new("/f")).expect("there"), b"arc");
    assert!(disk.rot(Path::new("/f"), 3).is_err());
}

#[test]
fn one_seed_always_leaves_the_same() {
    assert_eq!(left_of_three_writes(), left_of_three_writes());
}

#[test]
fn a_write_that_fails_may_have_happened_in_part() {
    let disk = disk(9);
    let mount = disk.mount();
    put(&mount, "/f", b"old");
    disk.fail_write_after(2);
    let file = mount.open(Path::new("/f"), OpenMode::ReadWrite).expect("opened");
    file.write_all_at(b"1", 0).expect("the first one passes");
    assert!(!disk.has_failed());
    assert!(file.write_all_at(b"new", 0).is_err() && disk.has_failed());
    file.write_all_at(b"3", 0).expect("it fails once");
    disk.kill();
    assert!(!disk.has_failed(), "another life");
}

#[test]
fn a_replaced_disk_is_empty() {
    let disk = disk(10);
    let mount = disk.mount();
    mount.write_atomically(Path::new("/f"), b"abc").expect("written");
    disk.rot(Path::new("/f"), 1).expect("damaged");
    assert!(disk.is_damaged() && !disk.mount().is_new());
    disk.replace();
    assert!(mount.list(Path::new("/")).is_err(), "the old process has no disk");
    assert_eq!(disk.mount().list(Path::new("/")).expect("listed"), [""; 0]);
    assert!(!disk.is_damaged() && disk.mount().is_new() && disk.replaced() == 1);
}

#[test]
fn what_is_written_ends_before_the_zeros() {
    let disk = disk(11);
    let mount = disk.mount();
    mount.write_atomically(Path::new("/f"), b"abc\0\0").expect("written");
    assert_eq!(disk.written_end(Path::new("/f")).expect("there"), 3);
    mount.write_atomically(Path::new("/f"), b"\0\0").expect("written");
    assert_eq!(disk.written_end(Path::new("/f")).expect("there"), 0);
}

#[test]
fn a_slow_disk_says_how_slow() {
    let disk = disk(12);
    assert_eq!(disk.mount().lag(), Duration::ZERO);
    disk.set_lag(Duration::from_millis(70));
    assert_eq!(disk.mount().lag(), Duration::from_millis(70));
    disk.clear_faults();
    assert_eq!(disk.mount().lag(), Duration::ZERO);
}
