//! How many batches of a node are on their way at once. In: executors that have writes to propose,
//! and how long each batch took. Out: a place each, in the order of asking. While an executor
//! waits for its place, its commands gather, so that under load a batch holds what came in a whole
//! round instead of one or two commands; a node with little to do gives each a place at once.
//!
//! The number of places follows the load, as TCP Vegas' window does: a batch's time beyond the
//! shortest one seen lately is time in queues, so `places * (1 - shortest / time)` batches are
//! queueing. A few should (the machine is busy then), more would only keep commands from
//! gathering. Where the round trip is long rather than the processor busy, times stay close to the
//! shortest and the places grow until nobody waits.
//!
//! A batch that gets no majority keeps its place, so nobody waits for one longer than `patience`:
//! a group in trouble slows the others down by that much and stops none.

use super::ExecutorConfig;
use crate::clock::{self, Instant};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places at least, and at the beginning. Of many partitions each third may always have a batch on
/// its way: with fewer places, commands of a moderate load would stand in line for nothing.
const FEWEST: usize = 2;
const FIRST: f64 = 8.0;
const OF_PARTITIONS: usize = 3;
/// Batches that should be queueing.
const QUEUE: std::ops::RangeInclusive<f64> = 1.0..=2.0;
/// With each batch the shortest time is forgotten by this part of itself: a busy node must not take
/// its queues for the length of the way before some ten thousand batches have said so.
const FORGET: f64 = 1.0 / 32_768.0;
struct Window {
    /// Places that there are to be.
    wanted: f64,
    /// Places that there are.
    present: usize,
    /// The shortest time seen lately, in seconds; 0 before the first.
    shortest: f64,
}

/// The places of a node.
pub struct Pacer {
    places: Arc<Semaphore>,
    window: Mutex<Window>,
    most: usize,
    patience: Duration,
    /// Runs under way: partitions that are led here.
    runs: AtomicUsize,
}

/// A run under way, counted until it is dropped.
pub(super) struct Led(Arc<Pacer>);

impl Drop for Led {
    fn drop(&mut self) {
        self.0.runs.fetch_sub(1, Relaxed);
    }
}

/// A place, given back when dropped; or the leave to go on without one.
pub(super) struct Place {
    pacer: Arc<Pacer>,
    permit: Option<OwnedSemaphorePermit>,
    since: Instant,
}

impl Pacer {
    /// Places for executors with this configuration.
    pub fn new(config: &ExecutorConfig) -> Arc<Self> {
        let most = config.node_in_flight.max(FEWEST);
        let present = (FIRST as usize).min(most);
        let window = Mutex::new(Window { wanted: present as f64, present, shortest: 0.0 });
        let places = Arc::new(Semaphore::new(present));
        Arc::new(Pacer { places, window, most, patience: config.pace_patience, runs: AtomicUsize::new(0) })
    }

    /// A run begins.
    pub(super) fn led(self: &Arc<Self>) -> Led {
        self.runs.fetch_add(1, Relaxed);
        Led(self.clone())
    }

    fn fewest(&self) -> f64 {
        (self.runs.load(Relaxed) / OF_PARTITIONS).clamp(FEWEST, self.most) as f64
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if one is free and nobody waits.
    pub(super) fn try_place(self: &Arc<Self>) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        Some(self.placed(Some(permit)))
    }

    /// Waits for a place, or until its time is over.
    pub(super) async fn place(self: Arc<Self>) -> Place {
        let waited = clock::timeout(self.patience, self.places.clone().acquire_owned()).await;
        self.placed(waited.ok().and_then(Result::ok))
    }

    fn placed(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>) -> Place {
        Place { pacer: self.clone(), permit, since: Instant::now() }
    }

    /// Takes in how long a batch took, from its turn to its verdict.
    fn took(&self, time: Duration) {
        let time = time.as_secs_f64().max(1e-6);
        let all_taken = self.places.available_permits() == 0;
        let mut window = self.window();
        window.shortest = match window.shortest {
            0.0 => time,
            shortest => (shortest * (1.0 + FORGET)).min(time),
        };
        let queueing = window.wanted * (1.0 - window.shortest / time);
        let step = 1.0 / window.wanted;
        if queueing > *QUEUE.end() {
            window.wanted -= step;
        } else if queueing < *QUEUE.start() && all_taken {
            window.wanted = (window.wanted + step).min(self.most as f64);
        }
        window.wanted = window.wanted.max(self.fewest());
        if window.wanted as usize > window.present {
            window.present += 1;
            self.places.add_permits(1);
        }
    }

    /// Whether a place that is given back is one too many.
    fn shrinks(&self) -> bool {
        let mut window = self.window();
        let too_many = window.wanted.ceil() as usize <= window.present.saturating_sub(1);
        window.present -= usize::from(too_many);
        too_many
    }
}

impl Place {
    /// Gives the place back: its batch has taken effect.
    pub(super) fn done(self) {
        self.pacer.took(self.since.elapsed());
    }

    /// The batch begins its way now.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.pacer.shrinks()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn pacer(most: usize) -> Arc<Pacer> {
        Pacer::new(&ExecutorConfig { node_in_flight: most, ..ExecutorConfig::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_order_and_nobody_waits_for_ever() {
        let pacer = pacer(2);
        let (first, other) = (pacer.try_place().expect("free"), pacer.try_place().expect("free"));
        assert!(pacer.try_place().is_none());
        let mut second = pacer.clone().place().boxed();
        let mut third = pacer.clone().place().boxed();
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "not before the second");
        let second = second.now_or_never().expect("its turn");
        assert!(pacer.try_place().is_none(), "no overtaking");
        let start = Instant::now();
        let third = third.await;
        assert!(third.permit.is_none() && start.elapsed() == pacer.patience, "without a place");
        drop((second, other));
        assert!(pacer.try_place().is_some());
    }

    /// Rounds in which all places are taken, each batch of a round taking this long.
    async fn rounds(pacer: &Arc<Pacer>, rounds: usize, time: impl Fn(usize) -> Duration) -> usize {
        for _ in 0..rounds {
            let mut taken: Vec<Place> = std::iter::from_fn(|| pacer.try_place()).collect();
            taken.iter_mut().for_each(Place::begin);
            clock::sleep(time(taken.len())).await;
            taken.into_iter().for_each(Place::done);
        }
        pacer.window().present
    }

    #[tokio::test(start_paused = true)]
    async fn places_grow_where_the_way_is_long_and_shrink_where_the_processor_is_busy() {
        let pacer = pacer(64);
        let long_way = |_: usize| Duration::from_millis(5);
        assert_eq!(rounds(&pacer, 3000, long_way).await, 64, "each takes as long as the shortest");
        let busy = |taken: usize| Duration::from_millis(5 + 2 * taken as u64);
        // Many partitions keep places for a third of them, whatever the machine has to do.
        let runs: Vec<Led> = (0..48).map(|_| pacer.led()).collect();
        assert_eq!(rounds(&pacer, 300, busy).await, 16);
        drop(runs);
        let few = rounds(&pacer, 300, busy).await;
        assert!((2..=8).contains(&few), "{few}");
        assert_eq!(pacer.places.available_permits(), few, "what is gone is gone");
        assert_eq!(rounds(&pacer, 3000, long_way).await, 64);
    }
}
