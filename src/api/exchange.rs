//! One bidirectional stream: many requests in flight, replies in the order in which they are ready.
//!
//! In: messages that carry batches. Out: messages that carry whatever was ready when the sender
//! got to it. Requests are started in the order of the stream, so that a client's writes to a key
//! reach the grid in its order; at most `stream_in_flight` run at once, the rest waits unread in
//! the network. Ends when the client ends it and all is answered, or when the client is gone.

use super::Edge;
use crate::clock;
use crate::config::Limits;
use crate::error::Result;
use crate::types::{Reply, Request};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::collections::VecDeque;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages of replies that may wait for a slow client before its requests are held back.
const WAITING_MESSAGES: usize = 16;

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

/// Serves one stream.
pub(super) fn serve<L: Lane>(inbound: Streaming<L::In>, edge: Edge) -> ReceiverStream<Result<L::Out, Status>> {
    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
    clock::spawn(run::<L>(inbound, edge, sender));
    ReceiverStream::new(receiver)
}

/// A reply and its size.
async fn execute<L: Lane>(edge: Edge, tag: L::Tag, request: Result<Request>) -> (L::Item, usize) {
    let outcome = match request {
        Ok(request) => edge.execute(request).await,
        Err(error) => Err(error),
    };
    let item = L::item(&tag, outcome);
    let bytes = L::size(&item);
    match edge.check_answer(bytes) {
        Ok(()) => (item, bytes),
        Err(error) => (L::item(&tag, Err(error)), 0),
    }
}

async fn run<L: Lane>(mut inbound: Streaming<L::In>, edge: Edge, sender: mpsc::Sender<Result<L::Out, Status>>) {
    let limits = edge.limits.clone();
    let mut running = FuturesUnordered::new();
    let mut backlog = VecDeque::new();
    let mut open = true;
    while open || !running.is_empty() || !backlog.is_empty() {
        while running.len() < limits.stream_in_flight
            && let Some((tag, request)) = backlog.pop_front()
        {
            running.push(execute::<L>(edge.clone(), tag, request));
        }
        tokio::select! {
            biased;
            () = sender.closed() => return,
            Some((first, mut bytes)) = running.next(), if !running.is_empty() => {
                let mut items = vec![first];
                while items.len() < limits.stream_reply_batch
                    && bytes < limits.stream_reply_bytes
                    && let Some(Some((item, more))) = running.next().now_or_never()
                {
                    items.push(item);
                    bytes += more;
                }
                if sender.send(Ok(L::join(items))).await.is_err() {
                    return;
                }
            }
            message = inbound.message(), if open && backlog.is_empty() && running.len() < limits.stream_in_flight => {
                match message {
                    Ok(Some(message)) => backlog.extend(L::split(message, &limits)),
                    Ok(None) => open = false,
                    // The message could not be decoded or the connection broke: say so if anyone
                    // still listens, and end the stream, since ids may have been lost.
                    Err(status) => {
                        drop(sender.try_send(Err(status)));
                        return;
                    }
                }
            }
        }
    }
}
