//! The client's decisions: what to send where and when, what to send again, what to answer.
//!
//! In: calls, replies, broken streams, placements, and the time. Out: [`Effect`]s. Does no I/O,
//! reads no clock; the same inputs give the same effects.
//!
//! Its rules, which make retries safe and keep order:
//! 1. A write gets its session number when it is submitted and keeps it over all retries.
//! 2. Of two writes to one slot the later is never sent while the earlier waits to be sent, and
//!    names the earlier as its predecessor while that is unanswered; the partition executes it
//!    only after the predecessor.
//! 3. A write of several slots is sent when nothing earlier is unanswered in the slots besides
//!    its first, and holds back what is later there: predecessors chain only within one slot.

mod replies;
mod routes;
mod send;
mod session;
mod time;

#[cfg(test)]
mod tests;

pub(super) use routes::Routes;
pub(super) use time::GridTime;

use crate::clock::{Instant, Random};
use crate::error::{Code, Error, Result};
use crate::types::{AckLevel, Op, Reach, Reply, Request, SessionId, Slot};
use session::Sessions;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A peer's address.
pub(super) type Peer = Arc<str>;

/// Which of a peer's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneKind {
    Kv,
    Tasks,
}

/// One stream to one peer.
pub(super) type LaneKey = (Peer, LaneKind);

/// What the core decides by.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    /// How long one attempt may take before its stream is taken for broken.
    pub(super) attempt: Duration,
    /// The shortest pause before a retry; doubles up to the longest.
    pub(super) backoff_min: Duration,
    /// The longest pause before a retry.
    pub(super) backoff_max: Duration,
}

/// Time that a reply may be on its way after the peer's own deadline.
const GRACE: Duration = Duration::from_millis(500);

/// A call as it is submitted. `others` are the further slots that a write touches.
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) slot: Slot,
    pub(super) others: Vec<Slot>,
    pub(super) deadline: Instant,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Send a request on a stream, opening it if need be.
    Send { lane: LaneKey, epoch: u64, wire_id: u64, request: Request },
    /// Give a stream up.
    Close { lane: LaneKey },
    /// Ask a peer for the placement.
    Refresh { peer: Peer },
    /// Answer a call.
    Answer { id: u64, outcome: Result<Reply> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// To be sent at this time, if order allows.
    Waiting { until: Instant },
    /// On its way.
    Sent { lane: LaneKey, epoch: u64, at: Instant },
}

/// A write's place in its session.
struct Write {
    session: SessionId,
    number: u64,
    first_sent: Option<crate::types::HybridTime>,
}

struct Pending {
    request: Request,
    slot: Slot,
    others: Vec<Slot>,
    deadline: Instant,
    /// Half of its time: until then a refusal for want of room may be mended by another peer.
    half_time: Instant,
    write: Option<Write>,
    state: State,
    /// When it is looked at; `None` only while it is being submitted.
    timer: Option<Instant>,
    /// Times sent; its low bits tell the replies of attempts apart.
    attempts: u64,
    /// Failures that call for a growing pause.
    failures: u32,
    /// The peer to ask next, when a peer has named it.
    target: Option<Peer>,
    /// The peer not to ask next.
    avoid: Option<Peer>,
    last_error: Option<Error>,
    /// An attempt ended without a word on whether it took effect.
    unsure: bool,
    /// Attempts that were refused because the leader's peer does not carry the task.
    refused: u64,
    /// Attempts that found no connection.
    unsent: u64,
}

impl Pending {
    /// The slots that it may write to.
    fn reach(&self) -> Reach {
        match self.request.op {
            // It walks over slots.
            Op::Clear { .. } => Reach::new(),
            _ => std::iter::once(self.slot).chain(self.others.iter().copied()).collect(),
        }
    }
}

/// Calls in the order of their ids, which rise from call to call.
#[derive(Default)]
struct Ids(VecDeque<u64>);

impl Ids {
    /// Adds the newest.
    fn push(&mut self, id: u64) {
        if self.last() != Some(id) {
            self.0.push_back(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Ok(at) = self.0.binary_search(&id) {
            self.0.remove(at);
        }
    }

    fn last(&self) -> Option<u64> {
        self.0.back().copied()
    }

    /// Those before `id`, ascending.
    fn before(&self, id: u64) -> impl DoubleEndedIterator<Item = u64> {
        self.0.range(..self.0.partition_point(|other| *other < id)).copied()
    }
}

/// The unanswered writes that touch a slot, in order.
#[derive(Default)]
struct SlotQueue {
    ids: Ids,
    /// How many of them wait to be sent.
    waiting: usize,
}

/// Low bits of a wire id that number a call's attempts.
const ATTEMPT_BITS: u32 = 8;

/// The client's state.
pub(super) struct Core {
    timing: Timing,
    random: Arc<dyn Random>,
    routes: Routes,
    sessions: Sessions,
    time: GridTime,
    /// Boxed: a call is large, and a tree moves what lies beside a place that is taken or given up.
    pending: BTreeMap<u64, Box<Pending>>,
    slots: BTreeMap<Slot, SlotQueue>,
    timers: BTreeSet<(Instant, u64)>,
    epochs: BTreeMap<LaneKey, u64>,
    effects: Vec<Effect>,
}

impl Core {
    pub(super) fn new(timing: Timing, random: Arc<dyn Random>, routes: Routes, time: GridTime) -> Self {
        let sessions = Sessions::new(&*random);
        Core {
            timing,
            random,
            routes,
            sessions,
            time,
            pending: BTreeMap::new(),
            slots: BTreeMap::new(),
            timers: BTreeSet::new(),
            epochs: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// What has been decided since the last time.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        // As many are to be expected again.
        let next = Vec::with_capacity(self.effects.len());
        std::mem::replace(&mut self.effects, next)
    }

    /// The peers that are known.
    pub(super) fn peers(&self) -> Vec<Peer> {
        self.routes.peers()
    }

    /// Takes a call; `id` rises from call to call.
    pub(super) fn submit(&mut self, id: u64, call: Call, now: Instant) {
        let write = (!call.request.op.is_read()).then(|| {
            let (session, number) = self.sessions.begin();
            Write { session, number, first_sent: None }
        });
        let is_write = write.is_some();
        let pending = Pending {
            request: call.request,
            slot: call.slot,
            others: if is_write { call.others } else { Vec::new() },
            deadline: call.deadline,
            half_time: now + call.deadline.saturating_duration_since(now) / 2,
            write,
            state: State::Waiting { until: now },
            timer: None,
            attempts: 0,
            failures: 0,
            target: None,
            avoid: None,
            last_error: None,
            unsure: false,
            refused: 0,
            unsent: 0,
        };
        if is_write {
            for slot in std::iter::once(&pending.slot).chain(&pending.others) {
                let queue = self.slots.entry(*slot).or_default();
                queue.ids.push(id);
                queue.waiting += 1;
            }
        }
        self.pending.insert(id, Box::new(pending));
        self.pump(id, now);
        // Usually it has been sent, which set its timer.
        if let Some(deadline) =
            self.pending.get(&id).filter(|pending| pending.timer.is_none()).map(|call| call.deadline)
        {
            self.set_timer(id, deadline);
        }
    }

    /// When [`Core::tick`] is to be called next.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        match (timer, self.routes.refresh_at()) {
            (Some(timer), Some(refresh)) => Some(timer.min(refresh)),
            (timer, refresh) => timer.or(refresh),
        }
    }

    /// Does what the time has come for.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            let Some(pending) = self.pending.get(&id) else {
                self.timers.remove(&(at, id));
                continue;
            };
            if pending.deadline <= now {
                let error = timed_out(pending);
                if let Some(pending) = self.pending.get_mut(&id) {
                    // It may arrive yet.
                    pending.unsure |= matches!(pending.state, State::Sent { .. });
                }
                self.finish(id, Err(error), now);
                continue;
            }
            match pending.state.clone() {
                State::Sent { lane, epoch, .. } => {
                    self.set_timer(id, pending.deadline);
                    let error = Error::new(Code::PeerUnreachable, "no answer in time").at(&*lane.0);
                    self.lane_down(&lane, epoch, &error, true, now);
                }
                State::Waiting { .. } => {
                    // Held back by an earlier write: looked at again when that is sent or answered.
                    self.set_timer(id, pending.deadline);
                    self.pump(id, now);
                }
            }
        }
        if let Some(peer) = self.routes.due_refresh(now) {
            self.effects.push(Effect::Refresh { peer });
        }
    }

    fn set_timer(&mut self, id: u64, at: Instant) {
        if let Some(pending) = self.pending.get_mut(&id) {
            if pending.timer == Some(at) {
                return;
            }
            if let Some(before) = pending.timer.replace(at) {
                self.timers.remove(&(before, id));
            }
            self.timers.insert((at, id));
        }
    }

    fn set_state(&mut self, id: u64, state: State) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let waits = |state: &State| matches!(state, State::Waiting { .. });
        let (before, after) = (waits(&pending.state), waits(&state));
        if pending.write.is_some() && before != after {
            for slot in std::iter::once(&pending.slot).chain(&pending.others) {
                if let Some(queue) = self.slots.get_mut(slot) {
                    queue.waiting = if after { queue.waiting + 1 } else { queue.waiting.saturating_sub(1) };
                }
            }
        }
        let timer = match &state {
            State::Waiting { until } => (*until).min(pending.deadline),
            State::Sent { at, .. } => (*at + self.timing.attempt + GRACE).min(pending.deadline),
        };
        pending.state = state;
        self.set_timer(id, timer);
    }

    /// Answers a call and forgets it.
    fn finish(&mut self, id: u64, outcome: Result<Reply>, now: Instant) {
        let Some(pending) = self.pending.remove(&id) else { return };
        if let Some(timer) = pending.timer {
            self.timers.remove(&(timer, id));
        }
        let kept = outcome.is_ok() && pending.request.ack == AckLevel::MajorityFsync;
        self.effects.push(Effect::Answer { id, outcome });
        let Some(write) = &pending.write else { return };
        // What was answered is known where it was written, once it is on disk there, and a late copy of it gets
        // the kept answer.
        self.sessions.end(write.session, write.number, (!kept && pending.unsure).then(|| pending.reach()));
        let waited = matches!(pending.state, State::Waiting { .. });
        for slot in std::iter::once(pending.slot).chain(pending.others) {
            let Some(queue) = self.slots.get_mut(&slot) else { continue };
            queue.ids.remove(id);
            queue.waiting -= usize::from(waited && queue.waiting > 0);
            if queue.ids.0.is_empty() {
                self.slots.remove(&slot);
            } else if queue.waiting > 0 {
                self.pump_slot(slot, now);
            }
        }
    }
}

/// Why a call is given up at its deadline. A write that was sent may have taken effect.
fn timed_out(pending: &Pending) -> Error {
    let sent = matches!(pending.state, State::Sent { .. });
    let unsure = pending.write.is_some() && (pending.unsure || sent);
    // Every attempt was refused, so nothing can have happened.
    let refused = pending.refused > 0 && pending.refused + pending.unsent == pending.attempts;
    // What a peer can see is said as it says it, and nothing else.
    if let Some(error) = &pending.last_error
        && (refused || (matches!(error.code, Code::NoMajority | Code::DiskFull) && !unsure))
    {
        return error.clone();
    }
    let trouble = pending.last_error.as_ref().map_or(String::new(), |error| format!("; last: {}", error.brief()));
    if pending.write.is_some() && pending.attempts > pending.unsent {
        return Error::new(Code::OutcomeUnknown, format!("no answer within the deadline{trouble}"))
            .remedy("read the key to see whether the write took effect");
    }
    Error::new(Code::DeadlineExceeded, format!("no answer within the deadline{trouble}"))
        .remedy("allow more time; `keystead members` shows who is there")
}
