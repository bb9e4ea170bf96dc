//! Peers as processes, killed without warning: what was acknowledged is there afterwards.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, addresses, free_ports};
use keystead::client::{Client, ClientConfig};
use keystead::clock;
use keystead::types::{KeyCodec, Value, ValueCodec};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A peer's process; killed with the test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be dead already: that is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(seeds: &[String], at: usize, dir: &Path) -> Peer {
    let name = format!("n{}", at + 1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    command.args(["start", "--name", &name, "--listen", &seeds[at], "--seeds", &seeds.join(",")]);
    command.args(["--partitions", "8", "--data"]).arg(dir.join(&name));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Peer(command.spawn().expect("a peer starts"))
}

async fn connect(seeds: &[String]) -> Client {
    let until = clock::Instant::now() + PATIENCE;
    loop {
        match Client::connect(seeds.to_vec(), ClientConfig::default()).await {
            Ok(client) => return client,
            Err(error) => assert!(clock::Instant::now() < until, "{error}"),
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

/// Tries until the grid answers: it may be forming, or electing.
async fn eventually<T, F: Future<Output = keystead::error::Result<T>>>(what: &str, attempt: impl Fn() -> F) -> T {
    let until = clock::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(clock::Instant::now() < until, "{what}: {error}"),
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_death_of_all_peers_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let mut peers: Vec<Peer> = (0..3).map(|at| start(&seeds, at, dir.path())).collect();
    let client = connect(&seeds).await;
    eventually("the map", || client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0)).await;

    // Eight writers, each with its own keys, until the grid is gone under them.
    let stop = Arc::new(AtomicBool::new(false));
    let total = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (client, stop, total) = (client.clone(), stop.clone(), total.clone());
            clock::spawn(async move {
                let mut acknowledged = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let put =
                        client.put("m", format!("{writer}-{acknowledged}"), Value::utf8(acknowledged.to_string()));
                    match clock::timeout(Duration::from_secs(2), put).await {
                        Ok(Ok(_)) => acknowledged += 1,
                        _ if stop.load(Ordering::Relaxed) => break,
                        _ => continue,
                    }
                    total.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            })
        })
        .collect();
    let until = clock::Instant::now() + PATIENCE;
    while total.load(Ordering::Relaxed) < 500 {
        assert!(clock::Instant::now() < until, "the writers do not get on");
        clock::sleep(Duration::from_millis(10)).await;
    }
    for peer in &mut peers {
        peer.0.kill().expect("SIGKILL");
    }
    stop.store(true, Ordering::Relaxed);
    drop(peers);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.await.expect("the writer ends"));
    }

    let _peers: Vec<Peer> = (0..3).map(|at| start(&seeds, at, dir.path())).collect();
    let client = connect(&seeds).await;
    eventually("the grid", || client.get("m", "0-0")).await;
    for (writer, count) in acknowledged.iter().enumerate() {
        for number in 0..*count {
            let found = client.get("m", format!("{writer}-{number}")).await.expect("gets");
            assert_eq!(
                found.map(|entry| entry.value),
                Some(Value::utf8(number.to_string())),
                "{writer}-{number} is lost"
            );
        }
    }
}
