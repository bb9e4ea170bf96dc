//! Linearizable reads that no batch proves: they wait for a round that was begun after they came
//! (one for all that wait) and for the verdict on everything that they saw (models A-3).

use super::run::Waiting;
use crate::clock::Instant;
use crate::error::Result;
use futures::future::BoxFuture;

/// A read with the number of the last batch that it may have seen.
struct Read {
    waiting: Waiting,
    saw: u64,
}

/// The reads of a run.
#[derive(Default)]
pub(super) struct Reads {
    /// Came after the present round began.
    next: Vec<Read>,
    /// Covered by the present round.
    asked: Vec<Read>,
    /// Confirmed; what they saw is still on its way.
    confirmed: Vec<Read>,
    round: Option<BoxFuture<'static, Result<u64>>>,
}

impl Reads {
    pub(super) fn push(&mut self, waiting: Waiting, saw: u64) {
        self.next.push(Read { waiting, saw });
    }

    /// Whether a round should begin: reads wait and none is under way.
    pub(super) fn wants_round(&self) -> bool {
        self.round.is_none() && !self.next.is_empty()
    }

    /// Begins a round for all that wait.
    pub(super) fn begin_round(&mut self, round: BoxFuture<'static, Result<u64>>) {
        self.asked.append(&mut self.next);
        self.round = Some(round);
    }

    pub(super) fn round_runs(&self) -> bool {
        self.round.is_some()
    }

    /// Waits for the present round; for ever if there is none.
    pub(super) async fn round(&mut self) -> Result<u64> {
        match &mut self.round {
            Some(round) => {
                let result = round.await;
                self.round = None;
                result
            }
            None => std::future::pending().await,
        }
    }

    /// The round confirmed leadership: gives the reads that may be answered.
    pub(super) fn confirm(&mut self, effective: u64) -> Vec<Waiting> {
        // What they saw may be on its way for long; nobody has to wait for it.
        let now = Instant::now();
        self.confirmed.retain(|read| !read.waiting.abandoned(now));
        self.confirmed.append(&mut self.asked);
        self.release(effective)
    }

    /// The round failed: its reads wait for another. Those that nobody waits for go: without a
    /// majority round after round may fail.
    pub(super) fn ask_again(&mut self) {
        let now = Instant::now();
        for queue in [&mut self.next, &mut self.asked, &mut self.confirmed] {
            queue.retain(|read| !read.waiting.abandoned(now));
        }
        let later = std::mem::take(&mut self.next);
        self.next.append(&mut self.asked);
        self.next.extend(later);
    }

    /// Batches up to `effective` took effect: gives the reads that may be answered.
    pub(super) fn release(&mut self, effective: u64) -> Vec<Waiting> {
        let (ready, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.confirmed).into_iter().partition(|read| read.saw <= effective);
        self.confirmed = wait;
        ready.into_iter().map(|read| read.waiting).collect()
    }

    /// All reads, in the order in which they came.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = Waiting> {
        self.confirmed.into_iter().chain(self.asked).chain(self.next).map(|read| read.waiting)
    }
}
