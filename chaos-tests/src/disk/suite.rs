//! What every disk behind the port must do, simulated or real, as long as nothing crashes.

use keystead::storage::disk::{Disk, OpenMode};
use std::io::ErrorKind;
use std::path::Path;

/// Runs the suite in an existing, empty directory.
///
/// # Panics
/// When the disk does not do what the port says.
pub fn run(disk: &dyn Disk, root: &Path) {
    bytes_are_read_back(disk, root);
    modes_are_kept(disk, root);
    names_follow(disk, root);
    locks_exclude(disk, root);
}

fn bytes_are_read_back(disk: &dyn Disk, root: &Path) {
    let path = root.join("bytes");
    let file = disk.open(&path, OpenMode::CreateNew).expect("created");
    assert!(file.is_empty().expect("length"), "a new file is empty");
    file.write_all_at(b"hello", 0).expect("written");
    file.write_all_at(b"again", 8).expect("written past the end");
    assert_eq!(file.len().expect("length"), 13);
    let mut all = [9; 13];
    file.read_exact_at(&mut all, 0).expect("read");
    assert_eq!(&all, b"hello\0\0\0again", "the gap reads as zeros");
    let past = file.read_exact_at(&mut [0; 2], 12).expect_err("past the end");
    assert_eq!(past.kind(), ErrorKind::UnexpectedEof);
    file.set_len(3).expect("cut");
    file.set_len(5).expect("extended");
    file.sync_data().expect("synced");
    drop(file);
    assert_eq!(disk.read(&path).expect("whole"), b"hel\0\0");
    disk.write_atomically(&path, b"new").expect("replaced");
    assert_eq!(disk.read(&path).expect("whole"), b"new");
    disk.remove(&path).expect("removed");
}

fn modes_are_kept(disk: &dyn Disk, root: &Path) {
    let path = root.join("modes");
    for mode in [OpenMode::Read, OpenMode::ReadWrite] {
        assert_eq!(disk.open(&path, mode).err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    }
    let file = disk.open(&path, OpenMode::CreateNew).expect("created");
    file.write_all_at(b"x", 0).expect("written");
    let twice = disk.open(&path, OpenMode::CreateNew).err().map(|error| error.kind());
    assert_eq!(twice, Some(ErrorKind::AlreadyExists));
    let reader = disk.open(&path, OpenMode::Read).expect("opened");
    assert!(reader.write_all_at(b"y", 0).is_err(), "opened for reading only");
    let writer = disk.open(&path, OpenMode::ReadWrite).expect("opened");
    writer.write_all_at(b"z", 1).expect("written");
    assert_eq!(reader.len().expect("length"), 2, "all handles see one file");
    disk.open(&path, OpenMode::Truncate).expect("emptied");
    assert!(reader.is_empty().expect("length"));
    disk.remove(&path).expect("removed");
}

fn names_follow(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    disk.create_dir_all(&dir).expect("created");
    disk.create_dir_all(&dir).expect("there already");
    for name in ["2", "10", "1"] {
        let file = disk.open(&dir.join(name), OpenMode::CreateNew).expect("created");
        file.write_all_at(name.as_bytes(), 0).expect("written");
    }
    assert_eq!(disk.list(&dir).expect("listed"), ["1", "10", "2"], "sorted by name");
    assert_eq!(disk.list(root).expect("listed"), ["a"]);
    let open = disk.open(&dir.join("2"), OpenMode::Read).expect("opened");
    disk.rename(&dir.join("10"), &dir.join("2")).expect("replaced");
    assert_eq!(disk.list(&dir).expect("listed"), ["1", "2"]);
    assert_eq!(disk.read(&dir.join("2")).expect("read"), b"10");
    let mut byte = [0];
    open.read_exact_at(&mut byte, 0).expect("an open file outlives its name");
    assert_eq!(&byte, b"2");
    disk.sync_dir(&dir).expect("synced");
    disk.remove(&dir.join("1")).expect("removed");
    let missing = disk.remove(&dir.join("1")).expect_err("gone");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let nowhere = disk.rename(&dir.join("1"), &dir.join("3")).expect_err("gone");
    assert_eq!(nowhere.kind(), ErrorKind::NotFound);
    assert!(disk.list(&root.join("c")).is_err(), "no such directory");
}

fn locks_exclude(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a");
    let lock = disk.lock(&dir).expect("free");
    assert_eq!(disk.lock(&dir).err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    drop(lock);
    disk.lock(&dir).expect("free again");
}
