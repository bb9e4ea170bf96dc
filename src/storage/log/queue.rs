//! The queue before the log thread: bounded in bytes and requests by one semaphore, in which a
//! request costs its bytes and a share for being one. Room is taken before a group is locked, so
//! that pushing itself never waits and keeps the group's order.

use super::ReplicaKey;
use super::group::GroupCell;
use crate::clock::Instant;
use bytes::Bytes;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Runs when the request is durable, or has failed.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What the log thread is asked to write.
pub(super) enum Op {
    Append { cell: Arc<GroupCell>, epoch: u32, entries: Vec<(u64, Bytes)>, done: Done },
    Vote { cell: Arc<GroupCell>, vote: Bytes, done: Done },
    Truncate { key: ReplicaKey, after: Option<u64> },
    Purge { key: ReplicaKey, index: u64, id: Bytes },
    Register { key: ReplicaKey, done: Done },
    Tombstone { key: ReplicaKey, done: Done },
}

/// All that waited.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) ops: Vec<Op>,
    /// Marks that ride along with whatever is written; the latest of each replica.
    pub(super) committed: Vec<(ReplicaKey, Bytes)>,
    pub(super) closed: bool,
}

#[derive(Default)]
struct State {
    ops: Vec<Op>,
    cost: usize,
    committed: std::collections::BTreeMap<ReplicaKey, Bytes>,
    closed: bool,
    /// The log thread waits on the condition variable.
    waiting: bool,
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    filled_async: Notify,
    room: Semaphore,
    capacity: u32,
    per_request: u32,
    inline: bool,
}

impl Queue {
    /// A queue for a log thread, or with `inline` for a log task.
    pub(super) fn new(bytes: u32, requests: u32, inline: bool) -> Queue {
        Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            filled_async: Notify::new(),
            room: Semaphore::new(bytes as usize),
            capacity: bytes,
            per_request: (bytes / requests).max(1),
            inline,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for a request of so many bytes; `None` once the queue is closed. It is to be
    /// pushed or released.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<Room> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let cost = bytes.saturating_add(self.per_request).min(self.capacity);
        self.room.acquire_many(cost).await.ok()?.forget();
        Some(Room(cost as usize))
    }

    /// Gives room back that was not used.
    pub(super) fn release(&self, room: Room) {
        self.room.add_permits(room.0);
    }

    /// Puts a request in; `false` once the queue is closed.
    pub(super) fn push(&self, op: Op, room: Room) -> bool {
        let wake = {
            let mut state = self.state();
            if state.closed {
                return false;
            }
            state.ops.push(op);
            state.cost += room.0;
            std::mem::take(&mut state.waiting)
        };
        self.wake(wake);
        true
    }

    /// Leaves a mark that is written with the next request.
    pub(super) fn committed(&self, key: ReplicaKey, mark: Bytes) {
        self.state().committed.insert(key, mark);
    }

    fn wake(&self, thread_waits: bool) {
        if self.inline {
            self.filled_async.notify_one();
        } else if thread_waits {
            self.filled.notify_one();
        }
    }

    /// Ends the queue: nothing goes in any more; what is in is still taken.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.room.close();
        self.wake(true);
    }

    /// Takes all that waits, without waiting.
    pub(super) fn take(&self) -> Taken {
        let (taken, cost) = self.state().take();
        self.room.add_permits(cost);
        taken
    }

    /// Takes the marks that wait for a write.
    pub(super) fn take_committed(&self) -> Vec<(ReplicaKey, Bytes)> {
        std::mem::take(&mut self.state().committed).into_iter().collect()
    }

    /// Takes all that waits, or waits for it this long; what is there waits for more until
    /// `not_before`. For the log thread.
    pub(super) fn take_blocking(&self, patience: Option<Duration>, not_before: Option<Instant>) -> Taken {
        let mut state = self.state();
        if state.ops.is_empty() && !state.closed {
            state.waiting = true;
            let unready = |state: &mut State| state.ops.is_empty() && !state.closed;
            state = match patience {
                None => self.filled.wait_while(state, unready).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.filled.wait_timeout_while(state, patience, unready);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waiting = false;
        }
        while let Some(left) = not_before.map(|at| at.saturating_duration_since(Instant::now()))
            && !left.is_zero()
            && !state.ops.is_empty()
            && !state.closed
        {
            // Only the queue's end wakes it earlier.
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (taken, cost) = state.take();
        drop(state);
        self.room.add_permits(cost);
        taken
    }

    /// Waits until something is in or the queue is closed. For the log task.
    pub(super) async fn filled(&self) {
        loop {
            {
                let state = self.state();
                if !state.ops.is_empty() || state.closed {
                    return;
                }
            }
            self.filled_async.notified().await;
        }
    }
}

impl State {
    fn take(&mut self) -> (Taken, usize) {
        // Marks wait for a request: they are worth no write of their own, except the last.
        let committed = if self.ops.is_empty() && !self.closed {
            Vec::new()
        } else {
            std::mem::take(&mut self.committed).into_iter().collect()
        };
        let taken = Taken { ops: std::mem::take(&mut self.ops), committed, closed: self.closed };
        (taken, std::mem::take(&mut self.cost))
    }
}

/// Room in the queue, taken by [`Queue::reserve`].
#[must_use]
pub(super) struct Room(usize);
