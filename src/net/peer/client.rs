//! The calling side of one stream: sends request frames, matches answers to calls by id.

use super::error_codec::decode_error;
use super::pack::{HeldBytes, Queued, packed};
use super::stats::Stats;
use super::{PeerConfig, PeerIdentity};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use grid_proto::keystead::peer::v1::peer_client::PeerClient;
use grid_proto::keystead::peer::v1::response_frame::Outcome;
use grid_proto::keystead::peer::v1::{RequestFrame, Requests, ToCallee, ToCaller, to_callee, to_caller};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::transport::Channel;

struct Waiting {
    kind: u8,
    answer: oneshot::Sender<Result<Bytes>>,
}

#[derive(Default)]
struct Calls {
    next_id: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Since when answers have been due and nothing has arrived.
    silent_since: Option<Instant>,
    ended: bool,
}

/// How a call on a stream ended.
pub(super) enum CallEnd {
    /// The other side answered.
    Answered(Result<Bytes>),
    /// The stream had ended before the call was sent.
    NotSent,
    /// The stream ended while the answer was due.
    Broken,
    /// The time was over.
    TimedOut,
}

/// One stream to one peer.
pub(super) struct Connection {
    /// Who answers.
    pub(super) peer: PeerIdentity,
    /// What was said of oneself; a connection under an old identity is not used any more.
    pub(super) greeted_as: PeerIdentity,
    calls: Arc<Mutex<Calls>>,
    frames: mpsc::UnboundedSender<Queued<RequestFrame, HeldBytes>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
    // Kept so that the connection below lives as long as the stream is used.
    _channel: Channel,
}

/// What a stream is opened with.
pub(super) struct Opening {
    pub(super) channel: Channel,
    pub(super) me: PeerIdentity,
    pub(super) stats: Arc<Stats>,
    /// Called once when the stream ends without [`Connection::close`].
    pub(super) on_lost: Box<dyn FnOnce(&PeerIdentity) + Send>,
}

impl Connection {
    /// Opens a stream and exchanges greetings.
    pub(super) async fn open(opening: Opening, config: &PeerConfig) -> Result<Connection> {
        let Opening { channel, me, stats, on_lost } = opening;
        let (frames, queue) = mpsc::unbounded_channel();
        let greeting = ToCallee { content: Some(to_callee::Content::Greeting(me.greeting())) };
        let requests = packed(queue, config.pack_bytes)
            .map(|frames| ToCallee { content: Some(to_callee::Content::Requests(Requests { frames })) });
        let outbound = stream::once(future::ready(greeting)).chain(requests);
        let mut client = PeerClient::new(channel.clone())
            .max_decoding_message_size(config.grpc.max_message_bytes)
            .max_encoding_message_size(config.grpc.max_message_bytes);
        let mut inbound = client.exchange(outbound).await.map_err(|status| refused(&status))?.into_inner();
        let peer = match inbound.message().await {
            Ok(Some(ToCaller { content: Some(to_caller::Content::Greeting(greeting)) })) => me.accept(&greeting)?,
            Ok(_) => return Err(Error::new(Code::ProtocolMismatch, "the peer did not greet")),
            Err(status) => return Err(refused(&status)),
        };
        let calls = Arc::<Mutex<Calls>>::default();
        let stop = CancellationToken::new();
        let reader = Reader { calls: calls.clone(), stats, stop: stop.clone() };
        let other = peer.clone();
        clock::spawn(async move {
            if reader.run(inbound).await == Ended::ByItself {
                on_lost(&other);
            }
        });
        let stop_on_drop = stop.clone().drop_guard();
        Ok(Connection { peer, greeted_as: me, calls, frames, stop, _stop_on_drop: stop_on_drop, _channel: channel })
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }

    pub(super) fn ended(&self) -> bool {
        self.calls().ended
    }

    /// Ends the stream; every call that waits on it ends as broken.
    pub(super) fn close(&self) {
        self.stop.cancel();
        self.calls().end();
    }

    /// Whether answers have been due for so long without a sign of life.
    pub(super) fn silent_for(&self, at_least: Duration) -> bool {
        self.calls().silent_since.is_some_and(|since| since.elapsed() >= at_least)
    }

    /// Sends one frame and waits for its answer. `frame.id` is set here.
    pub(super) async fn call(&self, frame: RequestFrame, held: HeldBytes, deadline: Instant) -> CallEnd {
        let Some((id, answered)) = self.send(frame, held) else { return CallEnd::NotSent };
        let _forget = Forget { connection: self, id };
        match clock::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => CallEnd::Answered(answer),
            Ok(Err(_)) => CallEnd::Broken,
            Err(clock::Elapsed) => CallEnd::TimedOut,
        }
    }

    /// Queues a frame; under the lock, so that ids rise in the queue.
    fn send(&self, mut frame: RequestFrame, held: HeldBytes) -> Option<(u64, oneshot::Receiver<Result<Bytes>>)> {
        let (answer, answered) = oneshot::channel();
        let mut calls = self.calls();
        if calls.ended {
            return None;
        }
        calls.next_id += 1;
        let id = calls.next_id;
        frame.id = id;
        calls.waiting.insert(id, Waiting { kind: frame.kind as u8, answer });
        calls.silent_since.get_or_insert_with(Instant::now);
        let bytes = frame.payload.len();
        if self.frames.send(Queued { frame, bytes, _held: held }).is_err() {
            calls.waiting.remove(&id);
            return None;
        }
        Some((id, answered))
    }
}

/// Forgets a call that nobody waits for any more.
struct Forget<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.calls().waiting.remove(&self.id);
    }
}

impl Calls {
    fn end(&mut self) {
        self.ended = true;
        self.waiting.clear();
    }
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(PartialEq)]
enum Ended {
    ByItself,
    OnRequest,
}

struct Reader {
    calls: Arc<Mutex<Calls>>,
    stats: Arc<Stats>,
    stop: CancellationToken,
}

impl Reader {
    async fn run(self, mut inbound: Streaming<ToCaller>) -> Ended {
        let ended = loop {
            let message = tokio::select! {
                biased;
                () = self.stop.cancelled() => break Ended::OnRequest,
                message = inbound.message() => message,
            };
            match message {
                Ok(Some(message)) => self.take(message),
                Ok(None) | Err(_) => break Ended::ByItself,
            }
        };
        lock(&self.calls).end();
        ended
    }

    fn take(&self, message: ToCaller) {
        let Some(to_caller::Content::Responses(responses)) = message.content else { return };
        let mut calls = lock(&self.calls);
        for frame in responses.frames {
            // An answer to a call that was given up finds nobody; that is no error.
            let Some(waiting) = calls.waiting.remove(&frame.id) else { continue };
            let answer = match frame.outcome {
                Some(Outcome::Payload(payload)) => Ok(payload),
                Some(Outcome::Error(bytes)) => Err(decode_error(&bytes)),
                None => Ok(Bytes::new()),
            };
            self.stats.received(waiting.kind, answer.as_ref().map_or(0, Bytes::len));
            drop(waiting.answer.send(answer));
        }
        calls.silent_since = if calls.waiting.is_empty() { None } else { Some(Instant::now()) };
    }
}

/// What the other side's status means: it carries our own error, or the connection failed.
fn refused(status: &tonic::Status) -> Error {
    match status.details() {
        [] => Error::new(Code::PeerUnreachable, format!("the stream was not opened: {}", status.message())),
        details => decode_error(details),
    }
}
