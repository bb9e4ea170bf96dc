//! A disk that fails on demand, and what the log does then.

use super::*;
use crate::error::Code;
use crate::storage::disk::{DirLock, DiskFile, OpenMode};
use crate::storage::log::{LogHealth, is_disk_full};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use tokio::sync::watch;

#[derive(Default)]
struct Faults {
    /// Bytes that can still be written; beyond, the disk is full. A write may end in the middle.
    room: Mutex<Option<u64>>,
    fail_sync: AtomicBool,
    fail_write: AtomicBool,
    syncs: AtomicU64,
    held: Mutex<bool>,
    released: Condvar,
}

/// The machine's disk with faults.
pub(super) struct FaultyDisk {
    faults: Arc<Faults>,
    reached: watch::Sender<u64>,
}

struct FaultyFile {
    file: Box<dyn DiskFile>,
    faults: Arc<Faults>,
    reached: watch::Sender<u64>,
}

/// While it lives, syncs wait, and so does the news that the disk is full.
pub(super) struct Hold {
    faults: Arc<Faults>,
    reached: watch::Receiver<u64>,
}

impl Hold {
    /// Waits until a sync waits.
    pub(super) async fn reached(&self) {
        self.reached.clone().changed().await.expect("the disk lives");
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        *self.faults.held.lock().expect("lock") = false;
        self.faults.released.notify_all();
    }
}

impl FaultyDisk {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(FaultyDisk { faults: Arc::default(), reached: watch::Sender::new(0) })
    }

    pub(super) fn hold(&self) -> Hold {
        *self.faults.held.lock().expect("lock") = true;
        Hold { faults: self.faults.clone(), reached: self.reached.subscribe() }
    }

    pub(super) fn syncs(&self) -> u64 {
        self.faults.syncs.load(Ordering::SeqCst)
    }

    pub(super) async fn synced(&self, number: u64) {
        let mut reached = self.reached.subscribe();
        reached.wait_for(|_| self.syncs() >= number).await.expect("the disk lives");
    }

    fn room(&self, room: Option<u64>) {
        *self.faults.room.lock().expect("lock") = room;
    }
}

impl FaultyFile {
    fn wait_while_held(&self) {
        self.reached.send_modify(|reached| *reached += 1);
        let held = self.faults.held.lock().expect("lock");
        drop(self.faults.released.wait_while(held, |held| *held).expect("lock"));
    }
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.faults.fail_write.load(Ordering::SeqCst) {
            return Err(io::Error::other("the write failed"));
        }
        let mut room = self.faults.room.lock().expect("lock");
        if let Some(left) = &mut *room {
            if (*left as usize) < bytes.len() {
                self.file.write_all_at(&bytes[..*left as usize], offset)?;
                *left = 0;
                drop(room);
                self.wait_while_held();
                return Err(io::ErrorKind::StorageFull.into());
            }
            *left -= bytes.len() as u64;
        }
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.wait_while_held();
        if self.faults.fail_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("the sync failed"));
        }
        self.file.sync_data()?;
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        self.reached.send_modify(|reached| *reached += 1);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        StdDisk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        StdDisk.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = StdDisk.open(path, mode)?;
        Ok(Box::new(FaultyFile { file, faults: self.faults.clone(), reached: self.reached.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        StdDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        StdDisk.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        StdDisk.lock(dir)
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_log_for_good() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let (log, _) = open_on(disk.clone(), dir.path(), LogConfig::default());
    let one = group(&log, 1).await;
    append(&one, entries(1..3, "a")).await.expect("durable");
    disk.faults.fail_sync.store(true, Ordering::SeqCst);
    let failed = append(&one, entries(3..4, "a")).await.expect_err("was acknowledged without a sync");
    assert!(!is_disk_full(&failed));
    disk.faults.fail_sync.store(false, Ordering::SeqCst);
    let vote = one.save_vote(bytes("v")).await.map_err(|error| error.code);
    assert_eq!(vote, Err(Code::DiskFailed), "the log went on after a failed sync");
    assert!(one.append(entries(4..5, "a"), drop).await.is_err());
    assert!(matches!(&*log.health().borrow(), LogHealth::Failed(error) if error.code == Code::DiskFailed));
    log.shutdown().await;
}

#[tokio::test]
async fn a_failed_write_ends_the_log_for_good() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let (log, _) = open_on(disk.clone(), dir.path(), LogConfig::default());
    let one = group(&log, 1).await;
    disk.faults.fail_write.store(true, Ordering::SeqCst);
    append(&one, entries(1..2, "a")).await.expect_err("was acknowledged without a write");
    disk.faults.fail_write.store(false, Ordering::SeqCst);
    assert_eq!(log.tombstone(GroupId(1), 1).await.map_err(|error| error.code), Err(Code::DiskFailed));
    assert!(matches!(&*log.health().borrow(), LogHealth::Failed(_)));
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_recovers() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let config = LogConfig { probe_every: Duration::from_millis(1), probe_bytes: 4096, ..small() };
    let (log, _) = open_on(disk.clone(), dir.path(), config.clone());
    let one = group(&log, 1).await;
    append(&one, entries(1..20, "a")).await.expect("durable");
    one.save_vote(bytes("old")).await.expect("durable");
    let mut health = log.health();

    disk.room(Some(100));
    let failed = append(&one, entries(20..25, "b")).await.expect_err("there was no room");
    assert!(is_disk_full(&failed), "{failed}");
    assert_eq!(*health.borrow_and_update(), LogHealth::DiskFull);
    assert_eq!(all(&one).await, entries(1..20, "a"), "what was not written is still there");
    one.truncate_after(Some(15)).await.expect("is taken");
    one.purge(3, bytes("three")).await.expect("is taken");
    assert_eq!(one.save_vote(bytes("new")).await.map_err(|error| error.code), Err(Code::DiskFull));
    assert_eq!(one.vote(), Some(bytes("old")));
    let second = append(&one, entries(16..18, "c")).await.expect_err("there was no room");
    assert!(is_disk_full(&second), "{second}");
    assert!(log.register(GroupId(2), 1).await.is_err() && log.group(GroupId(2), 1).is_err());
    log.tombstone(GroupId(3), 1).await.expect_err("there was no room");

    disk.room(None);
    health.wait_for(|health| *health == LogHealth::Ok).await.expect("recovers");
    append(&one, entries(16..40, "d")).await.expect("durable");
    let expected = [entries(4..16, "a"), entries(16..40, "d")].concat();
    assert_eq!(all(&one).await, expected);
    log.shutdown().await;
    let (log, recovery) = open(dir.path(), config);
    assert_eq!((recovery.damaged_places, recovery.torn_tail_bytes), (0, 0), "{recovery:?}");
    assert_eq!((recovery.replicas, recovery.tombstoned), (vec![(GroupId(1), 1)], vec![]));
    let one = log.group(GroupId(1), 1).expect("is there");
    assert_eq!(all(&one).await, expected);
    assert_eq!((one.vote(), one.extent().purged), (Some(bytes("old")), Some((3, bytes("three")))));
}

/// Entries that were put on top of others, which then met the full disk, go with them.
#[tokio::test]
async fn entries_on_top_of_unwritten_ones_fail_with_them() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let (log, _) = open_on(disk.clone(), dir.path(), LogConfig::default());
    let one = group(&log, 1).await;
    let hold = disk.hold();
    let first = begin(&one, entries(1..2, "a")).await;
    hold.reached().await;
    let second = begin(&one, entries(2..3, "big")).await;
    let third = begin(&one, entries(3..4, "c")).await;
    disk.room(Some(60));
    drop(hold);
    first.await.expect("answered").expect("durable");
    for receiver in [second, third] {
        assert!(is_disk_full(&receiver.await.expect("answered").expect_err("no room")));
    }
    assert_eq!(all(&one).await, entries(1..2, "a"));
    disk.room(None);
    append(&one, entries(2..3, "d")).await.expect("durable");
    log.health().wait_for(|health| *health == LogHealth::Ok).await.expect("recovers");

    // The same when there is room again for the entry on top, which alone would leave a hole.
    disk.room(Some(60));
    let hold = disk.hold();
    let below = begin(&one, entries(3..4, "e")).await;
    hold.reached().await;
    let on_top = begin(&one, entries(4..5, "f")).await;
    disk.room(None);
    drop(hold);
    for receiver in [below, on_top] {
        assert!(is_disk_full(&receiver.await.expect("answered").expect_err("was written without what is below")));
    }
    assert_eq!(all(&one).await, [entries(1..2, "a"), entries(2..3, "d")].concat());
    append(&one, entries(3..4, "g")).await.expect("durable");
}

#[tokio::test]
async fn a_new_segment_without_room_is_a_full_disk_too() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = FaultyDisk::new();
    let (log, _) = open_on(disk.clone(), dir.path(), small());
    let one = group(&log, 1).await;
    append(&one, vec![(1, bytes([7; 4000]))]).await.expect("durable");
    disk.room(Some(20));
    assert!(is_disk_full(&append(&one, entries(2..3, "b")).await.expect_err("no room")));
    disk.room(None);
    append(&one, entries(2..3, "c")).await.expect("durable");
    assert_eq!(log.stats().current_segment.max(2), 2);
    drop((one, log));
    let (log, recovery) = open(dir.path(), small());
    assert_eq!(recovery.damaged_places, 0);
    assert_eq!(all(&log.group(GroupId(1), 1).expect("is there")).await[1..], entries(2..3, "c"));
}
