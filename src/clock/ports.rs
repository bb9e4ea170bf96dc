//! The ports: wall clock, random numbers, threads. Production's are here; the simulator has its own.

use crate::error::{Error, Result};
use rand::RngCore;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall-clock time.
pub trait WallClock: Send + Sync + 'static {
    /// Milliseconds since 1970; may jump either way.
    fn unix_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// Random numbers: for identifiers and back-off, never for secrets.
pub trait Random: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}

/// The machine's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}

/// What a thread is for; its name in the process list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadKind {
    /// Writes and syncs the shared log; lives as long as the node.
    Log,
    /// Runs user code.
    Task,
    /// Writes checkpoints and snapshots.
    Backend,
}

/// Threads for work that must not run on the asynchronous ones.
pub trait Threads: Send + Sync + 'static {
    /// Runs a job on a thread of its kind. The simulator runs it before it returns.
    fn run(&self, kind: ThreadKind, job: Box<dyn FnOnce() + Send>);

    /// Whether [`Threads::run`] runs the job before it returns: then a job must never wait for
    /// another, and a loop that lives on belongs into a task.
    fn inline(&self) -> bool;
}

/// Real threads, a new one per job; pools stand above (see `compute`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemThreads;

impl Threads for SystemThreads {
    fn run(&self, kind: ThreadKind, job: Box<dyn FnOnce() + Send>) {
        let name = match kind {
            ThreadKind::Log => "keystead-log",
            ThreadKind::Task => "keystead-task",
            ThreadKind::Backend => "keystead-backend",
        };
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(job) {
            tracing::error!(%error, name, "no thread could be started; the work is given up");
        }
    }

    fn inline(&self) -> bool {
        false
    }
}

/// Runs a future on a thread for user code and waits for its result: its own work then keeps no
/// other task waiting. Where threads run inline it is a task like any other.
///
/// # Errors
/// `Internal` when no thread could be had, or the future panicked.
pub async fn run_future<T: Send + 'static>(
    threads: &Arc<dyn Threads>,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = async move { drop(sender.send(future.await)) };
    if threads.inline() {
        drop(super::spawn(work));
    } else {
        let runtime = tokio::runtime::Handle::current();
        threads.run(ThreadKind::Task, Box::new(move || runtime.block_on(work)));
    }
    receiver.await.map_err(|_| Error::internal("a background task ended without a result"))
}

/// Runs a job on a thread and waits for its result.
///
/// # Errors
/// `Internal` when the job panicked or no thread could be had.
pub async fn run_on<T: Send + 'static>(
    threads: &Arc<dyn Threads>,
    kind: ThreadKind,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    threads.run(kind, Box::new(move || drop(sender.send(job()))));
    receiver.await.map_err(|_| Error::internal("a background job ended without a result"))
}
