//! The network between the replicas of a [`super::trio::Trio`]: each message passes, waits or is
//! lost as the scenario says.
//!
//! In: the calls of Raft's transport. Out: the same calls on the replicas, behind the gate of the
//! one that is called; and counts, so that a scenario can wait for a message and prove that it
//! came. A message that waits is delivered when it is let go, however late that is and whether or
//! not its caller still waits.

use crate::dice::Dice;
use bytes::Bytes;
use keystead::clock::{Gate, Instant, sleep, sleep_until, spawn, timeout_at};
use keystead::error::{Code, Error, Result};
use keystead::net::peer::Lane;
use keystead::raft::network::{RaftTransport, Receptions, dispatch, kind};
use keystead::raft::{Group, answer_questions};
use keystead::types::{GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// All kinds of Raft's messages.
pub(super) const ALL: [u8; 8] = [
    kind::HEARTBEAT,
    kind::APPEND,
    kind::VOTE,
    kind::PRE_VOTE,
    kind::TRANSFER,
    kind::SNAPSHOT_CHUNK,
    kind::SNAPSHOT_END,
    kind::CONFIRM,
];

/// What tells a follower of entries and of commits.
pub(super) const LOG: [u8; 2] = [kind::HEARTBEAT, kind::APPEND];

/// One half of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// On its way to the one that is called.
    Question,
    /// On its way back.
    Answer,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits.
    Held,
    /// It is lost.
    Lost,
    /// So many pass, then they wait.
    Few(u32),
}

/// Who calls whom, with what, and which half of the call.
type Way = (u64, u64, u8, Half);

/// The called side of a replica that runs.
#[derive(Clone)]
pub(super) struct End {
    pub(super) group: Arc<Group>,
    pub(super) receptions: Arc<Receptions>,
    pub(super) gate: Arc<Gate>,
}

#[derive(Default)]
struct State {
    ends: BTreeMap<u64, End>,
    fates: BTreeMap<Way, Fate>,
    passed: BTreeMap<Way, u64>,
    waiting: BTreeMap<Way, u64>,
}

/// The network.
pub(super) struct Wire {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Messages belong to no replica: a paused sender's go on.
    ether: Arc<Gate>,
    dice: Mutex<Dice>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// A network on which everything passes.
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Wire {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            ether: Gate::new(),
            dice: Mutex::new(Dice::new(seed, "wire")),
        })
    }

    /// The network as one replica calls on it.
    pub(super) fn seen_by(self: &Arc<Self>, me: u64) -> Arc<dyn RaftTransport> {
        Arc::new(Seen { me, wire: self.clone() })
    }

    /// A replica runs and may be called.
    pub(super) fn plug(&self, id: u64, end: End) {
        lock(&self.state).ends.insert(id, end);
    }

    /// A replica is gone: who calls it hears nothing.
    pub(super) fn unplug(&self, id: u64) {
        lock(&self.state).ends.remove(&id);
    }

    /// Decides the fate of one half of the calls of these kinds.
    pub(super) fn set(&self, caller: u64, called: u64, kinds: &[u8], half: Half, fate: Fate) {
        let ways = kinds.iter().map(|kind| ((caller, called, *kind, half), fate));
        lock(&self.state).fates.extend(ways);
        crate::event!("wire", "{caller} to {called}: {half:?} of {kinds:?} is {fate:?}");
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Lets these pass again, those that wait first.
    pub(super) fn let_go(&self, caller: u64, called: u64, kinds: &[u8], half: Half) {
        lock(&self.state)
            .fates
            .retain(|way, _| (way.0, way.1, way.3) != (caller, called, half) || !kinds.contains(&way.2));
        crate::event!("wire", "{caller} to {called}: {half:?} of {kinds:?} passes");
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Nothing goes between the two, in either direction; what waits is lost.
    pub(super) fn cut(&self, one: u64, other: u64) {
        for (caller, called) in [(one, other), (other, one)] {
            for half in [Half::Question, Half::Answer] {
                self.set(caller, called, &ALL, half, Fate::Lost);
            }
        }
    }

    /// Everything passes between the two.
    pub(super) fn mend(&self, one: u64, other: u64) {
        for (caller, called) in [(one, other), (other, one)] {
            for half in [Half::Question, Half::Answer] {
                self.let_go(caller, called, &ALL, half);
            }
        }
    }

    /// How many of these have passed so far.
    pub(super) fn passed(&self, caller: u64, called: u64, kind: u8, half: Half) -> u64 {
        lock(&self.state).passed.get(&(caller, called, kind, half)).copied().unwrap_or(0)
    }

    /// How many of these wait now.
    pub(super) fn waiting(&self, caller: u64, called: u64, kind: u8, half: Half) -> u64 {
        lock(&self.state).waiting.get(&(caller, called, kind, half)).copied().unwrap_or(0)
    }

    /// What is to become of a message now; `None` while it waits.
    fn fate(&self, way: Way) -> Option<bool> {
        let mut state = lock(&self.state);
        let goes = match state.fates.get_mut(&way) {
            None => Some(true),
            Some(Fate::Few(left)) if *left > 0 => {
                *left -= 1;
                Some(true)
            }
            Some(Fate::Lost) => Some(false),
            Some(Fate::Held | Fate::Few(_)) => None,
        };
        if goes == Some(true) {
            *state.passed.entry(way).or_default() += 1;
        }
        goes
    }

    /// Waits until a message passes; false when it is lost.
    async fn pass(&self, way: Way) -> bool {
        let latency = lock(&self.dice).between(1, 3);
        sleep(Duration::from_millis(latency)).await;
        let mut changed = self.changed.subscribe();
        if let Some(goes) = self.fate(way) {
            return goes;
        }
        *lock(&self.state).waiting.entry(way).or_default() += 1;
        let goes = loop {
            // The sender lives as long as this network.
            let _ = changed.changed().await;
            if let Some(goes) = self.fate(way) {
                break goes;
            }
        };
        *lock(&self.state).waiting.entry(way).or_default() -= 1;
        goes
    }

    async fn carry(self: Arc<Self>, call: (u64, u64, u8), bytes: Bytes, to: oneshot::Sender<Result<Bytes>>) {
        let (caller, called, asked) = call;
        if !self.pass((caller, called, asked, Half::Question)).await {
            return;
        }
        let Some(end) = lock(&self.state).ends.get(&called).cloned() else { return };
        let group = end.group.id();
        let answer = match asked {
            kind::CONFIRM => {
                let group = end.group.clone();
                end.gate.run(async move { answer_questions(bytes, |_, _| group.saved_vote()) }).await
            }
            asked => {
                let (raft, receptions) = (end.group.clone(), end.receptions.clone());
                let answer = async move { dispatch(raft.raft(), &receptions, group, asked, bytes).await };
                end.gate.run(answer).await
            }
        };
        if self.pass((caller, called, asked, Half::Answer)).await {
            // Whoever asked may not wait any more.
            let _ = to.send(answer);
        }
    }
}

struct Seen {
    me: u64,
    wire: Arc<Wire>,
}

#[async_trait::async_trait]
impl RaftTransport for Seen {
    async fn call(
        &self,
        to: NodeId,
        _: Lane,
        _: GroupId,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes> {
        let until = Instant::now() + deadline;
        let (sender, answer) = oneshot::channel();
        let journey = self.wire.clone().carry((self.me, to.0, kind), payload, sender);
        let begin = async move { drop(spawn(journey)) };
        self.wire.ether.clone().run(begin).await;
        if let Ok(Ok(answer)) = timeout_at(until, answer).await {
            return answer;
        }
        // A network that loses a message does not say so.
        sleep_until(until).await;
        Err(Error::new(Code::DeadlineExceeded, "no answer came"))
    }
}
