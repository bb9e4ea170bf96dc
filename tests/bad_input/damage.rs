//! Damage on disk, at a peer that was stopped: three peers rebuild it from each other, a grid of one
//! refuses and leaves every file as it is.

use crate::common::{PATIENCE, addresses, free_ports};
use crate::process::{Peer, Start, at, three, wait_until};
use keystead::Grid;
use keystead::clock::{self, Instant};
use keystead::config::{Backend, NodeConfig};
use keystead::error::{Code, Result};
use keystead::node::Ended;
use keystead::types::{KeyCodec, PartitionId, Value, ValueCodec};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

/// Changes a byte wherever this text stands in the files; how often it did.
fn damage(dir: &Path, text: &str) -> usize {
    let mut hits = 0;
    for path in files(dir) {
        let mut bytes = std::fs::read(&path).expect("a file");
        let places: Vec<usize> = bytes
            .windows(text.len())
            .enumerate()
            .filter_map(|(place, window)| (window == text.as_bytes()).then_some(place))
            .collect();
        for place in &places {
            bytes[*place] ^= 0x40;
        }
        if !places.is_empty() {
            std::fs::write(&path, bytes).expect("writes");
        }
        hits += places.len();
    }
    hits
}

fn fill(peer: &str, count: usize) {
    for number in 0..count {
        at(peer, &["put", "m", &format!("k{number}"), &format!("value-to-be-found-{number}."), "--timeout", "30"])
            .says(0, &[]);
    }
}

/// Waits until a peer itself has every value.
fn has_all(peer: &Peer, count: usize) {
    wait_until("every value at the peer", || {
        (0..count).all(|number| {
            let said = at(&peer.address, &["get", "m", &format!("k{number}"), "--read", "local"]);
            said.out == format!("value-to-be-found-{number}.\n")
        })
    });
}

#[test]
fn a_damaged_record_in_the_middle_of_the_log_is_rebuilt_from_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let (seeds, mut peers) = three(dir.path(), &[]);
    fill(&seeds[0], 12);
    peers[2].kill();
    assert!(damage(&dir.path().join("n3/log"), "value-to-be-found-3.") > 0);
    let data = dir.path().join("n3");
    let back = Start::new(&seeds[2], &seeds, &data).spawn();
    back.wait_ready();
    has_all(&back, 12);
    assert!(back.log().contains("replaced under a new id"), "{}", back.log());
}

#[test]
fn a_torn_tail_is_cut_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    let address = addresses(&free_ports(1)).remove(0);
    let mut peer = Start::new(&address, &[], &data).spawn();
    peer.wait_ready();
    fill(&address, 5);
    peer.kill();
    let last = files(&data.join("log")).pop().expect("a segment");
    let mut bytes = std::fs::read(&last).expect("a segment");
    // What a crash leaves of a write that was never acknowledged: its beginning, out of order.
    bytes.extend_from_slice(&[0xA5; 300]);
    std::fs::write(&last, &bytes).expect("writes");
    let back = Start::new(&address, &[], &data).spawn();
    back.wait_ready();
    assert!(back.log().contains("torn write"), "{}", back.log());
    has_all(&back, 5);
}

#[test]
fn a_damaged_log_of_a_grid_of_one_is_refused_and_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("n1");
    let address = addresses(&free_ports(1)).remove(0);
    let mut peer = Start::new(&address, &[], &data).spawn();
    peer.wait_ready();
    fill(&address, 5);
    peer.kill();
    assert!(damage(&data.join("log"), "value-to-be-found-3.") > 0);
    // Refused at every start, not only at the first one.
    for _ in 0..2 {
        let said = Start::new(&address, &[], &data).ends();
        said.says(1, &["KS5003", "the only copy of partition", "n1", "restore the data directory from a backup"]);
    }
    let kept = files(&data.join("log")).iter().any(|path| {
        let bytes = std::fs::read(path).expect("a segment");
        bytes.windows(19).any(|window| window == b"value-to-be-found-4")
    });
    assert!(kept, "what was sound is still there");
}

/// A peer that checkpoints and purges at once, so that a little work leaves only checkpoints behind.
async fn start_eager(seeds: &[String], listen: &str, data: &Path, backend: Backend) -> Result<Grid> {
    let config = NodeConfig {
        name: "eager".into(),
        listen: listen.to_owned(),
        seeds: seeds.to_vec(),
        data: data.to_owned(),
        partitions: 2,
        backend,
        ..NodeConfig::default()
    };
    let eager = |settings: &mut keystead::node::NodeSettings| {
        settings.housekeeping.checkpoint_bytes = 1;
        settings.housekeeping.replay_bytes = 0;
        settings.housekeeping.keep_entries = 0;
        settings.housekeeping.period = Duration::from_millis(50);
    };
    Grid::builder().config(config).adjust(eager).start().await
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < give_up, "{what} did not come");
        clock::sleep(Duration::from_millis(30)).await;
    }
}

fn purged(peer: &Grid) -> bool {
    (0..2).all(|id| peer.node().purged_to(PartitionId(id).group()) > 0)
}

async fn fill_until_purged(peer: &Grid, watched: &Grid) {
    let client = peer.client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    for number in 0..30 {
        let value = format!("value-to-be-found-{number}.");
        client.put("m", format!("k{number}"), Value::utf8(value)).await.expect("puts");
    }
    until("a purge", async || purged(watched)).await;
}

/// Damages the checkpoints of one peer of three, by one byte of a row or as a whole, and starts it.
async fn a_damaged_state_is_rebuilt(backend: Backend, whole: bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let mut peers = Vec::new();
    for (number, seed) in seeds.iter().enumerate() {
        let data = dir.path().join(format!("n{number}"));
        peers.push(start_eager(&seeds, seed, &data, backend).await.expect("starts"));
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    fill_until_purged(&peers[0], &peers[2]).await;
    peers.remove(2).shutdown().await;
    let data = dir.path().join("n2");
    if whole {
        ruin(&data.join("state"));
    } else {
        assert!(damage(&data.join("state"), "value-to-be-found-3.") > 0, "the row is in the state's files");
    }
    let more: &[&str] = if backend == Backend::Sled { &["--backend", "sled"] } else { &["--backend", "memory"] };
    let back = Start { more, ..Start::new(&seeds[2], &seeds, &data) }.spawn();
    has_all(&back, 30);
    back.wait_ready();
    let log = back.log();
    assert!(log.contains("KS5003") || log.contains("KS5004"), "the damage has no code: {log}");
    let done = if whole && backend == Backend::Sled { "it was put aside as" } else { "replaced under a new id" };
    assert!(log.contains(done), "{log}");
    drop(back);
    for peer in peers {
        peer.shutdown().await;
    }
}

/// Makes every file unreadable.
fn ruin(dir: &Path) {
    for path in files(dir) {
        let length = std::fs::metadata(&path).expect("a file").len() as usize;
        std::fs::write(&path, vec![0xEE; length.max(64)]).expect("writes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_in_sled_is_rebuilt() {
    a_damaged_state_is_rebuilt(Backend::Sled, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ruined_sled_database_is_rebuilt() {
    a_damaged_state_is_rebuilt(Backend::Sled, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_file_is_rebuilt() {
    a_damaged_state_is_rebuilt(Backend::Memory, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ruined_snapshot_files_are_rebuilt() {
    a_damaged_state_is_rebuilt(Backend::Memory, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_of_one_refuses_a_damaged_state_and_keeps_it() {
    for backend in [Backend::Sled, Backend::Memory] {
        let dir = tempfile::tempdir().expect("a directory");
        let peer = start_eager(&[], "127.0.0.1:0", dir.path(), backend).await.expect("starts");
        peer.wait_ready(PATIENCE).await.expect("serves");
        fill_until_purged(&peer, &peer).await;
        peer.shutdown().await;
        ruin(&dir.path().join("state"));
        for _ in 0..2 {
            let error = match start_eager(&[], "127.0.0.1:0", dir.path(), backend).await {
                Err(error) => error,
                Ok(peer) => {
                    let ended = peer.ended().await;
                    peer.shutdown().await;
                    match ended {
                        Ended::Failed(error) => error,
                        Ended::Stopped => panic!("it was not asked to stop"),
                    }
                }
            };
            let text = error.to_string();
            assert!(matches!(error.code, Code::CorruptLog | Code::CorruptRow), "{text}");
            assert!(text.contains("the only copy of") && text.contains("from a backup"), "{backend:?}: {text}");
        }
    }
}
