//! How many batches of a node are on their way at once. In: executors that have writes to propose.
//! Out: a place each, in the order of asking. While an executor waits for its place, its commands
//! gather, so that under load a batch holds what came in a whole round instead of one or two
//! commands; a node with little to do gives each a place at once, and nothing waits.
//!
//! A batch that gets no majority keeps its place, so nobody waits for one longer than `patience`:
//! a group in trouble slows the others down by that much and stops none.

use super::ExecutorConfig;
use crate::clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a node.
pub struct Pacer {
    places: Arc<Semaphore>,
    patience: Duration,
}

/// A place, given back when dropped; or the leave to go on without one.
pub(super) struct Place(Option<OwnedSemaphorePermit>);

impl Pacer {
    /// The places of a node's partitions.
    pub fn of_node(config: &ExecutorConfig) -> Arc<Self> {
        Pacer::new(config.node_in_flight, config.pace_patience)
    }

    /// Places of one executor alone, which the others do not slow down.
    pub fn alone(config: &ExecutorConfig) -> Arc<Self> {
        Pacer::new(config.max_in_flight, config.pace_patience)
    }

    fn new(places: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Pacer { places: Arc::new(Semaphore::new(places.max(1))), patience })
    }

    /// A place, if one is free and nobody waits.
    pub(super) fn try_place(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok().map(|permit| Place(Some(permit)))
    }

    /// Waits for a place, or until its time is over.
    pub(super) async fn place(self: Arc<Self>) -> Place {
        let waited = clock::timeout(self.patience, self.places.clone().acquire_owned()).await;
        Place(waited.ok().and_then(Result::ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use futures::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_order_and_nobody_waits_for_ever() {
        let pacer = Pacer::new(1, Duration::from_millis(20));
        let first = pacer.try_place().expect("a place is free");
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
        assert!(third.0.is_none() && start.elapsed() == Duration::from_millis(20), "without a place");
        drop(second);
        assert!(pacer.try_place().is_some());
    }
}
