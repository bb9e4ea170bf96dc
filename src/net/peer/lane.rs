//! One lane to one peer: its connection, if there is one, the pause after failed attempts, and the
//! limits on what is under way.

use super::client::{CallEnd, Connection, Opening};
use super::pack::HeldBytes;
use super::transport::Context;
use super::{PeerEvent, PeerIdentity};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::net::grpc;
use crate::types::NodeId;
use bytes::Bytes;
use grid_proto::keystead::peer::v1::RequestFrame;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Whom a lane leads to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A node, wherever it is.
    Node(NodeId),
    /// An address, whoever is there.
    Address(Arc<str>),
}

/// What is asked beside a long call, and how often.
pub(super) struct Sign {
    pub(super) frame: RequestFrame,
    pub(super) every: Duration,
}

enum State {
    Down,
    /// After a failed attempt: when the next may start, the present pause, and what went wrong.
    Pausing {
        until: Instant,
        pause: Duration,
        error: Error,
    },
    /// Ends when the sender is dropped.
    Connecting(watch::Receiver<()>),
    Up(Arc<Connection>),
}

/// A lane to a peer.
pub(super) struct LaneSlot {
    context: Arc<Context>,
    target: Target,
    state: Mutex<State>,
    outstanding: AtomicUsize,
    queued_bytes: Arc<AtomicUsize>,
}

struct Outstanding<'a>(&'a AtomicUsize);

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl LaneSlot {
    pub(super) fn new(context: Arc<Context>, target: Target) -> Arc<Self> {
        Arc::new(LaneSlot {
            context,
            target,
            state: Mutex::new(State::Down),
            outstanding: AtomicUsize::new(0),
            queued_bytes: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn idle(&self) -> bool {
        self.outstanding.load(Relaxed) == 0
    }

    /// Lets the next call try at once.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        if matches!(*state, State::Pausing { .. }) {
            *state = State::Down;
        }
    }

    /// Ends the connection and every call on it.
    pub(super) fn disconnect(&self) {
        let mut state = self.state();
        if let State::Up(connection) = &*state {
            connection.close();
            *state = State::Down;
        }
    }

    /// Sends one frame within the limits and waits for its answer.
    pub(super) async fn call(self: &Arc<Self>, frame: RequestFrame, wait: Duration) -> Result<(PeerIdentity, Bytes)> {
        self.call_while(frame, wait, None).await
    }

    /// As [`LaneSlot::call`], and ends when its own connection does not answer the sign either.
    pub(super) async fn call_long(self: &Arc<Self>, frame: RequestFrame, wait: Duration, sign: Sign) -> Result<Bytes> {
        self.call_while(frame, wait, Some(sign)).await.map(|(_, answer)| answer)
    }

    async fn call_while(
        self: &Arc<Self>,
        frame: RequestFrame,
        wait: Duration,
        sign: Option<Sign>,
    ) -> Result<(PeerIdentity, Bytes)> {
        let deadline = Instant::now() + wait;
        let config = &self.context.config;
        let held_count = self.outstanding.fetch_add(1, Relaxed);
        let _outstanding = Outstanding(&self.outstanding);
        if held_count >= config.max_outstanding {
            return Err(self.error(Code::Overloaded, "too many unanswered calls"));
        }
        let bytes = frame.payload.len();
        if bytes > config.max_payload_bytes {
            return Err(self.error(Code::TooLarge, "the payload is over max_payload_bytes"));
        }
        let Some(held) = HeldBytes::take(&self.queued_bytes, bytes, config.max_queued_bytes) else {
            return Err(self.error(Code::Overloaded, "too many bytes are queued"));
        };
        let connection = self.connection(deadline).await?;
        self.context.stats.sent(frame.kind as u8, bytes);
        // Openraft drops a call when its own time is over, so this runs on drop as well.
        let _retire = RetireIfSilent { slot: self, connection: &connection };
        let ended = tokio::select! {
            biased;
            ended = connection.call(frame, held, deadline) => ended,
            () = self.silence(&connection, sign) => {
                self.retire_if_silent(&connection, config.stall_after);
                return Err(self.error(Code::OutcomeUnknown, "no sign of life while the answer was waited for"));
            }
        };
        match ended {
            CallEnd::Answered(answer) => answer.map(|payload| (connection.peer.clone(), payload)),
            CallEnd::NotSent => Err(self.error(Code::PeerUnreachable, "the connection has just ended")),
            CallEnd::Broken => Err(self.error(Code::OutcomeUnknown, "the connection broke before the answer")),
            CallEnd::TimedOut => {
                self.retire_if_silent(&connection, config.stall_after.min(wait));
                Err(self.error(Code::DeadlineExceeded, "no answer in time"))
            }
        }
    }

    /// Ends when the connection gives no sign of life, which any other answer is, too; never without a sign.
    async fn silence(&self, connection: &Connection, sign: Option<Sign>) {
        let Some(Sign { frame, every }) = sign else { return std::future::pending().await };
        loop {
            clock::sleep(every).await;
            let Some(held) = HeldBytes::take(&self.queued_bytes, frame.payload.len(), usize::MAX) else { return };
            match connection.call(frame.clone(), held, Instant::now() + every).await {
                CallEnd::Answered(_) => {}
                CallEnd::TimedOut if !connection.silent_for(every) => {}
                CallEnd::NotSent | CallEnd::Broken | CallEnd::TimedOut => return,
            }
        }
    }

    /// The connection, made if need be.
    async fn connection(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Connection>> {
        let me = (self.context.me)();
        // A connection that ends as soon as it is made is not made for ever.
        for _ in 0..3 {
            let mut attempt = match self.look(&me) {
                Look::Use(connection) => return Ok(connection),
                Look::Fail(error) => return Err(error),
                Look::Wait(attempt) => attempt,
            };
            if clock::timeout_at(deadline, attempt.changed()).await.is_err() {
                return Err(self.error(Code::PeerUnreachable, "no connection in time"));
            }
        }
        Err(self.error(Code::PeerUnreachable, "connections end as soon as they are made"))
    }

    fn look(self: &Arc<Self>, me: &PeerIdentity) -> Look {
        let mut state = self.state();
        let mut pause = self.context.config.backoff_first;
        match &*state {
            State::Up(connection) if !connection.ended() && connection.greeted_as == *me => {
                return Look::Use(connection.clone());
            }
            State::Connecting(attempt) => return Look::Wait(attempt.clone()),
            State::Pausing { until, error, .. } if *until > Instant::now() => return Look::Fail(error.clone()),
            State::Pausing { pause: last, .. } => pause = (*last * 2).min(self.context.config.backoff_max),
            State::Up(_) | State::Down => {}
        }
        let (done, attempt) = watch::channel(());
        *state = State::Connecting(attempt.clone());
        let ending = AttemptEnding { slot: self.clone(), pause, result: None, _done: done };
        clock::spawn(connect(ending, me.clone()));
        Look::Wait(attempt)
    }

    fn retire_if_silent(&self, connection: &Arc<Connection>, at_least: Duration) {
        if !connection.silent_for(at_least) {
            return;
        }
        let mut state = self.state();
        if matches!(&*state, State::Up(current) if Arc::ptr_eq(current, connection)) {
            tracing::debug!(target_peer = ?self.target, "a silent connection is given up");
            *state = State::Down;
            drop(state);
            // Calls still waiting on it keep their own deadlines; it ends with the last of them.
            self.context.notify(PeerEvent::Lost(connection.peer.node));
        }
    }

    fn error(&self, code: Code, what: &str) -> Error {
        Error::new(code, what).at(self.place())
    }

    fn place(&self) -> String {
        match &self.target {
            Target::Node(node) => format!("peer {node}"),
            Target::Address(address) => address.to_string(),
        }
    }

    async fn try_connect(&self, me: PeerIdentity) -> Result<Connection> {
        let address: Arc<str> = match &self.target {
            Target::Address(address) => address.clone(),
            Target::Node(node) => match self.context.addresses.address_of(*node) {
                Some(address) => address.into(),
                None => return Err(self.error(Code::PeerUnreachable, "no address of it is known")),
            },
        };
        let config = &self.context.config;
        let channel = grpc::channel(self.context.network.clone(), &address, &config.grpc).await?;
        let context = self.context.clone();
        let on_lost = Box::new(move |peer: &PeerIdentity| context.notify(PeerEvent::Lost(peer.node)));
        let connection = Connection::open(Opening { channel, me, stats: self.context.stats.clone(), on_lost }, config)
            .await
            .map_err(|error| if error.place.is_empty() { error.at(&*address) } else { error })?;
        match self.target {
            Target::Node(node) if node != connection.peer.node => {
                connection.close();
                let what = format!("peer {} answers at {address}", connection.peer.node);
                Err(self.error(Code::PeerUnreachable, &what))
            }
            _ => Ok(connection),
        }
    }
}

enum Look {
    Use(Arc<Connection>),
    Wait(watch::Receiver<()>),
    Fail(Error),
}

struct RetireIfSilent<'a> {
    slot: &'a LaneSlot,
    connection: &'a Arc<Connection>,
}

impl Drop for RetireIfSilent<'_> {
    fn drop(&mut self) {
        self.slot.retire_if_silent(self.connection, self.slot.context.config.stall_after);
    }
}

/// Records how an attempt ended, even when its task is dropped half-way; then wakes who waits.
struct AttemptEnding {
    slot: Arc<LaneSlot>,
    pause: Duration,
    result: Option<Result<Connection>>,
    _done: watch::Sender<()>,
}

impl Drop for AttemptEnding {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(self.slot.error(Code::PeerUnreachable, "not connected")));
        let (state, event) = match result {
            Ok(connection) => {
                let event = PeerEvent::Connected(connection.peer.node);
                (State::Up(Arc::new(connection)), Some(event))
            }
            Err(error) => {
                tracing::debug!(%error, "no connection to a peer");
                let event = match self.slot.target {
                    Target::Node(node) => Some(PeerEvent::Lost(node)),
                    Target::Address(_) => None,
                };
                (State::Pausing { until: Instant::now() + self.pause, pause: self.pause, error }, event)
            }
        };
        *self.slot.state() = state;
        if let Some(event) = event {
            self.slot.context.notify(event);
        }
    }
}

/// A task of its own, so that an impatient caller does not cut short what the next one needs.
async fn connect(mut ending: AttemptEnding, me: PeerIdentity) {
    let slot = ending.slot.clone();
    let attempt = clock::timeout(slot.context.config.connect_timeout, slot.try_connect(me)).await;
    ending.result =
        Some(attempt.unwrap_or_else(|clock::Elapsed| {
            Err(slot.error(Code::PeerUnreachable, "no connection and greeting in time"))
        }));
}
