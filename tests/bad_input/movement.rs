//! Removing and draining where it cannot be done: of who is not there, and where nobody is left to
//! take what a peer holds.
#![allow(clippy::disallowed_methods)]

use crate::common::{PATIENCE, addresses, free_ports};
use crate::process::at;
use keystead::Grid;
use std::time::{Duration, Instant};

/// The first or second of two founders.
async fn start(seeds: &[String], at: usize) -> Grid {
    let builder = Grid::builder().name(&format!("n{}", at + 1)).listen(&seeds[at]).seeds(seeds.iter().cloned());
    builder.partitions(2).memory().start().await.expect("starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_cannot_come_to_an_end_says_so_at_once() {
    let seeds = addresses(&free_ports(2));
    let peers = [start(&seeds, 0).await, start(&seeds, 1).await];
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    for command in ["remove", "drain"] {
        let unknown = at(&seeds[0], &[command, "nobody"]);
        unknown.says(3, &["KS2006", "the grid has no member \"nobody\"", "`keystead members`"]);
    }
    let begun = Instant::now();
    let drained = at(&seeds[0], &["drain", "n2", "--within", "90"]);
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}: {drained:?}", begun.elapsed());
    drained.says(1, &["no peer is left to take the 2 replicas", "start another peer", "`keystead drain n2 --undo`"]);
    let last = at(&seeds[0], &["drain", "n1"]);
    last.says(2, &["KS1001", "no other member is left to take over what this one holds"]);
    let undone = at(&seeds[0], &["drain", "n2", "--undo"]);
    assert!(undone.status == Some(0) && undone.out.contains("active"), "{undone:?}");
    for peer in peers {
        peer.shutdown().await;
    }
}
