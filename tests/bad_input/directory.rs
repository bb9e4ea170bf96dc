//! Data directories that cannot be used: in use, of another grid, of a newer format, unwritable.

use crate::common::{addresses, free_ports};
use crate::process::{Start, at, wait_until};
use keystead::Grid;
use keystead::error::Code;
use keystead::node::Ports;
use keystead::storage::disk::{DirLock, Disk, DiskFile, OpenMode, StdDisk};
use std::io;
use std::path::Path;
use std::sync::Arc;

#[test]
fn a_directory_in_use_names_the_process_and_a_killed_peer_leaves_no_lock() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    let ports = addresses(&free_ports(2));
    let mut first = Start::new(&ports[0], &[], &data).spawn();
    first.wait_ready();
    let process = format!("process {}", first.id());
    let second = Start::new(&ports[1], &[], &data).ends();
    second.says(1, &["KS5006", "in use by another process", &process, "n1", "--data"]);
    at(&first.address, &["put", "m", "k", "v"]).says(0, &[]);

    first.kill();
    let after = Start::new(&ports[1], &[], &data).spawn();
    after.wait_ready();
    assert_eq!(at(&after.address, &["get", "m", "k"]).out, "v\n");
}

#[test]
fn a_directory_of_another_grid_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let ports = addresses(&free_ports(2));
    let (mine, theirs) = (vec![ports[0].clone()], vec![ports[1].clone()]);
    let mut stranger = Start::new(&ports[0], &mine, &dir.path().join("mine")).spawn();
    stranger.wait_ready();
    stranger.kill();
    let grid = Start::new(&ports[1], &theirs, &dir.path().join("theirs")).spawn();
    grid.wait_ready();
    let refused = Start::new(&ports[0], &theirs, &dir.path().join("mine")).ends();
    refused.says(1, &["KS6001", "grid", "correct the seeds, or start with an empty data directory"]);
    assert!(grid.readyz().contains("200"), "the other grid goes on");
}

#[test]
fn a_directory_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    let address = addresses(&free_ports(1)).remove(0);
    let mut peer = Start::new(&address, &[], &data).spawn();
    peer.wait_ready();
    peer.kill();
    let path = data.join("node");
    let mut bytes = std::fs::read(&path).expect("the identity");
    bytes[0] = 9;
    std::fs::write(&path, &bytes).expect("writes");
    let refused = Start::new(&address, &[], &data).ends();
    refused.says(1, &["KS5005", "version 9", "n1/node", "or a later one"]);
    assert_eq!(std::fs::read(&path).expect("the identity"), bytes);
}

/// Makes a header of a version that is yet to come of the one that a file has, with a sound checksum.
fn write_newer(path: &Path, version_at: usize, checksum_at: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[version_at] = 9;
    let checksum = crc32fast::hash(&bytes[..checksum_at]);
    bytes[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(path, &bytes).expect("writes");
    bytes
}

/// The last file of a directory, by name.
fn last_file(dir: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    files.filter(|path| path.is_file()).max().expect("a file")
}

#[test]
fn a_log_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    let address = addresses(&free_ports(1)).remove(0);
    let mut peer = Start::new(&address, &[], &data).spawn();
    peer.wait_ready();
    at(&address, &["put", "m", "k", "v", "--timeout", "30"]).says(0, &[]);
    peer.kill();
    let segment = last_file(&data.join("log"));
    let bytes = write_newer(&segment, 8, 28);
    for _ in 0..2 {
        let refused = Start::new(&address, &[], &data).ends();
        let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
        refused.says(1, &["KS5005", "a log segment has format version 9", &name, "or a later one"]);
    }
    assert_eq!(std::fs::read(&segment).expect("the segment"), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    let address = addresses(&free_ports(1)).remove(0);
    let config = keystead::config::NodeConfig {
        listen: address.clone(),
        data: data.clone(),
        partitions: 1,
        backend: keystead::config::Backend::Memory,
        ..Default::default()
    };
    let eager = |settings: &mut keystead::node::NodeSettings| {
        settings.housekeeping.checkpoint_bytes = 1;
        settings.housekeeping.replay_bytes = 0;
        settings.housekeeping.keep_entries = 0;
        settings.housekeeping.period = std::time::Duration::from_millis(50);
    };
    let peer = Grid::builder().config(config).adjust(eager).start().await.expect("starts");
    peer.wait_ready(crate::common::PATIENCE).await.expect("serves");
    at(&address, &["put", "m", "k", "v", "--timeout", "30"]).says(0, &[]);
    let group = keystead::types::PartitionId(0).group();
    wait_until("a purge", || peer.node().purged_to(group) > 0);
    peer.shutdown().await;
    let state = data.join("state");
    let snapshots: Vec<_> =
        std::fs::read_dir(&state).expect("a directory").flatten().map(|entry| entry.path()).collect();
    let newer: Vec<_> = snapshots
        .iter()
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"KSSNAP")))
        .map(|path| (path, write_newer(path, 6, 20)))
        .collect();
    assert!(!newer.is_empty(), "{snapshots:?}");
    let refused = Start { more: &["--backend", "memory"], ..Start::new(&address, &[], &data) }.spawn();
    wait_until("the refusal", || refused.log().contains("keystead: KS"));
    for word in ["KS5005", "a snapshot file has format version 9", "n1/state"] {
        assert!(refused.log().contains(word), "{word:?} is not in {}", refused.log());
    }
    assert!(!refused.readyz().starts_with("HTTP/1.0 200"), "{}", refused.readyz());
    for (path, bytes) in newer {
        assert_eq!(std::fs::read(path).expect("it is there"), bytes);
    }
}

#[test]
fn a_directory_that_cannot_be_made_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("writes");
    let address = addresses(&free_ports(1)).remove(0);
    let data = file.join("n1");
    let said = crate::process::keystead(["start", "--listen", &address, "--data", &data.to_string_lossy()]);
    said.says(2, &["KS1007", "the data directory cannot be made", "--data"]);
}

/// The machine's disk, mounted read-only: what a test that runs as root could not get otherwise.
struct ReadOnly(io::ErrorKind);

impl Disk for ReadOnly {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        StdDisk.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode == OpenMode::Read { StdDisk.open(path, mode) } else { Err(self.0.into()) }
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(self.0.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(self.0.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn DirLock>> {
        Err(self.0.into())
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_said_to_be_so() {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let dir = tempfile::tempdir().expect("a directory");
    for (kind, code) in [
        (ReadOnlyFilesystem, Code::DataDirUnwritable),
        (PermissionDenied, Code::DataDirUnwritable),
        (StorageFull, Code::DiskFull),
    ] {
        let ports =
            Ports { disk: Arc::new(ReadOnly(kind)), ..Ports::with_backend(keystead::config::Backend::Memory, None) };
        let started = Grid::builder().listen("127.0.0.1:0").data(dir.path().join("n")).ports(ports).start().await;
        let error = started.err().expect("is refused");
        assert_eq!(error.code, code, "{error}");
        assert!(error.to_string().contains("cannot be written") && error.place.contains("/n"), "{error}");
    }
}

#[test]
fn a_wrong_lock_file_is_no_trouble() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    std::fs::create_dir_all(&data).expect("a directory");
    std::fs::write(data.join("lock"), "nonsense").expect("writes");
    let address = addresses(&free_ports(1)).remove(0);
    let peer = Start::new(&address, &[], &data).spawn();
    wait_until("the peer", || peer.readyz().contains("200"));
}
