//! One stream to one peer: messages out, replies in, until either side ends it.

use super::core::{LaneKey, LaneKind};
use super::driver::Input;
use super::peers::Peers;
use crate::api::wire;
use crate::error::{Code, Error, Result};
use crate::types::{Reply, Request};
use grid_proto::keystead::v1;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Response, Status, Streaming};

/// Requests on their way into a stream, with the ids that their replies will carry. Unbounded
/// channels carry them: what is in them is bounded by the client's outstanding requests.
pub(super) type Requests = Vec<(u64, Request)>;

/// What a lane's driver keeps of it.
pub(super) enum Outgoing {
    Kv(mpsc::UnboundedSender<v1::KvBatch>),
    Tasks(mpsc::UnboundedSender<v1::TaskBatch>),
}

impl Outgoing {
    /// Sends requests as one message. A lane that has ended drops them; it reports its end.
    pub(super) fn send(&self, requests: Requests) {
        match self {
            Outgoing::Kv(sender) => {
                let one = |(id, request)| v1::KvRequest { id, op: wire::kv_request_to_wire(request) };
                drop(sender.send(v1::KvBatch { requests: requests.into_iter().map(one).collect() }));
            }
            Outgoing::Tasks(sender) => {
                let one = |(id, request)| v1::TaskRequest { id, submit: wire::task_request_to_wire(request) };
                drop(sender.send(v1::TaskBatch { requests: requests.into_iter().map(one).collect() }));
            }
        }
    }
}

/// The two ends of a new lane: what the driver keeps, and the task to spawn.
pub(super) fn open(
    peers: Arc<Peers>,
    lane: LaneKey,
    epoch: u64,
    inputs: mpsc::UnboundedSender<Input>,
) -> (Outgoing, impl Future<Output = ()> + Send + 'static) {
    let (outgoing, batches) = match lane.1 {
        LaneKind::Kv => {
            let (sender, receiver) = mpsc::unbounded_channel();
            (Outgoing::Kv(sender), Batches::Kv(receiver))
        }
        LaneKind::Tasks => {
            let (sender, receiver) = mpsc::unbounded_channel();
            (Outgoing::Tasks(sender), Batches::Tasks(receiver))
        }
    };
    let task = async move {
        let mut connected = false;
        let ended = run(&peers, &lane, epoch, batches, &inputs, &mut connected).await;
        let error = ended.err().unwrap_or_else(|| Error::new(Code::PeerUnreachable, "the peer ended the stream"));
        peers.forget(&lane.0);
        let place = lane.0.to_string();
        drop(inputs.send(Input::LaneDown { lane, epoch, error: error.at(place), connected }));
    };
    (outgoing, task)
}

enum Batches {
    Kv(mpsc::UnboundedReceiver<v1::KvBatch>),
    Tasks(mpsc::UnboundedReceiver<v1::TaskBatch>),
}

async fn run(
    peers: &Peers,
    lane: &LaneKey,
    epoch: u64,
    batches: Batches,
    inputs: &mpsc::UnboundedSender<Input>,
    connected: &mut bool,
) -> Result<()> {
    peers.channel(&lane.0).await?;
    *connected = true;
    match batches {
        Batches::Kv(receiver) => {
            let opened = peers.kv(&lane.0).await?.exchange(UnboundedReceiverStream::new(receiver)).await;
            receive(opened, lane, epoch, inputs, |batch: v1::KvBatchReply| {
                batch.replies.into_iter().map(|reply| (reply.id, wire::kv_reply_from_wire(reply.result))).collect()
            })
            .await
        }
        Batches::Tasks(receiver) => {
            let opened = peers.tasks(&lane.0).await?.exchange(UnboundedReceiverStream::new(receiver)).await;
            receive(opened, lane, epoch, inputs, |batch: v1::TaskBatchReply| {
                batch.replies.into_iter().map(|reply| (reply.id, wire::task_reply_from_wire(reply.result))).collect()
            })
            .await
        }
    }
}

async fn receive<M>(
    opened: Result<Response<Streaming<M>>, Status>,
    lane: &LaneKey,
    epoch: u64,
    inputs: &mpsc::UnboundedSender<Input>,
    replies: fn(M) -> Vec<(u64, Result<Reply>)>,
) -> Result<()> {
    let failed = |status: Status| wire::error_from_status(&status);
    let mut stream = opened.map_err(failed)?.into_inner();
    while let Some(message) = stream.message().await.map_err(failed)? {
        let input = Input::Replies { lane: lane.clone(), epoch, replies: replies(message) };
        if inputs.send(input).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
