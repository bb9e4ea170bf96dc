//! The threads that run user code, and the queue that feeds them.
//!
//! A turn (a list of calls) goes to one thread, which runs it call by call and publishes how far
//! it is. Whoever waits for the turn may give it up at an overrun: then that thread counts as
//! stuck, another may be started in its place, and when it comes back its result is discarded
//! and it ends. Lock order: a turn's state before the pool's.

use super::Registry;
use super::execute::{Counters, execute};
use super::overlay::Overlay;
use super::runner::RunnerConfig;
use crate::clock::{Instant, ThreadKind, Threads};
use crate::error::{Code, Error, Result};
use crate::partition::{SlotView, TaskCall, TaskOutcome};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Some calls on their way through a thread.
pub(super) struct Turn {
    pub(super) view: Arc<dyn SlotView>,
    pub(super) calls: Arc<[TaskCall]>,
    /// The first of `calls` that this turn runs.
    pub(super) first: usize,
    /// Writes of the calls before `first`.
    pub(super) earlier: Overlay,
    state: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    outcomes: Vec<TaskOutcome>,
    /// The call that is being run, and since when.
    running: Option<(usize, Instant)>,
    /// The call that is running has overrun: its thread is on its own.
    given_up: bool,
    /// Nobody waits any more: no further call is begun.
    abandoned: bool,
}

/// How a turn stands.
pub(super) enum Standing {
    /// Look again after this.
    Wait(Duration),
    /// This call has overrun its deadline. Its thread is counted as stuck.
    Overrun(usize),
}

impl Turn {
    pub(super) fn new(view: Arc<dyn SlotView>, calls: Arc<[TaskCall]>, first: usize, earlier: Overlay) -> Self {
        Turn { view, calls, first, earlier, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcomes so far; the turn's thread adds none after it was given up.
    pub(super) fn take_outcomes(&self) -> Vec<TaskOutcome> {
        std::mem::take(&mut self.state().outcomes)
    }

    pub(super) fn abandon(&self) {
        self.state().abandoned = true;
    }

    /// Looks for an overrun. To miss none by more than a moment, wait at most `at_most`, the
    /// shortest deadline of the turn, between two looks.
    pub(super) fn look(&self, pool: &Pool, at_most: Duration) -> Standing {
        let mut state = self.state();
        let Some((index, since)) = state.running else { return Standing::Wait(at_most) };
        let deadline = self.calls.get(index).map_or(at_most, |call| call.deadline);
        let spent = since.elapsed();
        if spent < deadline {
            return Standing::Wait(at_most.min(deadline - spent));
        }
        state.given_up = true;
        // Counted before the thread can see that it was given up, and count itself out.
        pool.count_stuck();
        Standing::Overrun(index)
    }

    /// Begins a call, unless nobody wants it.
    fn begin(&self, index: usize) -> bool {
        let mut state = self.state();
        if state.abandoned {
            return false;
        }
        state.running = Some((index, Instant::now()));
        true
    }

    /// Publishes a call's outcome; false when it comes too late.
    fn end(&self, outcome: TaskOutcome) -> bool {
        let mut state = self.state();
        if state.given_up {
            return false;
        }
        state.running = None;
        state.outcomes.push(outcome);
        true
    }

    /// Runs the calls; false when the turn was given up meanwhile.
    fn run(&self, env: &Environment) -> bool {
        let mut earlier = self.earlier.clone();
        for (index, call) in self.calls.iter().enumerate().skip(self.first) {
            if !self.begin(index) {
                return true;
            }
            let limit = env.config.max_write_bytes;
            let outcome = execute(&env.registry, self.view.as_ref(), &earlier, call, limit, &env.counters);
            earlier.absorb(&outcome.writes);
            if !self.end(outcome) {
                return false;
            }
        }
        true
    }
}

/// What every thread needs.
pub(super) struct Environment {
    pub(super) registry: Arc<Registry>,
    pub(super) config: RunnerConfig,
    pub(super) counters: Counters,
}

/// A turn in the queue. Dropping it tells whoever waits that no more outcomes will come.
struct Job {
    turn: Arc<Turn>,
    _done: oneshot::Sender<()>,
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<Job>,
    /// Threads that take work, idle ones included, stuck ones not.
    live: usize,
    idle: usize,
    stuck: usize,
    closed: bool,
}

pub(super) struct Pool {
    pub(super) env: Arc<Environment>,
    threads: Arc<dyn Threads>,
    state: Mutex<PoolState>,
    work: Condvar,
}

impl Pool {
    pub(super) fn new(env: Arc<Environment>, threads: Arc<dyn Threads>) -> Arc<Self> {
        Arc::new(Pool { env, threads, state: Mutex::default(), work: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stuck(&self) -> usize {
        self.state().stuck
    }

    /// Queues a turn. The receiver ends when nothing more will come of it.
    pub(super) fn submit(self: &Arc<Self>, turn: Arc<Turn>) -> Result<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            if state.closed {
                return Err(Error::new(Code::ShuttingDown, "the peer is shutting down"));
            }
            if state.stuck >= self.env.config.max_stuck {
                let stuck = state.stuck;
                return Err(Error::new(Code::Overloaded, format!("{stuck} threads are stuck in tasks that overran")));
            }
            if state.queue.len() >= self.env.config.max_queued_turns {
                return Err(Error::new(Code::Overloaded, "too many tasks wait for a thread"));
            }
            state.queue.push_back(Job { turn, _done: sender });
        }
        self.work.notify_one();
        self.fill_up();
        Ok(receiver)
    }

    /// Starts a thread if work waits for one and the pool is not full.
    pub(super) fn fill_up(self: &Arc<Self>) {
        {
            let mut state = self.state();
            let enough = state.idle >= state.queue.len() || state.live >= self.env.config.threads.max(1);
            if enough || state.closed {
                return;
            }
            state.live += 1;
        }
        let seat = Seat { pool: self.clone(), late: false };
        self.threads.run(ThreadKind::Task, Box::new(move || seat.work()));
    }

    fn count_stuck(&self) {
        let mut state = self.state();
        state.live -= 1;
        state.stuck += 1;
    }

    /// The next turn; `None` when the thread is to end.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Ends all threads that are not stuck; what waits gets no outcome.
    pub(super) fn close(&self) {
        let queue = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.queue)
        };
        drop(queue);
        self.work.notify_all();
    }
}

/// A thread's place in the pool; given back when the thread ends, or could not be started.
struct Seat {
    pool: Arc<Pool>,
    /// The thread was counted as stuck and has come back.
    late: bool,
}

impl Seat {
    fn work(mut self) {
        while let Some(job) = self.pool.next() {
            if !job.turn.run(&self.pool.env) {
                self.late = true;
                return;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let orphaned = {
            let mut state = self.pool.state();
            if self.late {
                state.stuck -= 1;
                return;
            }
            state.live -= 1;
            // The last thread could not be started: nobody would ever take what waits.
            if state.live == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() }
        };
        drop(orphaned);
    }
}
