//! Keeps the node's state within its memory limit: values of clean rows leave RAM, oldest use
//! first (a clock with second chances, over all replicas in turn); rows that changed are
//! checkpointed early, so that they become clean. In: the account of memory. Out: sweeps and
//! checkpoints, one at a time. It runs only where there is a limit, and never decides about
//! writes: those that wait or are refused ask the account.

use crate::clock;
use crate::error::Code;
use crate::partition::{Hand, Memory, ReplicaState};
use std::sync::Arc;
use std::time::Duration;

/// Rows that one step of a sweep visits: for so long a replica's lock is held.
const STEP_ROWS: usize = 512;
/// How often it looks when nobody wakes it.
const PERIOD: Duration = Duration::from_millis(500);
/// Between two wake-ups, at least: what wakes it may be over at once.
const PAUSE: Duration = Duration::from_millis(5);
/// After a checkpoint that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the node's state within its memory limit.
pub struct MemoryKeeper {
    memory: Arc<Memory>,
    /// The replica at which the next sweep begins, and where in it.
    at: usize,
    hand: Hand,
}

impl MemoryKeeper {
    /// A keeper for an account.
    pub fn new(memory: Arc<Memory>) -> Self {
        MemoryKeeper { memory, at: 0, hand: Hand::default() }
    }

    /// Works until it is dropped.
    pub async fn work(mut self) {
        loop {
            if self.memory.excess() == 0 && !self.memory.wants_checkpoints() {
                // Either way it looks.
                let _ = clock::timeout(PERIOD, self.memory.wanted()).await;
            }
            let swept = self.evict().await;
            let written = self.checkpoint().await;
            let stuck = self.memory.excess() > 0 && !swept && !written;
            self.memory.set_exhausted(stuck);
            if stuck {
                clock::sleep(PAUSE * 10).await;
            } else if !written {
                clock::sleep(PAUSE).await;
            }
        }
    }

    /// Sweeps until little enough is used, or two rounds gave nothing back; whether any did.
    async fn evict(&mut self) -> bool {
        let replicas = self.memory.replicas();
        let (mut freed_any, mut fruitless) = (false, 0);
        while self.memory.excess() > 0 && fruitless <= 2 * replicas.len() && !replicas.is_empty() {
            self.at %= replicas.len();
            let (hand, freed) = replicas[self.at].sweep(std::mem::take(&mut self.hand), STEP_ROWS);
            freed_any |= freed > 0;
            if freed > 0 {
                fruitless = 0;
                self.memory.made_room();
            }
            if hand.is_at_the_start() {
                self.at += 1;
                fruitless += usize::from(freed == 0);
            }
            self.hand = hand;
            tokio::task::yield_now().await;
        }
        freed_any
    }

    /// Checkpoints the replica with most to write, if that is due; whether it did.
    async fn checkpoint(&self) -> bool {
        if !self.memory.wants_checkpoints() && self.memory.excess() == 0 {
            return false;
        }
        let replicas = self.memory.replicas();
        match replicas.iter().max_by_key(|state| state.evictable_bytes()) {
            Some(state) if state.evictable_bytes() > 0 => self.write(state).await,
            _ => false,
        }
    }

    async fn write(&self, state: &Arc<ReplicaState>) -> bool {
        let done = state.checkpoint_for_memory().await;
        self.memory.made_room();
        match done {
            Ok(()) => true,
            // It has stopped meanwhile, and gives its memory back by itself.
            Err(error) if error.code == Code::ShuttingDown => false,
            Err(error) => {
                tracing::warn!(%error, "a checkpoint that memory asks for failed; it is tried again");
                clock::sleep(RETRY).await;
                false
            }
        }
    }
}
