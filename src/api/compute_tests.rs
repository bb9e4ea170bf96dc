//! Broadcasts, scatters, job tasks and cancellations over real connections, against a grid in memory.

use super::testing::{FakePeer, World};
use super::tests::channel;
use super::wire::error_from_status;
use crate::client::{Client, ClientConfig, SubmitOptions};
use crate::error::Code;
use crate::types::{JobId, JobState, TaskPayload, ValueCodec};
use bytes::Bytes;
use grid_proto::keystead::v1;
use std::sync::Mutex;
use std::time::Duration;

#[tokio::test]
async fn a_broadcast_streams_each_partitions_answer() {
    use v1::broadcast_reply::Result as Answer;
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    let mut tasks = v1::tasks_client::TasksClient::new(channel(&address).await);
    let payload = v1::Payload { codec: v1::ValueCodec::Json.into(), data: Bytes::from_static(b"7") };
    let stamp = v1::SessionStamp {
        session: 3,
        number: 1,
        lowest_unanswered: 1,
        previous: 0,
        first_sent: 9,
        given_up: Vec::new(),
    };
    let request = v1::BroadcastRequest {
        options: Some(v1::RequestOptions { stamp: Some(stamp), deadline_ms: 250, ..Default::default() }),
        name: "count".into(),
        payload: Some(payload.clone()),
        task_id: 77,
    };
    let mut answers = tasks.broadcast(request.clone()).await.expect("starts").into_inner();
    let first = answers.message().await.expect("a message").expect("an answer");
    assert_eq!((first.partition, first.done, first.of, first.result), (0, 1, 2, Some(Answer::Answer(payload))));
    let second = answers.message().await.expect("a message").expect("an answer");
    assert!(matches!(second.result, Some(Answer::Error(error)) if error.code == "KS4001"));
    assert_eq!(answers.message().await.expect("the end"), None);
    let seen = peer.broadcasts.lock().expect("lock").remove(0);
    assert_eq!((seen.name.as_str(), seen.id, seen.deadline_ms), ("count", 77, 250));
    assert_eq!(seen.stamp.map(|stamp| (stamp.session.0, stamp.number)), Some((3, 1)));

    let status = tasks.broadcast(v1::BroadcastRequest { payload: None, ..request }).await.expect_err("no payload");
    assert_eq!(error_from_status(&status).code, Code::InvalidRequest);
    let told = tasks.cancel(v1::CancelRequest { task_id: 77 }).await.expect("cancels").into_inner();
    assert_eq!((told.told, told.unreachable), (2, 1));
    let status = tasks.cancel(v1::CancelRequest { task_id: 0 }).await.expect_err("names nothing");
    assert_eq!(error_from_status(&status).code, Code::InvalidRequest);
    assert_eq!(*peer.cancelled.lock().expect("lock"), [77]);
}

#[tokio::test]
async fn a_scatter_streams_progress_and_ends() {
    use v1::scatter_reply::End;
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let mut tasks = v1::tasks_client::TasksClient::new(channel(&address).await);
    let payload = v1::Payload { codec: v1::ValueCodec::Json.into(), data: Bytes::from_static(b"7") };
    let request = v1::ScatterRequest {
        name: "count".into(),
        payload: Some(payload.clone()),
        partial: true,
        parts: true,
        ..Default::default()
    };
    let mut events = tasks.scatter(request.clone()).await.expect("starts").into_inner();
    let first = events.message().await.expect("a message").expect("progress");
    assert_eq!((first.done, first.of, first.part.map(|part| part.data)), (1, 2, Some(Bytes::from_static(b"7"))));
    let last = events.message().await.expect("a message").expect("the end");
    let Some(End::Answer(answer)) = last.end else { panic!("{last:?}") };
    assert_eq!((answer.answer, answer.failed.len()), (Some(payload), 1));
    assert_eq!(events.message().await.expect("the end"), None);
    let status = tasks.scatter(v1::ScatterRequest { name: "a b".into(), ..request }).await.expect_err("no name");
    assert_eq!(error_from_status(&status).code, Code::InvalidName);
}

#[tokio::test]
async fn the_client_broadcasts_scatters_and_runs_jobs() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    let client = Client::connect(vec![address], ClientConfig::default()).await.expect("connects");
    let payload = || TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"7") };
    let told = Mutex::new(Vec::new());
    let progress = |progress| told.lock().expect("lock").push(progress);
    let options = SubmitOptions { id: 9, progress: Some(&progress), ..SubmitOptions::default() };
    let answers = client.broadcast("mark", payload(), options).await.expect("answers");
    assert_eq!(answers.len(), 2);
    assert!(answers[0].outcome.is_ok() && answers[1].outcome.is_err());
    assert_eq!(told.lock().expect("lock").len(), 2);
    // Each submission has a number of its own.
    client.broadcast("mark", payload(), SubmitOptions::default()).await.expect("answers");
    let stamps: Vec<_> = peer.broadcasts.lock().expect("lock").iter().map(|seen| seen.stamp.clone()).collect();
    let numbers: Vec<u64> = stamps.into_iter().flatten().map(|stamp| stamp.number).collect();
    assert_eq!(numbers, [1, 2]);
    let error = client.broadcast_typed::<_, u32>("mark", &7).await.expect_err("one failed");
    assert_eq!(error.code, Code::PartitionsFailed);
    assert!(error.what.contains("1 of 2 partitions failed; partition 1: KS4001"), "{error}");

    let answer = client.scatter("count", payload(), true, SubmitOptions::default()).await.expect("answers");
    assert_eq!((answer.answer, answer.failed.len()), (Some(payload()), 1));
    let error = client.scatter_typed::<_, u32>("count", &7).await.expect_err("partitions are missing");
    assert_eq!(error.code, Code::PartitionsFailed);
    let (parts, failed) =
        client.scatter_to_parts::<u32, u32>("count", &7, true, SubmitOptions::default()).await.expect("gives parts");
    assert_eq!((parts, failed.len()), (vec![7], 1));

    let job = client.start_job("rebuild", "k", payload(), Duration::from_secs(5)).await.expect("starts");
    assert_eq!((job.state, job.name.as_str(), job.deadline_ms), (JobState::Queued, "rebuild", 5_001));
    assert_eq!(client.job(job.id).await.expect("is known"), job);
    assert_eq!(client.jobs().await.expect("lists"), vec![job.clone()]);
    let cancelled = client.cancel_job(job.id).await.expect("cancels");
    let ended = client.wait_job(job.id, Duration::from_secs(5), |_| ()).await.expect("has ended");
    assert_eq!((ended.state, &ended), (JobState::Cancelled, &cancelled));
    assert!(matches!(ended.outcome, Some(Err(error)) if error.code == Code::TaskCancelled));
    assert_eq!(client.job(JobId(3)).await.expect_err("unknown").code, Code::NoSuchJob);
    assert_eq!(client.cancel(9).await.expect("cancels").told, 2);
}
