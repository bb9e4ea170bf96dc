//! Executes the core's decisions: one task per client that owns the core, its streams and the
//! callers that wait.
//!
//! In: calls, replies, ends of streams, placements. Out: messages on streams, answers. Requests
//! that are due together travel together.

use super::config::ClientConfig;
use super::core::{Call, Core, Effect, LaneKey};
use super::lane::{self, Outgoing, Requests};
use super::peers::Peers;
use crate::clock::{self, Instant, JoinHandle};
use crate::error::{Error, Result};
use crate::node::PlacementTable;
use crate::types::{Condition, Op, Reply, Request};
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Inputs taken before what they led to is sent.
const INPUTS_AT_ONCE: usize = 1024;

/// What the driver is told.
pub(super) enum Input {
    /// A call, who waits for it, and its place among the outstanding.
    Call { call: Call, waiter: oneshot::Sender<Result<Reply>>, permit: OwnedSemaphorePermit },
    /// Replies came.
    Replies { lane: LaneKey, epoch: u64, replies: Vec<(u64, Result<Reply>)> },
    /// A stream ended; `connected`: it had a connection, so that something may have been sent.
    LaneDown { lane: LaneKey, epoch: u64, error: Error, connected: bool },
    /// A placement came, or did not.
    Placement { table: Option<PlacementTable> },
}

/// What callers see of the core without asking the driver.
#[derive(Default)]
pub(super) struct Sight {
    /// First slots of the partitions, ascending.
    pub(super) boundaries: Vec<u16>,
    /// Known peers.
    pub(super) peers: Vec<super::core::Peer>,
}

struct Lane {
    epoch: u64,
    outgoing: Outgoing,
    waiting: Requests,
    bytes: usize,
    task: JoinHandle<()>,
}

struct Waiter {
    waiter: oneshot::Sender<Result<Reply>>,
    _permit: OwnedSemaphorePermit,
}

pub(super) struct Driver {
    config: ClientConfig,
    core: Core,
    peers: Arc<Peers>,
    sight: Arc<RwLock<Sight>>,
    inputs: mpsc::UnboundedSender<Input>,
    waiters: BTreeMap<u64, Waiter>,
    lanes: BTreeMap<LaneKey, Lane>,
    next_id: u64,
    flush_at: Option<Instant>,
}

impl Driver {
    pub(super) fn new(
        config: ClientConfig,
        core: Core,
        peers: Arc<Peers>,
        sight: Arc<RwLock<Sight>>,
        inputs: mpsc::UnboundedSender<Input>,
    ) -> Self {
        let (waiters, lanes) = (BTreeMap::new(), BTreeMap::new());
        let mut driver = Driver { config, core, peers, sight, inputs, waiters, lanes, next_id: 1, flush_at: None };
        driver.show();
        driver
    }

    /// Runs until the client is dropped.
    pub(super) async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>, stop: CancellationToken) {
        let mut taken = Vec::with_capacity(INPUTS_AT_ONCE);
        loop {
            let wakeup = [self.core.next_wakeup(), self.flush_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = inputs.recv_many(&mut taken, INPUTS_AT_ONCE) => {}
                () = until(wakeup) => {}
            }
            self.take(&mut taken);
            // Callers that were just answered often have a next request: it shall travel along.
            tokio::task::yield_now().await;
            while let Ok(input) = inputs.try_recv() {
                taken.push(input);
            }
            self.take(&mut taken);
            self.core.tick(Instant::now());
            self.execute();
            self.flush_if_due();
        }
        for lane in self.lanes.values() {
            lane.task.abort();
        }
    }

    fn take(&mut self, inputs: &mut Vec<Input>) {
        if inputs.is_empty() {
            return;
        }
        let now = Instant::now();
        for input in inputs.drain(..) {
            self.on_input(input, now);
        }
        self.execute();
    }

    fn on_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Call { call, waiter, permit } => {
                let id = self.next_id;
                self.next_id += 1;
                self.waiters.insert(id, Waiter { waiter, _permit: permit });
                self.core.submit(id, call, now);
            }
            Input::Replies { lane, epoch, replies } => {
                // A stream that was given up may still talk.
                if self.lanes.get(&lane).is_some_and(|known| known.epoch == epoch) {
                    for (wire_id, outcome) in replies {
                        self.core.on_reply(&lane, wire_id, outcome, now);
                    }
                }
            }
            Input::LaneDown { lane, epoch, error, connected } => {
                self.core.lane_down(&lane, epoch, &error, connected, now);
            }
            Input::Placement { table } => {
                self.core.on_placement(table, now);
                self.show();
            }
        }
    }

    fn show(&mut self) {
        if let Ok(mut sight) = self.sight.write() {
            *sight = Sight { boundaries: self.core.boundaries(), peers: self.core.peers() };
        }
    }

    fn execute(&mut self) {
        for effect in self.core.take_effects() {
            match effect {
                Effect::Send { lane, epoch, wire_id, request } => self.send(lane, epoch, wire_id, request),
                Effect::Close { lane } => {
                    if let Some(closed) = self.lanes.remove(&lane) {
                        closed.task.abort();
                        self.peers.forget(&lane.0);
                    }
                }
                Effect::Refresh { peer } => {
                    let (peers, inputs) = (self.peers.clone(), self.inputs.clone());
                    let within = self.config.attempt_timeout;
                    clock::spawn(async move {
                        let table = peers.placement(&peer, within).await.ok();
                        drop(inputs.send(Input::Placement { table }));
                    });
                }
                Effect::Answer { id, outcome } => {
                    if let Some(waiter) = self.waiters.remove(&id) {
                        // The caller may have gone; its write stands all the same.
                        drop(waiter.waiter.send(outcome));
                    }
                }
            }
        }
    }

    fn send(&mut self, key: LaneKey, epoch: u64, wire_id: u64, request: Request) {
        let lane = self.lanes.entry(key).or_insert_with_key(|key| {
            let (outgoing, task) = lane::open(self.peers.clone(), key.clone(), epoch, self.inputs.clone());
            Lane { epoch, outgoing, waiting: Vec::new(), bytes: 0, task: clock::spawn(task) }
        });
        lane.bytes += size_of_op(&request.op);
        lane.waiting.push((wire_id, request));
        if lane.waiting.len() >= self.config.max_batch_requests || lane.bytes >= self.config.max_batch_bytes {
            lane.flush();
        }
    }

    fn flush_if_due(&mut self) {
        if self.lanes.values().all(|lane| lane.waiting.is_empty()) {
            self.flush_at = None;
            return;
        }
        let now = Instant::now();
        let at = *self.flush_at.get_or_insert(now + self.config.linger);
        if at <= now {
            self.lanes.values_mut().for_each(Lane::flush);
            self.flush_at = None;
        }
    }
}

impl Lane {
    fn flush(&mut self) {
        self.bytes = 0;
        if !self.waiting.is_empty() {
            self.outgoing.send(std::mem::take(&mut self.waiting));
        }
    }
}

async fn until(wakeup: Option<Instant>) {
    match wakeup {
        Some(at) => clock::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// About what an operation takes on the wire.
pub(super) fn size_of_op(op: &Op) -> usize {
    let of_op = match op {
        Op::Get { key, .. } | Op::Delete { key, .. } | Op::Increment { key, .. } | Op::Touch { key, .. } => key.len(),
        Op::Put { key, value, .. } => key.len() + value.data.len(),
        Op::Task { key, payload, .. } => key.len() + payload.data.len(),
        Op::PartitionTask { payload, .. } => payload.data.len(),
        Op::Barrier { .. } | Op::Job { .. } => 0,
        Op::GetMany { keys, .. } => keys.iter().map(bytes::Bytes::len).sum(),
        Op::PutMany { entries, .. } => entries.iter().map(|(key, value)| key.len() + value.data.len()).sum(),
        Op::Transact { checks, writes, .. } => {
            let checked = checks.iter().map(|(key, condition)| match condition {
                Condition::Value(value) => key.len() + value.data.len(),
                _ => key.len(),
            });
            let written =
                writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.data.len()));
            checked.chain(written).sum()
        }
        Op::Scan { prefix, from, .. } => {
            prefix.len() + from.as_ref().and_then(|from| from.after.as_ref()).map_or(0, bytes::Bytes::len)
        }
        Op::Clear { from, .. } => from.as_ref().and_then(|from| from.after.as_ref()).map_or(0, bytes::Bytes::len),
        Op::Size { .. } | Op::Forget { .. } => 0,
    };
    // Map name, stamp, options.
    of_op + 64
}
