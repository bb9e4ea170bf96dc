//! A full disk: the peer gives up its leaderships, keeps serving reads where it can, says why, and
//! goes on by itself when there is room; nothing is lost.

use crate::common::{PATIENCE, addresses, free_ports, start_peer};
use crate::process::{Start, at, keystead, wait_until};
use keystead::Grid;
use keystead::clock::{self, Instant};
use keystead::error::Result;
use keystead::node::{GridService, Ports};
use keystead::storage::disk::{DirLock, Disk, DiskFile, OpenMode, StdDisk};
use keystead::types::{KeyCodec, Op, ReadLevel, Reply, ReplyBody, Request, Value, ValueCodec};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The machine's disk, which is full while the flag says so; it counts what found no room.
#[derive(Clone, Default)]
struct Quota(Arc<AtomicBool>, Arc<AtomicUsize>);

struct QuotaFile(Box<dyn DiskFile>, Quota);

impl Quota {
    fn set_full(&self, full: bool) {
        self.0.store(full, Ordering::SeqCst);
    }

    fn room(&self) -> io::Result<()> {
        if !self.0.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Waits until so many more writes have found no room.
    async fn refuses(&self, more: usize) {
        let before = self.1.load(Ordering::SeqCst);
        until("writes without room", async || self.1.load(Ordering::SeqCst) >= before + more).await;
    }
}

impl DiskFile for QuotaFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.room()?;
        self.0.write_all_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

impl Disk for Quota {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        StdDisk.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        StdDisk.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(QuotaFile(StdDisk.open(path, mode)?, self.clone())))
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

/// A peer on such a disk; its checkpoints go there too.
async fn start_on(disk: &Quota, seeds: &[String], listen: &str, data: &Path, checkpoint_bytes: u64) -> Grid {
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let backend = {
        let on = on.clone();
        move |dir: &Path| -> Result<Arc<dyn keystead::storage::backend::StateBackend>> {
            Ok(Arc::new(keystead::storage::backend::MemoryBackend::open(on.clone(), dir)?))
        }
    };
    let ports =
        Ports { disk: on, backend: Arc::new(backend), ..Ports::with_backend(keystead::config::Backend::Memory, None) };
    let peer = Grid::builder()
        .name(&data.file_name().expect("a name").to_string_lossy())
        .listen(listen)
        .seeds(seeds.iter().cloned())
        .data(data)
        .partitions(4)
        .ports(ports)
        .adjust(move |settings| {
            settings.log.probe_every = Duration::from_millis(50);
            settings.housekeeping.period = Duration::from_millis(50);
            settings.housekeeping.checkpoint_bytes = checkpoint_bytes;
            settings.housekeeping.replay_bytes = 0;
        });
    peer.start().await.expect("starts")
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < give_up, "{what} did not come");
        clock::sleep(Duration::from_millis(30)).await;
    }
}

async fn ask(peer: &Grid, op: Op, read: ReadLevel) -> Result<Reply> {
    let request = Request { affinity: None, op, read, ack: Default::default(), stamp: None, deadline_ms: 5_000 };
    peer.node().execute(request, 0).await
}

async fn read(peer: &Grid, key: &str, level: ReadLevel) -> Result<Option<Value>> {
    match ask(peer, Op::Get { map: "m".into(), key: key.to_owned().into() }, level).await?.body {
        ReplyBody::Entry(entry) => Ok(entry.map(|entry| entry.value)),
        other => panic!("another reply: {other:?}"),
    }
}

fn leads_nothing(partitions: &[keystead::node::PartitionInfo]) -> bool {
    partitions.iter().all(|partition| partition.leader.as_deref().is_some_and(|leader| leader != "n1"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_full_disk_steps_back_and_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let disk = Quota::default();
    let full = start_on(&disk, &seeds, &seeds[0], &dir.path().join("n1"), 16 << 20).await;
    let others = [start_peer(&seeds, 1, dir.path(), 4).await, start_peer(&seeds, 2, dir.path(), 4).await];
    for peer in [&full, &others[0], &others[1]] {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    let client = others[0].client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    for i in 0..40 {
        client.put("m", format!("a{i}"), Value::utf8("before")).await.expect("puts");
    }

    disk.set_full(true);
    for i in 0..40 {
        client.put("m", format!("b{i}"), Value::utf8("meanwhile")).await.expect("the others are a majority");
    }
    until("the others' leaderships", async || leads_nothing(&others[0].node().partitions().await.unwrap_or_default()))
        .await;
    let why = full.node().ready().expect_err("is not ready");
    assert!(why.contains("KS5002") && why.contains("/n1 is full") && why.contains("make room"), "{why}");
    let said = keystead(["members", "--endpoint", &seeds[1]]);
    assert!(said.out.lines().any(|line| line.starts_with("n1 ") && line.contains("is full")), "{said:?}");
    // Through it: old state from its own replicas, the present one and writes from the others.
    assert_eq!(read(&full, "a7", ReadLevel::Local).await.expect("reads"), Some(Value::utf8("before")));
    assert_eq!(read(&full, "b7", ReadLevel::Linearizable).await.expect("reads"), Some(Value::utf8("meanwhile")));
    let op = Op::Put {
        map: "m".into(),
        key: "through".into(),
        value: Value::utf8("it"),
        condition: keystead::types::Condition::Always,
        previous: false,
        ttl_ms: None,
    };
    ask(&full, op, ReadLevel::Linearizable).await.expect("is sent on");

    disk.set_full(false);
    full.wait_ready(PATIENCE).await.expect("goes on by itself");
    until("everything there", async || {
        let mut there = 0;
        for i in 0..40 {
            there +=
                usize::from(read(&full, &format!("b{i}"), ReadLevel::Local).await.is_ok_and(|value| value.is_some()));
        }
        there == 40
    })
    .await;
    // It counts again: with another peer gone, the grid still has everything and takes more.
    let [second, third] = others;
    third.shutdown().await;
    let client = full.client().await.expect("connects");
    for i in 0..40 {
        for (key, value) in [(format!("a{i}"), "before"), (format!("b{i}"), "meanwhile")] {
            assert_eq!(client.get("m", key).await.expect("gets").expect("is there").value, Value::utf8(value));
        }
    }
    client.put("m", "more", Value::utf8("x")).await.expect("puts");
    full.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_of_one_refuses_writes_with_a_code_while_its_disk_is_full() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Quota::default();
    let peer = start_on(&disk, &[], "127.0.0.1:0", &dir.path().join("n1"), 16 << 20).await;
    peer.wait_ready(PATIENCE).await.expect("serves");
    let client = peer.client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    client.put("m", "k", Value::utf8("v")).await.expect("puts");

    disk.set_full(true);
    // The first may have been on its way to the log; later ones certainly were not written.
    drop(client.put("m", "k", Value::utf8("lost?")).await);
    until("the trouble", async || peer.node().ready().is_err_and(|why| why.contains("is full"))).await;
    let said = keystead(["put", "m", "k", "w", "--endpoint", peer.address(), "--timeout", "2"]);
    said.says(1, &["KS5002", "this peer's disk is full: nothing was written", "make room"]);
    assert!(read(&peer, "k", ReadLevel::Local).await.expect("reads").is_some());
    let said = keystead(["get", "m", "k", "--read", "local", "--endpoint", peer.address()]);
    assert_eq!(said.status, Some(0), "{said:?}");

    disk.set_full(false);
    peer.wait_ready(PATIENCE).await.expect("goes on by itself");
    client.put("m", "k", Value::utf8("after")).await.expect("puts");
    peer.shutdown().await;
    let again = start_on(&disk, &[], "127.0.0.1:0", &dir.path().join("n1"), 16 << 20).await;
    again.wait_ready(PATIENCE).await.expect("serves");
    assert_eq!(read(&again, "k", ReadLevel::Linearizable).await.expect("reads"), Some(Value::utf8("after")));
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_whose_disks_are_all_full_says_so_to_whoever_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (disk, seeds) = (Quota::default(), addresses(&free_ports(3)));
    let mut peers = Vec::new();
    for (at, listen) in seeds.iter().enumerate() {
        let data = dir.path().join(format!("n{}", at + 1));
        peers.push(start_on(&disk, &seeds, listen, &data, 16 << 20).await);
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    let client = peers[0].client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    client.put("m", "k", Value::utf8("v")).await.expect("puts");
    // A majority has it; the peer that is read further below may yet be behind, and would stay so.
    until("the replica", async || read(&peers[2], "k", ReadLevel::Local).await.is_ok_and(|value| value.is_some()))
        .await;

    // Some partitions have stopped over a write, others are led by peers that nobody relieves.
    disk.set_full(true);
    let put = async |key: &str| {
        let (map, key, value) = ("m".into(), key.to_owned().into(), Value::utf8("w"));
        let op = Op::Put { map, key, value, condition: Default::default(), previous: false, ttl_ms: None };
        ask(&peers[1], op, ReadLevel::Linearizable).await
    };
    drop(put("k").await);
    for peer in &peers {
        until("the trouble", async || peer.node().ready().is_err_and(|why| why.contains("is full"))).await;
    }
    for key in ["k", "a", "b", "c", "d", "e"] {
        until("the reason", async || {
            put(key).await.is_err_and(|error| error.to_string().contains("this peer's disk is full"))
        })
        .await;
    }
    assert!(read(&peers[2], "k", ReadLevel::Local).await.expect("reads").is_some());

    disk.set_full(false);
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("goes on by itself");
    }
    client.put("m", "k", Value::utf8("after")).await.expect("puts");
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_that_find_no_room_are_made_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let (disk, states) = (Quota::default(), Quota::default());
    // The log has room, the checkpoints have none.
    let on: Arc<dyn Disk> = Arc::new(states.clone());
    let backend = move |dir: &Path| -> Result<Arc<dyn keystead::storage::backend::StateBackend>> {
        Ok(Arc::new(keystead::storage::backend::MemoryBackend::open(on.clone(), dir)?))
    };
    let ports = Ports {
        disk: Arc::new(disk),
        backend: Arc::new(backend),
        ..Ports::with_backend(keystead::config::Backend::Memory, None)
    };
    let started =
        Grid::builder().listen("127.0.0.1:0").data(dir.path()).partitions(1).ports(ports).adjust(|settings| {
            settings.housekeeping.checkpoint_bytes = 1;
            settings.housekeeping.replay_bytes = 0;
            settings.housekeeping.keep_entries = 0;
            settings.housekeeping.period = Duration::from_millis(20);
        });
    let peer = started.start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    let client = peer.client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    let group = keystead::types::PartitionId(0).group();
    until("a first checkpoint", async || {
        client.put("m", "k", Value::utf8("v")).await.expect("puts");
        peer.node().purged_to(group) > 0
    })
    .await;
    states.set_full(true);
    client.put("m", "k", Value::utf8("v")).await.expect("the log has room");
    // Those of a first round may have begun with room; whoever is refused again has ended it.
    states.refuses(8).await;
    let before = peer.node().purged_to(group);
    for i in 0..50 {
        client.put("m", format!("k{i}"), Value::utf8("v")).await.expect("the log has room");
    }
    states.refuses(8).await;
    assert_eq!(peer.node().purged_to(group), before, "the log keeps what no checkpoint has");
    assert!(peer.node().ready().is_ok(), "the peer serves");
    states.set_full(false);
    until("a later checkpoint", async || peer.node().purged_to(group) > before + 40).await;
    peer.shutdown().await;
}

/// A process whose files may not grow: the real disk, the real log.
#[test]
fn a_process_whose_disk_is_full_steps_back_and_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let data: Vec<_> = (1..=3).map(|number| dir.path().join(format!("n{number}"))).collect();
    let small =
        Start { file_kib: Some(600), more: &["--name", "small"], ..Start::new(&seeds[0], &seeds, &data[0]) }.spawn();
    let others: Vec<_> = (1..3).map(|at| Start::new(&seeds[at], &seeds, &data[at]).spawn()).collect();
    small.wait_ready();
    others.iter().for_each(|peer| peer.wait_ready());
    let value = "x".repeat(60_000);
    for number in 0..20 {
        at(&seeds[1], &["put", "m", &format!("k{number}"), &value, "--timeout", "30"]).says(0, &[]);
    }
    wait_until("the full disk", || small.readyz().contains("is full"));
    let log = small.log();
    assert!(log.contains("KS5002") && log.contains("gives up its leaderships"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let members = at(&seeds[2], &["members"]).out;
    assert!(members.lines().any(|line| line.starts_with("small ") && line.contains("is full")), "{members}");

    let id = small.id().to_string();
    let room = Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited:unlimited"]).status();
    assert!(room.expect("prlimit runs").success());
    small.wait_ready();
    wait_until("every value at it", || {
        let read = |number: i32| at(&seeds[0], &["get", "m", &format!("k{number}"), "--read", "local"]);
        (0..20).all(|number| read(number).out.trim_end() == value)
    });
}

#[test]
fn a_disk_that_is_full_at_the_start_is_said_to_be_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = addresses(&free_ports(1)).remove(0);
    let data = dir.path().join("n1");
    let said = Start { file_kib: Some(0), ..Start::new(&address, &[], &data) }.ends();
    said.says(1, &["KS5002", "n1", "make room"]);
    let peer = Start::new(&address, &[], &data).spawn();
    peer.wait_ready();
}
