//! Simulated clock, randomness and threads.
//!
//! In: the simulation's time and seed. Out: the ports that a node asks for. Nothing here reads
//! the machine's clock or starts a thread.

use crate::dice::Dice;
use keystead::clock::{Gate, Random, ThreadKind, Threads, WallClock};
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// 2026-01-01T00:00:00Z: when every simulation begins.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// A node's wall clock: simulated time plus a skew, which may grow. It goes on while the node is
/// frozen, as a suspended machine's does.
#[derive(Debug, Default)]
pub struct SimClock {
    skew_ms: AtomicI64,
    /// It gains so many milliseconds per second since this simulated time, in milliseconds.
    drift: AtomicI64,
    drifts_since: AtomicU64,
}

/// Simulated time since the epoch.
fn right_ms() -> u64 {
    turmoil::since_epoch().unwrap_or(EPOCH + crate::trace::now()).as_millis() as u64
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

    /// Lets it gain so many milliseconds per second from now on, or lose them; 0 sets it right.
    pub fn set_drift(&self, drift: i64) {
        self.drifts_since.store(right_ms(), Ordering::Relaxed);
        self.drift.store(drift, Ordering::Relaxed);
    }

    /// How far it is ahead.
    pub fn skew_ms(&self) -> i64 {
        let drifted = right_ms().saturating_sub(self.drifts_since.load(Ordering::Relaxed)) as i64;
        self.skew_ms.load(Ordering::Relaxed) + drifted * self.drift.load(Ordering::Relaxed) / 1000
    }
}

impl WallClock for SimClock {
    fn unix_ms(&self) -> u64 {
        right_ms().saturating_add_signed(self.skew_ms())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_and_drifts() {
        let clock = SimClock::new();
        crate::trace::start(crate::trace::Keep::Last);
        let at = |seconds| crate::trace::set_now(Duration::from_secs(seconds));
        at(10);
        clock.set_drift(100);
        clock.set_skew_ms(-250);
        assert_eq!(clock.skew_ms(), -250);
        at(15);
        assert_eq!(clock.skew_ms(), 250, "it has gained 100 ms in each of 5 s");
        assert_eq!(clock.unix_ms(), EPOCH.as_millis() as u64 + 15_250);
        clock.set_drift(0);
        assert_eq!(clock.skew_ms(), -250);
        crate::trace::finish();
    }
}
