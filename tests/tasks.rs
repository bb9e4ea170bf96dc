//! User code on a grid of three peers in one process: on all partitions, beside them, and what
//! becomes of it when a peer is lost or somebody cancels.
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, addresses, free_ports};
use keystead::Grid;
use keystead::client::{Client, Progress, SubmitOptions};
use keystead::clock;
use keystead::compute::{Cursor, PartitionContext, TaskContext, TaskError, count_entries};
use keystead::error::Code;
use keystead::types::{KeyCodec, TaskPayload, Value, ValueCodec};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const PARTITIONS: u32 = 8;

/// Holds handlers until the test opens it, and counts those that came.
#[derive(Clone, Default)]
struct Latch(Arc<(Mutex<(bool, u32)>, Condvar)>);

impl Latch {
    fn wait(&self) {
        let mut state = self.0.0.lock().expect("not poisoned");
        state.1 += 1;
        while !state.0 {
            state = self.0.1.wait(state).expect("not poisoned");
        }
    }

    fn open(&self) {
        self.0.0.lock().expect("not poisoned").0 = true;
        self.0.1.notify_all();
    }

    fn came(&self) -> u32 {
        self.0.0.lock().expect("not poisoned").1
    }
}

fn json(text: &str) -> TaskPayload {
    TaskPayload { codec: ValueCodec::Json, data: text.to_owned().into() }
}

/// Puts a mark beside each entry of the map, and counts its runs in the partition.
fn mark(context: &mut PartitionContext<'_, '_>, mark: String) -> Result<u64, TaskError> {
    let mut cursor = Cursor::default();
    let mut seen = 0;
    while !cursor.ended() {
        for (key, _) in context.page("m", &mut cursor, 3)? {
            let count = context.get::<u64>("marks", &key)?.unwrap_or(0);
            context.put("marks", &key, &(count + 1))?;
            seen += 1;
        }
    }
    if mark == "fail" && context.slots().0.0 == 0 {
        return Err(TaskError::new("not-here", "the first partition does not want to"));
    }
    Ok(seen)
}

async fn start(seeds: &[String], at: usize, dir: &Path, latch: &Latch) -> Grid {
    let latch = latch.clone();
    let hold = move |context: &mut TaskContext<'_>, value: i64| {
        let key = context.key().to_vec();
        context.put_value("m", &key, Value::i64(value))?;
        latch.wait();
        Ok(())
    };
    Grid::builder()
        .name(&format!("n{}", at + 1))
        .listen(&seeds[at])
        .seeds(seeds.iter().cloned())
        .data(dir.join(format!("n{}", at + 1)))
        .partitions(PARTITIONS)
        .partition_task("mark", mark)
        .task("hold", hold)
        .start()
        .await
        .expect("starts")
}

async fn start_three(dir: &Path, latch: &Latch) -> (Vec<String>, Vec<Grid>) {
    let seeds = addresses(&free_ports(3));
    let mut peers = Vec::new();
    for at in 0..3 {
        peers.push(start(&seeds, at, dir, latch).await);
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    (seeds, peers)
}

async fn fill(client: &Client, count: u64) {
    client.create_map("m", KeyCodec::Utf8, ValueCodec::I64, 0).await.expect("creates");
    client.create_map("marks", KeyCodec::Utf8, ValueCodec::Msgpack, 0).await.expect("creates");
    for i in 0..count {
        client.put("m", format!("k{i}"), Value::i64(i as i64)).await.expect("puts");
    }
}

async fn marks(client: &Client, count: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for i in 0..count {
        let entry = client.get("marks", format!("k{i}")).await.expect("gets");
        found.push(entry.map_or(0, |entry| rmp_serde::from_slice(&entry.value.data).expect("a count")));
    }
    found
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = clock::Instant::now() + PATIENCE;
    while !holds() {
        assert!(clock::Instant::now() < give_up, "never: {what}");
        clock::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_runs_once_on_each_partition() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, mut peers) = start_three(dir.path(), &Latch::default()).await;
    let client = peers[0].client().await.expect("connects");
    fill(&client, 100).await;
    let counts: Vec<(_, count_entries::Output)> =
        client.broadcast_typed(count_entries::NAME, &count_entries::Input { map: "m".into() }).await.expect("counts");
    assert_eq!(counts.len(), PARTITIONS as usize);
    assert_eq!(counts.iter().map(|(_, count)| count.entries).sum::<u64>(), 100);

    // Progress comes as the partitions answer, and every entry is marked by its own partition.
    let most = AtomicU32::new(0);
    let progress = |progress: Progress| {
        assert_eq!(progress.of, PARTITIONS);
        most.fetch_max(progress.done, Ordering::SeqCst);
    };
    let options = SubmitOptions { progress: Some(&progress), ..SubmitOptions::default() };
    let answers = client.broadcast("mark", json("\"x\""), options).await.expect("marks");
    assert!(answers.iter().all(|answer| answer.outcome.is_ok()), "{answers:?}");
    assert_eq!(most.load(Ordering::SeqCst), PARTITIONS);
    assert_eq!(marks(&client, 100).await, vec![1; 100]);

    // A failing partition undoes what it wrote and says why; the others have done it.
    let answers = client.broadcast("mark", json("\"fail\""), SubmitOptions::default()).await.expect("answers");
    let failed: Vec<_> = answers.iter().filter(|answer| answer.outcome.is_err()).collect();
    assert_eq!(failed.len(), 1);
    let error = failed[0].outcome.as_ref().expect_err("an error");
    assert_eq!((error.code, failed[0].partition.0), (Code::TaskFailed, 0));
    assert!(error.what.contains("the first partition does not want to"), "{error}");
    let twice = marks(&client, 100).await.into_iter().filter(|count| *count == 2).count() as u64;
    assert_eq!(twice, 100 - counts[0].1.entries);

    // One peer goes; every partition still runs it once.
    let gone = peers.remove(1).shutdown();
    let (answers, ()) = tokio::join!(client.broadcast("mark", json("\"x\""), SubmitOptions::default()), gone);
    assert!(answers.expect("answers").iter().all(|answer| answer.outcome.is_ok()));
    let three = marks(&client, 100).await.iter().sum::<u64>();
    assert_eq!(three, 100 + twice + 100);

    let error = client.broadcast_typed::<_, ()>("mark", &7).await.expect_err("refused");
    assert!(error.what.contains("it is the number 7, and must be text"), "{error}");
    let error = client.submit::<_, ()>("mark", "k", &"x").await.expect_err("refused");
    assert_eq!(error.code, Code::InvalidRequest);
    assert!(error.what.contains("a partition task") && error.remedy.contains("keystead broadcast"), "{error}");
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_task_leaves_nothing_behind() {
    static ID: AtomicU64 = AtomicU64::new(77);
    let dir = tempfile::tempdir().expect("a directory");
    let latch = Latch::default();
    let (_, peers) = start_three(dir.path(), &latch).await;
    let client = peers[0].client().await.expect("connects");
    fill(&client, 1).await;
    // While it runs: it comes to its end, and nothing of it is kept.
    let (running, canceller) = (client.clone(), peers[2].client().await.expect("connects"));
    let id = ID.fetch_add(1, Ordering::SeqCst);
    let run = running.task_with_id("hold", "k0", json("500"), id);
    let cancel = async {
        until("the task runs", || latch.came() == 1).await;
        let report = canceller.cancel(id).await.expect("cancels");
        assert_eq!((report.told, report.unreachable), (3, 0));
        latch.open();
    };
    let error = tokio::join!(run, cancel).0.expect_err("was cancelled");
    assert_eq!(error.code, Code::TaskCancelled, "{error}");
    let value = |entry: Option<keystead::types::StoredValue>| entry.map(|entry| entry.value);
    assert_eq!(value(client.get("m", "k0").await.expect("gets")), Some(Value::i64(0)), "it was undone");

    // Before it runs: it never does.
    let id = ID.fetch_add(1, Ordering::SeqCst);
    canceller.cancel(id).await.expect("cancels");
    let error = client.task_with_id("hold", "k0", json("501"), id).await.expect_err("was cancelled");
    assert_eq!((error.code, latch.came()), (Code::TaskCancelled, 1));
    // After it was committed: its answer stands.
    let id = ID.fetch_add(1, Ordering::SeqCst);
    client.task_with_id("hold", "k0", json("502"), id).await.expect("runs");
    canceller.cancel(id).await.expect("cancels");
    assert_eq!(value(client.get("m", "k0").await.expect("gets")), Some(Value::i64(502)));
    assert_eq!(canceller.cancel(0).await.expect_err("names nothing").code, Code::InvalidRequest);
    for peer in peers {
        peer.shutdown().await;
    }
}
