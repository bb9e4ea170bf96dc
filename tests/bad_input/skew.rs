//! A peer whose clock is wrong: reported from 500 ms on, no leader from 10 s on.

use crate::common::{PATIENCE, addresses, free_ports, start_peer};
use keystead::Grid;
use keystead::clock::{self, Instant, WallClock};
use keystead::node::{GridService, Ports};
use keystead::types::{KeyCodec, Value, ValueCodec};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The machine's clock, so many milliseconds ahead.
#[derive(Clone)]
struct Ahead(Arc<AtomicU64>, Arc<dyn WallClock>);

impl WallClock for Ahead {
    fn unix_ms(&self) -> u64 {
        self.1.unix_ms() + self.0.load(Ordering::SeqCst)
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < give_up, "{what} did not come");
        clock::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_wrong_clock_is_reported_and_leads_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let ports = Ports::with_backend(keystead::config::Backend::Sled, None);
    let ahead = Arc::new(AtomicU64::new(2_000));
    let ports = Ports { clock: Arc::new(Ahead(ahead.clone(), ports.clock.clone())), ..ports };
    let builder = Grid::builder().name("n1").listen(&seeds[0]).seeds(seeds.iter().cloned()).partitions(4);
    let wrong = builder.data(dir.path().join("n1")).ports(ports).start().await.expect("starts");
    let others = [start_peer(&seeds, 1, dir.path(), 4).await, start_peer(&seeds, 2, dir.path(), 4).await];
    for peer in [&wrong, &others[0], &others[1]] {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    let client = others[0].client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    client.put("m", "k", Value::utf8("v")).await.expect("puts");

    // Two seconds are reported, and nothing else.
    let metric = |peer: &Grid| -> f64 {
        let text = peer.node().metrics();
        let line = text.lines().find_map(|line| line.strip_prefix("keystead_clock_offset_ms "));
        line.and_then(|value| value.parse().ok()).expect("the metric")
    };
    until("the report", async || metric(&wrong) > 1_500.0).await;
    assert!(wrong.node().ready().is_ok() && metric(&others[0]) < 500.0);

    ahead.store(60_000, Ordering::SeqCst);
    until("the end of its leaderships", async || {
        let partitions = others[0].node().partitions().await.unwrap_or_default();
        partitions.iter().all(|partition| partition.leader.as_deref().is_some_and(|leader| leader != "n1"))
    })
    .await;
    until("the reason", async || wrong.node().ready().is_err()).await;
    let why = wrong.node().ready().expect_err("is not fit");
    assert!(why.contains("KS3012") && why.contains("off the members' median") && why.contains("set it"), "{why}");
    let members = others[1].node().members().await.expect("members");
    let note = members.iter().find(|member| member.name == "n1").and_then(|member| member.trouble.clone());
    assert!(note.is_some_and(|note| note.contains("clock")), "{members:?}");
    client.put("m", "k", Value::utf8("w")).await.expect("the others go on");
    assert_eq!(client.get("m", "k").await.expect("gets").expect("is there").value, Value::utf8("w"));

    ahead.store(0, Ordering::SeqCst);
    wrong.wait_ready(PATIENCE).await.expect("is fit again");
    wrong.shutdown().await;
    for peer in others {
        peer.shutdown().await;
    }
}
