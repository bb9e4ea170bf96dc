//! The task runner: hands turns to the pool's threads and watches their deadlines.
//!
//! Where threads run inline (the simulator) a turn runs within the call, and an overrun cannot be
//! interrupted or even noticed: a handler that never returns hangs the simulation.

use super::Registry;
use super::execute::{Counters, execute, failed};
use super::overlay::Overlay;
use super::pool::{Environment, Pool, Standing, Turn};
use crate::clock::{ThreadKind, Threads, run_on, sleep, spawn};
use crate::error::{Code, Error};
use crate::partition::{SlotView, TaskCall, TaskOutcome, TaskRunner};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// Limits of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerConfig {
    /// Threads that run tasks, stuck ones not counted. Default: 2.
    pub threads: usize,
    /// At this many stuck threads further calls answer `Overloaded`. Default: 8.
    pub max_stuck: usize,
    /// Turns that may wait for a thread; one per partition at most. Default: 1024.
    pub max_queued_turns: usize,
    /// Bytes of keys and values that one call may write. Default: 1 MiB, a log entry's size.
    pub max_write_bytes: usize,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        RunnerConfig { threads: 2, max_stuck: 8, max_queued_turns: 1024, max_write_bytes: 1024 * 1024 }
    }
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunnerStats {
    /// Calls begun.
    pub calls: u64,
    /// Calls that overran their deadline.
    pub overruns: u64,
    /// Calls that panicked.
    pub panics: u64,
    /// Entries read by tasks, all of them locally.
    pub state_reads: u64,
    /// Threads stuck in user code that overran, now.
    pub stuck_threads: usize,
}

/// Runs tasks on a bounded pool of threads of their own.
pub struct ThreadPoolRunner {
    pool: Arc<Pool>,
    threads: Arc<dyn Threads>,
}

impl ThreadPoolRunner {
    /// A runner; its threads are started when they are first needed.
    pub fn new(registry: Arc<Registry>, threads: Arc<dyn Threads>, config: RunnerConfig) -> Self {
        let env = Arc::new(Environment { registry, config, counters: Counters::default() });
        ThreadPoolRunner { pool: Pool::new(env, threads.clone()), threads }
    }

    /// Counts for metrics.
    pub fn stats(&self) -> RunnerStats {
        let counters = &self.pool.env.counters;
        RunnerStats {
            calls: counters.calls.load(Ordering::Relaxed),
            overruns: counters.overruns.load(Ordering::Relaxed),
            panics: counters.panics.load(Ordering::Relaxed),
            state_reads: counters.state_reads.load(Ordering::Relaxed),
            stuck_threads: self.pool.stuck(),
        }
    }

    async fn run_inline(&self, view: Arc<dyn SlotView>, calls: Vec<TaskCall>) -> Vec<TaskOutcome> {
        let (env, count) = (self.pool.env.clone(), calls.len());
        let job = move || {
            let mut earlier = Overlay::default();
            let run = |call: TaskCall| {
                let limit = env.config.max_write_bytes;
                let outcome = execute(&env.registry, view.as_ref(), &earlier, &call, limit, &env.counters);
                earlier.absorb(&outcome.writes);
                outcome
            };
            calls.into_iter().map(run).collect()
        };
        match run_on(&self.threads, ThreadKind::Task, job).await {
            Ok(outcomes) => outcomes,
            Err(error) => (0..count).map(|_| failed(error.clone())).collect(),
        }
    }

    async fn run_pooled(&self, view: Arc<dyn SlotView>, calls: Arc<[TaskCall]>) -> Vec<TaskOutcome> {
        let mut outcomes = Vec::with_capacity(calls.len());
        let mut earlier = Overlay::default();
        while outcomes.len() < calls.len() {
            let first = outcomes.len();
            let turn = Arc::new(Turn::new(view.clone(), calls.clone(), first, earlier.clone()));
            let ended = match self.pool.submit(turn.clone()) {
                Ok(done) => Watch::new(turn.clone(), self.pool.clone(), done).ended().await,
                Err(error) => Ended::Refused(error),
            };
            for outcome in turn.take_outcomes() {
                earlier.absorb(&outcome.writes);
                outcomes.push(outcome);
            }
            match ended {
                Ended::Overrun(index) => outcomes.extend(calls.get(index).map(overrun)),
                Ended::Done if outcomes.len() == calls.len() => break,
                Ended::Done => {
                    let error = Error::new(Code::Overloaded, "no thread could be had for the task");
                    outcomes.resize_with(calls.len(), || failed(error.clone()));
                }
                Ended::Refused(error) => outcomes.resize_with(calls.len(), || failed(error.clone())),
            }
        }
        outcomes
    }
}

fn overrun(call: &TaskCall) -> TaskOutcome {
    tracing::warn!(task = call.name, deadline = ?call.deadline, "a task overran its deadline; its writes are undone");
    let what = format!("the handler ran longer than its {} ms", call.deadline.as_millis());
    failed(Error::new(Code::TaskOverrun, what).at(format!("task {}", call.name)))
}

#[async_trait::async_trait]
impl TaskRunner for ThreadPoolRunner {
    async fn run(&self, view: Arc<dyn SlotView>, calls: Vec<TaskCall>) -> Vec<TaskOutcome> {
        if self.threads.inline() {
            return self.run_inline(view, calls).await;
        }
        self.run_pooled(view, calls.into()).await
    }

    fn names(&self) -> Vec<String> {
        self.pool.env.registry.names()
    }

    fn state_reads(&self) -> u64 {
        self.stats().state_reads
    }

    fn stuck_threads(&self) -> usize {
        self.pool.stuck()
    }
}

impl Drop for ThreadPoolRunner {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// How waiting for a turn ended.
enum Ended {
    /// Its thread is through with it, or it was dropped from the queue.
    Done,
    /// A call overran; the turn's thread is stuck.
    Overrun(usize),
    /// It was not taken.
    Refused(Error),
}

/// Waits for a turn. If whoever runs it goes away in the middle, the watch goes on in the
/// background, so that a thread that gets stuck is still replaced and counted.
struct Watch {
    turn: Arc<Turn>,
    pool: Arc<Pool>,
    done: Option<oneshot::Receiver<()>>,
}

impl Watch {
    fn new(turn: Arc<Turn>, pool: Arc<Pool>, done: oneshot::Receiver<()>) -> Self {
        Watch { turn, pool, done: Some(done) }
    }

    async fn ended(mut self) -> Ended {
        let Some(done) = self.done.as_mut() else { return Ended::Done };
        let ended = watch(&self.turn, &self.pool, done).await;
        self.done = None;
        ended
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(mut done) = self.done.take() else { return };
        self.turn.abandon();
        // Without a runtime the process is ending.
        if tokio::runtime::Handle::try_current().is_ok() {
            let (turn, pool) = (self.turn.clone(), self.pool.clone());
            drop(spawn(async move { watch(&turn, &pool, &mut done).await }));
        }
    }
}

async fn watch(turn: &Turn, pool: &Arc<Pool>, done: &mut oneshot::Receiver<()>) -> Ended {
    const SHORTEST: Duration = Duration::from_millis(1);
    let deadlines = turn.calls.iter().skip(turn.first).map(|call| call.deadline);
    let at_most = deadlines.min().unwrap_or(SHORTEST).max(SHORTEST);
    let mut wait = at_most;
    loop {
        tokio::select! {
            biased;
            // An error means that the sender was dropped, which is how a turn ends.
            _ = &mut *done => return Ended::Done,
            () = sleep(wait) => {}
        }
        match turn.look(pool, at_most) {
            Standing::Wait(rest) => wait = rest.max(SHORTEST),
            Standing::Overrun(index) => {
                pool.env.counters.overruns.fetch_add(1, Ordering::Relaxed);
                pool.fill_up();
                return Ended::Overrun(index);
            }
        }
    }
}
