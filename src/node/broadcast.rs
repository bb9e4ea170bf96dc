//! Broadcasts: one partition task on every partition, each at its leader, under one stamp.
//!
//! A session's numbers are counted in each partition by itself, so the same stamp makes the task
//! run once in each, through whichever peer and however often it is sent.

use super::compute_service::{Broadcast, PartitionAnswer};
use super::grid_node::Node;
use super::router::Router;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::ring;
use crate::types::{
    AckLevel, Op, PartitionId, Reach, ReadLevel, Reply, ReplyBody, Request, SessionStamp, Slot, TaskPayload,
};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Partitions that are asked at once.
const AT_ONCE: usize = 64;

/// Answers that may wait for a slow reader.
const WAITING: usize = 64;

/// A partition with its slots, first and last.
pub(super) type Ranged = (PartitionId, (Slot, Slot));

/// All partitions with their slots.
pub(super) fn partitions(node: &Node) -> Result<Vec<Ranged>> {
    let count = node.directory.view().partitions();
    if count == 0 {
        return Err(Error::new(Code::NotReady, "this peer does not know its grid's partitions yet"));
    }
    let ranged = |id: u32| {
        let slots = ring::slot_range(PartitionId(id), count);
        (PartitionId(id), (Slot(*slots.start()), Slot(*slots.end())))
    };
    Ok((0..count).map(ranged).collect())
}

/// Starts a broadcast; its answers come through the receiver.
pub(super) fn start(node: &Node, request: Broadcast) -> Result<mpsc::Receiver<PartitionAnswer>> {
    let partitions = partitions(node)?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let (router, canceller) = (node.router.clone(), node.canceller.clone());
    clock::spawn(async move {
        let (id, theirs) = (request.id, request.stamp.is_some());
        tokio::select! {
            biased;
            // A client with a session may come back for the answers; any other has given up.
            () = sender.closed() => {
                if !theirs && id != 0 {
                    canceller.cancel(id).await;
                }
            }
            () = run(&router, request, partitions, &sender) => {}
        }
    });
    Ok(receiver)
}

async fn run(
    router: &Arc<Router>,
    request: Broadcast,
    partitions: Vec<Ranged>,
    answers: &mpsc::Sender<PartitionAnswer>,
) {
    let expires = Instant::now() + Duration::from_millis(request.deadline_ms.into());
    let of = partitions.len() as u32;
    let stamped = match request.stamp {
        Some(_) => None,
        None => match router.stamp(Reach::new()) {
            Ok(stamped) => Some(stamped),
            Err(error) => return refuse_all(partitions, &error, answers).await,
        },
    };
    let stamp = match (&request.stamp, &stamped) {
        (Some(stamp), _) => Some(SessionStamp { previous: None, ..stamp.clone() }),
        (None, stamped) => stamped.as_ref().map(|stamped| stamped.stamp()),
    };
    let one = |(partition, slots): Ranged| {
        let op =
            Op::PartitionTask { name: request.name.clone(), slots, payload: request.payload.clone(), id: request.id };
        let request = Request {
            affinity: None,
            op,
            read: ReadLevel::default(),
            ack: AckLevel::default(),
            stamp: stamp.clone(),
            deadline_ms: request.deadline_ms,
        };
        async move { (partition, router.execute_in(partition.group(), request, None, 0, expires).await) }
    };
    let mut running = futures::stream::iter(partitions).map(one).buffer_unordered(AT_ONCE);
    let mut done = 0;
    let mut errors = Vec::new();
    while let Some((partition, reply)) = running.next().await {
        done += 1;
        errors.extend(reply.as_ref().err().cloned());
        let served = reply.as_ref().ok().map(|reply| reply.served.clone());
        let outcome = reply.and_then(answer).map_err(|error| router.for_clients(error));
        if answers.send(PartitionAnswer { partition, done, of, outcome, served }).await.is_err() {
            return;
        }
    }
    if let Some(stamped) = stamped {
        stamped.answered_by_all(errors.iter());
    }
}

async fn refuse_all(partitions: Vec<Ranged>, error: &Error, answers: &mpsc::Sender<PartitionAnswer>) {
    let of = partitions.len() as u32;
    for ((partition, _), done) in partitions.into_iter().zip(1..) {
        let answer = PartitionAnswer { partition, done, of, outcome: Err(error.clone()), served: None };
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

fn answer(reply: Reply) -> Result<TaskPayload> {
    match reply.body {
        ReplyBody::Task(answer) => Ok(answer),
        _ => Err(Error::internal("a task got an answer of another kind")),
    }
}
