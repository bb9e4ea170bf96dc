//! Job tasks: their states, progress, cancelling, time, and a leader that goes.

use crate::common::PATIENCE;
use crate::grid::{Latch, fill, json, start_three};
use keystead::client::Client;
use keystead::error::Code;
use keystead::types::{JobId, JobInfo, JobState, KeyCodec, Value, ValueCodec};
use std::time::Duration;

async fn ended(client: &Client, id: JobId) -> JobInfo {
    client.wait_job(id, PATIENCE, |_| ()).await.expect("ends")
}

async fn start(client: &Client, name: &str, key: &str, payload: &str, time: Duration) -> JobInfo {
    client.start_job(name, key, json(payload), time).await.expect("starts")
}

async fn seen(client: &Client, id: JobId, holds: impl Fn(&JobInfo) -> bool) -> JobInfo {
    let until = keystead::clock::Instant::now() + PATIENCE;
    loop {
        let job = client.job(id).await.expect("is known");
        if holds(&job) {
            return job;
        }
        assert!(keystead::clock::Instant::now() < until, "never: {job:?}");
        keystead::clock::sleep(Duration::from_millis(20)).await;
    }
}

fn error(job: &JobInfo) -> &keystead::error::Error {
    job.outcome.as_ref().expect("an outcome").as_ref().expect_err("an error")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_beside_its_partition_and_ends_in_one_of_its_states() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, peers) = start_three(dir.path(), &Latch::default()).await;
    let client = peers[0].client().await.expect("connects");
    fill(&client, 40).await;
    client.create_map("copies", KeyCodec::Utf8, ValueCodec::I64, 0).await.expect("creates");
    let copied: u64 = client.run_job("copy", "k1", &0u64, PATIENCE).await.expect("copies");
    assert!(copied > 0);
    assert_eq!(client.get("copies", "k1").await.expect("gets").expect("was copied").value, Value::i64(2));

    // It says how far it is, is cancelled, and ends as asked.
    let job = start(&client, "hang", "k1", "\"kindly\"", PATIENCE).await;
    assert_eq!((job.state, job.attempt), (JobState::Queued, 0));
    let running = seen(&client, job.id, |job| job.permille == 250).await;
    assert_eq!((running.state, running.text.as_str(), running.attempt), (JobState::Running, "hanging", 1));
    assert!(client.jobs().await.expect("lists").iter().any(|listed| listed.id == job.id));
    client.cancel_job(job.id).await.expect("cancels");
    let cancelled = ended(&client, job.id).await;
    assert_eq!((cancelled.state, error(&cancelled).code), (JobState::Cancelled, Code::TaskCancelled));

    // One that does not heed it is dropped; one that takes too long overruns; one panics.
    let job = start(&client, "hang", "k2", "\"stubbornly\"", PATIENCE).await;
    seen(&client, job.id, |job| job.state == JobState::Running).await;
    client.cancel_job(job.id).await.expect("cancels");
    assert_eq!(ended(&client, job.id).await.state, JobState::Cancelled);
    let job = start(&client, "hang", "k2", "\"kindly\"", Duration::from_millis(300)).await;
    let late = ended(&client, job.id).await;
    assert_eq!((late.state, error(&late).code), (JobState::Failed, Code::TaskOverrun));
    let job = start(&client, "hang", "k3", "\"panic\"", PATIENCE).await;
    let panicked = ended(&client, job.id).await;
    assert_eq!(error(&panicked).code, Code::TaskPanicked);
    assert!(error(&panicked).what.contains("ouch"));
    let job = start(&client, "hang", "k3", "7", PATIENCE).await;
    assert_eq!(error(&ended(&client, job.id).await).code, Code::TaskCodec);
    let job = start(&client, "no-such-job", "k3", "7", PATIENCE).await;
    assert_eq!(error(&ended(&client, job.id).await).code, Code::NoSuchTask);
    let refused = client.start_job("word-count", "k", json("7"), PATIENCE).await.expect_err("a scatter");
    assert!(refused.code == Code::InvalidRequest && refused.remedy.contains("keystead scatter"), "{refused}");
    assert_eq!(client.job(JobId(5)).await.expect_err("unknown").code, Code::NoSuchJob);
    for peer in peers {
        peer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_leader_goes_is_begun_again_on_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, mut peers) = start_three(dir.path(), &Latch::default()).await;
    let client = peers[0].client().await.expect("connects");
    fill(&client, 60).await;
    client.create_map("copies", KeyCodec::Utf8, ValueCodec::I64, 0).await.expect("creates");
    let job = start(&client, "copy", "k1", "300", PATIENCE).await;
    let running = seen(&client, job.id, |job| job.permille == 500).await;
    let at = peers.iter().position(|peer| Some(peer.node().id()) == running.node).expect("one of the peers");
    let gone = peers.remove(at);
    let client = peers[0].client().await.expect("connects");
    gone.shutdown().await;
    let done = ended(&client, job.id).await;
    assert_eq!(done.state, JobState::Done, "{done:?}");
    assert!(done.attempt >= 2 && done.node != running.node, "{done:?}");
    assert_eq!(client.get("copies", "k1").await.expect("gets").expect("was copied").value, Value::i64(2));
    for peer in peers {
        peer.shutdown().await;
    }
}
