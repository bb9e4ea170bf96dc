//! What runs in partitions' turns: broadcasts, and tasks that are cancelled.

use crate::grid::{Latch, PARTITIONS, fill, json, marks, start_three, until};
use grid_proto::keystead::v1;
use keystead::client::{Progress, SubmitOptions};
use keystead::compute::count_entries;
use keystead::error::Code;
use keystead::node::GridService;
use keystead::types::Value;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_sees_nothing_of_one_before_it_that_is_undone() {
    let dir = tempfile::tempdir().expect("a directory");
    let latch = Latch::default();
    let (_, peers) = start_three(dir.path(), &latch).await;
    let client = peers[0].client().await.expect("connects");
    fill(&client, 1).await;
    // While one task holds the partition, others gather behind it and run in one go.
    let first = client.submit::<_, ()>("hold", "{s}:held", &1_i64);
    let rest = async {
        until("the task runs", || latch.came() == 1).await;
        let spoil = |_| client.submit::<_, ()>("spoil", "{s}:a", &1_u64);
        let look = |_| client.submit::<_, bool>("look", "{s}:c", &"{s}:a");
        let pairs = futures::future::join_all((0..20).map(|number| futures::future::join(spoil(number), look(number))));
        // No event tells that they wait: were this too short, they would only run by themselves.
        let open = async {
            keystead::clock::sleep(std::time::Duration::from_millis(300)).await;
            latch.open();
        };
        tokio::join!(pairs, open).0
    };
    let (held, pairs) = tokio::join!(first, rest);
    held.expect("runs");
    for (spoiled, seen) in pairs {
        assert_eq!(spoiled.expect_err("is not a number").code, Code::WrongCodec);
        assert!(!seen.expect("runs"), "it saw what was never written");
    }
    assert_eq!(client.get("m", "{s}:a").await.expect("gets"), None);
    assert_eq!(client.get("m", "{s}:c").await.expect("gets").expect("is there").value, Value::i64(0));
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_caller_has_gone_is_undone() {
    let dir = tempfile::tempdir().expect("a directory");
    let latch = Latch::default();
    let (_, peers) = start_three(dir.path(), &latch).await;
    let client = peers[0].client().await.expect("connects");
    fill(&client, 1).await;
    // Without a session nobody can come back for the answer.
    let endpoint = format!("http://{}", peers[0].address());
    let mut tasks = v1::tasks_client::TasksClient::connect(endpoint).await.expect("connects");
    let payload = v1::Payload { codec: v1::ValueCodec::Json.into(), data: "500".into() };
    let submit =
        v1::SubmitRequest { name: "hold".into(), key: "k0".into(), payload: Some(payload), ..Default::default() };
    tokio::select! {
        answer = tasks.submit(submit) => panic!("{answer:?}"),
        () = until("the task runs", || latch.came() > 0) => {}
    }
    // The call was dropped with the `select`; every peer is told.
    let told = |peer: &keystead::Grid| peer.node().metrics().contains("keystead_task_cancellations_total 1");
    until("the peers know", || peers.iter().all(told)).await;
    latch.open();
    let entry = client.get("m", "k0").await.expect("gets").expect("is there");
    assert_eq!(entry.value, Value::i64(0), "it was undone");
    for peer in peers {
        peer.shutdown().await;
    }
}
