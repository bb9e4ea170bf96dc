//! One bidirectional stream: many requests in flight, replies in the order in which they are ready.
//!
//! In: messages that carry batches. Out: messages that carry whatever was ready when the sender
//! got to it. Requests are started in the order of the stream, so that a client's writes to a key
//! reach the grid in its order; at most `stream_in_flight` run at once, the rest waits unread in
//! the network. Ends when the client ends it and all is answered, when the client is gone, or when
//! it has taken no reply for too long: then what waits for it is thrown away.

use super::Edge;
use super::guard::{overloaded, said_by_transport};
use super::under_way::UnderWay;
use super::wire;
use crate::clock;
use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::types::{Reply, Request};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Status, Streaming};

/// Messages of replies that may wait for a slow client before its requests are held back.
const WAITING_MESSAGES: usize = 4;
/// Replies that may be on their way to one client, in bytes, going by what its last ones took: a
/// client that reads slowly, or not at all, holds no more than about this and the messages above.
const UNDER_WAY_BYTES: usize = 4 << 20;
/// What a reply is taken for before the first.
const FIRST_GUESS_BYTES: usize = 32 << 10;

/// What a stream carries.
pub(super) trait Lane: Send + 'static {
    /// A message from the client.
    type In: Send + 'static;
    /// A message to the client.
    type Out: Send + 'static;
    /// One request's id and what its reply must look like.
    type Tag: Send + 'static;
    /// One reply.
    type Item: Send + 'static;

    /// The requests of a message, checked.
    fn split(message: Self::In, limits: &Limits) -> Vec<(Self::Tag, Result<Request>)>;
    /// The reply to one request.
    fn item(tag: &Self::Tag, outcome: Result<Reply>) -> Self::Item;
    /// Bytes that a reply takes.
    fn size(item: &Self::Item) -> usize;
    /// A message of replies.
    fn join(items: Vec<Self::Item>) -> Self::Out;
}

/// What waits for a client, or why it was given up.
enum Waiting<T> {
    Open(mpsc::Receiver<Result<T, Status>>),
    GivenUp(Option<Status>),
}

/// A stream's replies. Both ends can reach what waits, so that a client that takes nothing loses it.
pub(super) struct Replies<T>(Arc<Mutex<Waiting<T>>>);

impl<T> futures::Stream for Replies<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Waiting::Open(receiver) => receiver.poll_recv(context),
            Waiting::GivenUp(status) => Poll::Ready(status.take().map(Err)),
        }
    }
}

/// Serves one stream.
///
/// # Errors
/// `Overloaded` when this peer serves as many as it may.
pub(super) fn serve<L: Lane>(inbound: Streaming<L::In>, edge: Edge) -> Result<Replies<L::Out>, Status> {
    let place = edge.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| wire::status(&overloaded(edge.limits.max_streams, "streams open")))?;
    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
    let waiting = Arc::new(Mutex::new(Waiting::Open(receiver)));
    clock::spawn(keep::<L>(inbound, edge, sender, waiting.clone(), place));
    Ok(Replies(waiting))
}

/// Runs a stream to its end; its place is free then.
async fn keep<L: Lane>(
    inbound: Streaming<L::In>,
    edge: Edge,
    sender: mpsc::Sender<Result<L::Out, Status>>,
    waiting: Arc<Mutex<Waiting<L::Out>>>,
    _place: OwnedSemaphorePermit,
) {
    let slow_ms = edge.limits.slow_client_ms;
    if run::<L>(inbound, edge, sender).await == Ended::TakesNothing {
        let what = format!("the client has taken no reply for {slow_ms} ms; its stream is closed");
        tracing::warn!("{what}");
        let error = Error::new(Code::Overloaded, what).remedy("read the stream, and open a new one");
        *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::GivenUp(Some(wire::status(&error)));
    }
}

/// How a stream ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// As it should, or with the client.
    Done,
    /// The client is there and reads nothing.
    TakesNothing,
}

async fn run<L: Lane>(
    mut inbound: Streaming<L::In>,
    edge: Edge,
    sender: mpsc::Sender<Result<L::Out, Status>>,
) -> Ended {
    let slow = Duration::from_millis(edge.limits.slow_client_ms.into());
    let limits = edge.limits.clone();
    let mut running = UnderWay::<L>::new(edge);
    let mut backlog = VecDeque::new();
    let mut open = true;
    let mut usual = FIRST_GUESS_BYTES;
    while open || !running.is_empty() || !backlog.is_empty() {
        let at_once = (UNDER_WAY_BYTES / usual.max(1)).clamp(1, limits.stream_in_flight);
        while running.len() < at_once
            && let Some((tag, request)) = backlog.pop_front()
        {
            running.begin(tag, request);
        }
        tokio::select! {
            biased;
            () = sender.closed() => return Ended::Done,
            (first, mut bytes) = running.next(), if !running.is_empty() => {
                let mut items = vec![first];
                while items.len() < limits.stream_reply_batch
                    && bytes < limits.stream_reply_bytes
                    && let Some((item, more)) = running.ready()
                {
                    items.push(item);
                    bytes += more;
                }
                // Large replies count at once, small ones little by little.
                let mean = bytes / items.len();
                usual = mean.max((7 * usual + mean) / 8);
                match clock::timeout(slow, sender.send(Ok(L::join(items)))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ended::Done,
                    Err(clock::Elapsed) => return Ended::TakesNothing,
                }
            }
            message = inbound.message(), if open && backlog.is_empty() && running.len() < at_once => {
                match message {
                    Ok(Some(message)) => backlog.extend(L::split(message, &limits)),
                    Ok(None) => open = false,
                    // The message could not be decoded or the connection broke: say so if anyone
                    // still listens, and end the stream, since ids may have been lost.
                    Err(status) => {
                        let status = said_by_transport(&status).map_or(status, |error| wire::status(&error));
                        drop(sender.try_send(Err(status)));
                        return Ended::Done;
                    }
                }
            }
        }
    }
    Ended::Done
}
