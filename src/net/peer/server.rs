//! The answering side of a stream: greets, hands frames to the handler, sends answers back.

use super::error_codec::encode_error;
use super::pack::{Queued, packed};
use super::transport::Context;
use super::{IncomingFrame, PeerEvent, PeerHandler, PeerIdentity};
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::types::GroupId;
use bytes::Bytes;
use futures::{Stream, StreamExt, future, stream};
use grid_proto::keystead::peer::v1::peer_server::Peer;
use grid_proto::keystead::peer::v1::response_frame::Outcome;
use grid_proto::keystead::peer::v1::{
    RequestFrame, ResponseFrame, Responses, ToCallee, ToCaller, to_callee, to_caller,
};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming};

type Answers = mpsc::UnboundedSender<Queued<ResponseFrame, OwnedSemaphorePermit>>;

/// The gRPC service that peers call.
pub struct PeerService {
    context: Arc<Context>,
    handler: Arc<dyn PeerHandler>,
}

impl PeerService {
    pub(super) fn new(context: Arc<Context>, handler: Arc<dyn PeerHandler>) -> Self {
        PeerService { context, handler }
    }

    async fn greeted(&self, me: &PeerIdentity, inbound: &mut Streaming<ToCallee>) -> Result<PeerIdentity> {
        if self.context.stop.is_cancelled() {
            return Err(Error::new(Code::ShuttingDown, "this peer is shutting down"));
        }
        let first = clock::timeout(self.context.config.connect_timeout, inbound.message()).await;
        match first {
            Ok(Ok(Some(ToCallee { content: Some(to_callee::Content::Greeting(greeting)) }))) => me.accept(&greeting),
            _ => Err(Error::new(Code::ProtocolMismatch, "the caller did not greet")),
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<ToCaller, Status>> + Send>>;

    async fn exchange(&self, request: Request<Streaming<ToCallee>>) -> Result<Response<Self::ExchangeStream>, Status> {
        let me = (self.context.me)();
        let mut inbound = request.into_inner();
        let from = self.greeted(&me, &mut inbound).await.map_err(|error| {
            tracing::debug!(%error, "a peer was refused");
            Status::with_details(tonic::Code::from_i32(error.code.grpc()), error.to_string(), encode_error(&error))
        })?;
        let (answers, queue) = mpsc::unbounded_channel();
        let greeting = ToCaller { content: Some(to_caller::Content::Greeting(me.greeting())) };
        let responses = packed(queue, self.context.config.pack_bytes)
            .map(|frames| ToCaller { content: Some(to_caller::Content::Responses(Responses { frames })) });
        let session = Session {
            context: self.context.clone(),
            handler: self.handler.clone(),
            me,
            from: Arc::new(from),
            answers,
            room: Arc::new(Semaphore::new(self.context.config.max_handlers)),
        };
        clock::spawn(session.run(inbound));
        Ok(Response::new(Box::pin(stream::once(future::ready(greeting)).chain(responses).map(Ok))))
    }
}

/// One peer's stream.
struct Session {
    context: Arc<Context>,
    handler: Arc<dyn PeerHandler>,
    /// What was said of oneself in the greeting.
    me: PeerIdentity,
    from: Arc<PeerIdentity>,
    /// Bounded by `room`: a permit travels with each answer until it is packed.
    answers: Answers,
    room: Arc<Semaphore>,
}

impl Session {
    async fn run(self, mut inbound: Streaming<ToCallee>) {
        loop {
            let message = tokio::select! {
                biased;
                () = self.context.stop.cancelled() => return,
                () = self.answers.closed() => break,
                message = inbound.message() => message,
            };
            let Ok(Some(ToCallee { content: Some(to_callee::Content::Requests(requests)) })) = message else { break };
            for frame in requests.frames {
                self.take(frame).await;
            }
            // The caller must see the new greeting: its next call makes a new connection.
            if (self.context.me)() != self.me {
                return;
            }
        }
        self.context.notify(PeerEvent::Lost(self.from.node));
    }

    /// Starts a frame's handler; waits while too many run, so that more stay on the wire.
    async fn take(&self, frame: RequestFrame) {
        let Ok(permit) = self.room.clone().acquire_owned().await else { return };
        let kind = frame.kind as u8;
        self.context.stats.received(kind, frame.payload.len());
        let refused = (self.context.me)().same_grid(&self.from).err();
        let (context, answers, id) = (self.context.clone(), self.answers.clone(), frame.id);
        let handling = handle(self.handler.clone(), self.from.clone(), frame, refused);
        clock::spawn(async move {
            let (outcome, bytes) = match handling.await {
                Ok(payload) => (Outcome::Payload(payload.clone()), payload.len()),
                Err(error) => (Outcome::Error(encode_error(&error)), 0),
            };
            context.stats.sent(kind, bytes);
            let frame = ResponseFrame { id, outcome: Some(outcome) };
            // A caller that has gone needs no answer.
            drop(answers.send(Queued { frame, bytes, _held: permit }));
        });
    }
}

async fn handle(
    handler: Arc<dyn PeerHandler>,
    from: Arc<PeerIdentity>,
    frame: RequestFrame,
    refused: Option<Error>,
) -> Result<Bytes> {
    if let Some(error) = refused {
        return Err(error);
    }
    let Ok(kind) = u8::try_from(frame.kind) else {
        return Err(Error::new(Code::ProtocolMismatch, format!("unknown kind of frame {}", frame.kind)));
    };
    let deadline = Duration::from_millis(u64::from(frame.deadline_ms));
    let frame = IncomingFrame { group: GroupId(frame.group), kind, deadline, payload: frame.payload };
    match clock::timeout(deadline, handler.handle(&from, frame)).await {
        Ok(answer) => answer,
        Err(clock::Elapsed) => Err(Error::new(Code::DeadlineExceeded, "the call was not answered in time")),
    }
}
