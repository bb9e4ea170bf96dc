//! Simulated clock, randomness and threads.
//!
//! In: the simulation's time and seed. Out: the ports that a node asks for. Nothing here reads
//! the machine's clock or starts a thread.

use crate::dice::Dice;
use keystead::clock::{Gate, Random, ThreadKind, Threads, WallClock};
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// 2026-01-01T00:00:00Z: when every simulation begins.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// A node's wall clock: simulated time plus a skew. It goes on while the node is frozen, as a
/// suspended machine's does.
#[derive(Debug, Default)]
pub struct SimClock {
    skew_ms: AtomicI64,
}

impl SimClock {
    /// A clock that is right.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets how far it is ahead (or, negative, behind).
    pub fn set_skew_ms(&self, skew: i64) {
        self.skew_ms.store(skew, Ordering::Relaxed);
    }

    /// How far it is ahead.
    pub fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }
}

impl WallClock for SimClock {
    fn unix_ms(&self) -> u64 {
        let right = turmoil::since_epoch().unwrap_or(EPOCH).as_millis() as u64;
        right.saturating_add_signed(self.skew_ms())
    }
}

/// A node's random numbers.
#[derive(Debug)]
pub struct SimRandom(Mutex<Dice>);

impl SimRandom {
    /// Random numbers of their own for each label.
    pub fn new(seed: u64, label: &str) -> Arc<Self> {
        Arc::new(SimRandom(Mutex::new(Dice::new(seed, label))))
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}

/// Threads that are none: a job runs before [`Threads::run`] returns.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimThreads;

impl Threads for SimThreads {
    fn run(&self, _: ThreadKind, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn inline(&self) -> bool {
        true
    }
}

/// Polls whether a node may run; registers the task to be woken when it may again.
pub(crate) fn poll_gate(gate: &Gate, context: &mut Context<'_>) -> Poll<()> {
    // The future of `opened` holds nothing between polls: a fresh one per poll does.
    std::pin::pin!(gate.opened()).poll(context)
}

/// Polls a future only while the node may run, for code that was not spawned behind the gate.
pub(crate) async fn gated<F: Future>(gate: &Gate, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        ready!(poll_gate(gate, context));
        future.as_mut().poll(context)
    })
    .await
}
