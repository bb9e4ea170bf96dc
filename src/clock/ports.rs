//! The ports: wall clock, random numbers, threads. Production's are here; the simulator has its own.

use crate::error::{Error, Result};
use rand::RngCore;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

type Job = Box<dyn FnOnce() + Send>;

/// Real threads. Work for backends comes in many small jobs, for which threads are used again; other
/// jobs get a new one each, and pools stand above (see `compute`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemThreads;

/// Backend threads that wait for a job, the last to become idle at the end. It is taken first: an
/// allocator keeps a heap per thread, so few threads should do the work.
static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());
/// More of them end when they have nothing to do...
const MOST_IDLE: usize = 4;
/// ... and so do these after a while.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// A backend thread that waits, and where its next job goes.
struct Idle {
    thread: ThreadId,
    jobs: mpsc::SyncSender<Job>,
}

fn idle() -> MutexGuard<'static, Vec<Idle>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands a job to an idle backend thread; gives it back when there is none.
fn reuse(mut job: Job) -> Option<Job> {
    loop {
        let Some(worker) = idle().pop() else { return Some(job) };
        match worker.jobs.send(job) {
            Ok(()) => return None,
            Err(mpsc::SendError(back)) => job = back,
        }
    }
}

/// A backend thread: its first job, and those that come while it is wanted.
fn work(first: Job) {
    let mut job = first;
    loop {
        job();
        let (sender, jobs) = mpsc::sync_channel(1);
        {
            let mut idle = idle();
            if idle.len() >= MOST_IDLE {
                return;
            }
            idle.push(Idle { thread: std::thread::current().id(), jobs: sender });
        }
        job = match jobs.recv_timeout(IDLE_FOR) {
            Ok(next) => next,
            Err(_) => {
                let me = std::thread::current().id();
                idle().retain(|other| other.thread != me);
                // Whoever had taken it from there sends a job now.
                match jobs.recv() {
                    Ok(next) => next,
                    Err(_) => return,
                }
            }
        };
    }
}

impl Threads for SystemThreads {
    fn run(&self, kind: ThreadKind, job: Box<dyn FnOnce() + Send>) {
        let (name, job): (_, Job) = match kind {
            ThreadKind::Log => ("keystead-log", job),
            ThreadKind::Task => ("keystead-task", job),
            ThreadKind::Backend => match reuse(job) {
                None => return,
                Some(job) => ("keystead-backend", Box::new(move || work(job))),
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn threads() -> Arc<dyn Threads> {
        Arc::new(SystemThreads)
    }

    #[tokio::test]
    async fn backend_jobs_use_threads_again_and_never_wait_for_one_another() {
        let threads = threads();
        let mut seen = HashSet::new();
        for _ in 0..200 {
            seen.insert(run_on(&threads, ThreadKind::Backend, || std::thread::current().id()).await.expect("runs"));
        }
        assert!(seen.len() < 100, "{} threads for 200 jobs", seen.len());
        // Each of them waits for the last: with fewer threads than jobs nothing would come back.
        let barrier = Arc::new(std::sync::Barrier::new(20));
        let waiting = (0..20).map(|_| {
            let barrier = barrier.clone();
            run_on(&threads, ThreadKind::Backend, move || {
                barrier.wait();
            })
        });
        for done in futures::future::join_all(waiting).await {
            done.expect("runs");
        }
        let panics = run_on(&threads, ThreadKind::Backend, || panic!("on purpose")).await;
        assert!(panics.is_err() && run_on(&threads, ThreadKind::Backend, || 7).await == Ok(7));
    }
}
