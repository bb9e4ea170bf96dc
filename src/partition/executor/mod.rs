//! The executor: one actor per replica that, while the replica leads, drains its mailbox, runs
//! the commands in order against state and turns everything they did into one batch per turn.
//!
//! It lives in runs (DESIGN section 3). A run begins with a marker and executes nothing before
//! that marker is applied; it ends with the first proposal that is refused, fails or has no
//! effect, and with the leadership. Nothing leaves before apply's verdict on the very batch that
//! it depends on; only answers of level `accepted` do.

mod answers;
mod dropped;
mod expiry;
#[cfg(test)]
mod fuzz;
mod limits;
mod pacer;
mod prefetch;
mod reads;
mod record;
mod reply;
mod run;
mod tasks;
mod turn;

use super::cancelled::Cancelled;
use super::entry::{Marker, PartitionEntry};
use super::overlay::MapDirectory;
use super::replica::ReplicaState;
use super::sessions::SessionLimits;
use super::user_code::TaskRunner;
use crate::clock::{self, Instant, Random, WallClock};
use crate::error::{Code, Error, Result};
use crate::raft::{Confirmer, Group, Leadership, Verdict};
use crate::types::{MapDescriptor, NodeId, Request, RunId};
pub use pacer::Pacer;
pub use reply::{Answer, Answered, ReplyTo, StreamReply};
use run::{Ended, Run};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Bounds of an executor.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// Commands that may wait in the mailbox; beyond it they are refused at once.
    pub mailbox: usize,
    /// Commands in one turn.
    pub max_turn: usize,
    /// Bytes of one batch.
    pub max_batch_bytes: usize,
    /// Batches on their way through the log.
    pub max_in_flight: usize,
    /// Batches of all partitions of the node on their way at once, at most; while a batch waits
    /// for its place among them, it gathers commands.
    pub node_in_flight: usize,
    /// How long a batch waits for its place, at most.
    pub pace_patience: Duration,
    /// How long a task's handler may run, at most.
    pub task_deadline: Duration,
    /// Bounds of the sessions.
    pub sessions: SessionLimits,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        ExecutorConfig {
            mailbox: 8_192,
            max_turn: 1_024,
            max_batch_bytes: 1 << 20,
            max_in_flight: 4,
            node_in_flight: 256,
            pace_patience: Duration::from_millis(20),
            task_deadline: Duration::from_secs(5),
            sessions: SessionLimits::default(),
        }
    }
}

/// Counts of what an executor did, since the process began.
#[derive(Debug, Default)]
pub struct ExecutorStats {
    /// Commands answered.
    pub commands: AtomicU64,
    /// Batches that took effect.
    pub batches: AtomicU64,
    /// Rounds that confirmed leadership for reads.
    pub read_rounds: AtomicU64,
    /// Runs begun.
    pub runs: AtomicU64,
    /// Proposals that were refused, failed or had no effect.
    pub fenced: AtomicU64,
    /// Tasks run.
    pub tasks: AtomicU64,
    /// Entries deleted because their time was over.
    pub expired: AtomicU64,
    /// Entries deleted because their map was at a limit.
    pub evicted: AtomicU64,
    /// Writes refused because their map was at a limit.
    pub map_full: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A command for an executor.
pub struct Job {
    /// The request; its keys lie in this partition.
    pub request: Request,
    /// The map that it names; `None` for a task.
    pub map: Option<MapDescriptor>,
    /// Peers that it has passed.
    pub hops: u32,
    /// When nobody waits for it any more.
    pub expires: Instant,
    /// It was in a batch that went to the log, of which no verdict came: until it is executed again,
    /// nobody knows whether it took effect.
    pub flown: bool,
    /// Where the answer goes.
    pub reply: ReplyTo,
}

/// What an executor needs from around it.
pub struct ExecutorParts {
    /// The replica's group.
    pub group: Arc<Group>,
    /// Proves its leadership for reads.
    pub confirmer: Arc<Confirmer>,
    /// Spreads the node's proposals.
    pub pacer: Arc<Pacer>,
    /// The replica's state.
    pub replica: Arc<ReplicaState>,
    /// The grid's maps.
    pub maps: Arc<dyn MapDirectory>,
    /// Runs user code.
    pub tasks: Arc<dyn TaskRunner>,
    /// Tasks that somebody has cancelled.
    pub cancelled: Arc<Cancelled>,
    /// The wall clock.
    pub clock: Arc<dyn WallClock>,
    /// Draws run ids.
    pub random: Arc<dyn Random>,
    /// The own node.
    pub node: NodeId,
    /// Bounds.
    pub config: ExecutorConfig,
    /// Counts.
    pub stats: Arc<ExecutorStats>,
}

/// Handle of a running executor; it ends when the last handle is dropped or [`Executor::stop`]ped.
pub struct Executor {
    mailbox: mpsc::Sender<Job>,
    leads: watch::Receiver<bool>,
    unreadable: watch::Receiver<bool>,
    task: clock::JoinHandle<()>,
}

impl Executor {
    /// Starts an executor.
    pub fn start(parts: ExecutorParts) -> Self {
        let (mailbox, jobs) = mpsc::channel(parts.config.mailbox.max(1));
        let (leading, leads) = watch::channel(false);
        let (broken, unreadable) = watch::channel(false);
        let task = clock::spawn(Actor { parts, jobs, leading, broken, run: None, backlog: VecDeque::new() }.work());
        Executor { mailbox, leads, unreadable, task }
    }

    /// Hands a command over.
    ///
    /// # Errors
    /// `Overloaded` when the mailbox is full, `ShuttingDown`.
    pub fn submit(&self, job: Job) -> Result<()> {
        self.mailbox.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })
    }

    /// As [`Executor::submit`]; a command that cannot be taken is answered with why.
    pub fn submit_or_refuse(&self, job: Job) {
        let (job, error) = match self.mailbox.try_send(job) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(job)) => (job, full()),
            Err(mpsc::error::TrySendError::Closed(job)) => (job, stopped()),
        };
        job.reply.send(Err(error), job.request);
    }

    /// Whether a run is under way, and every change.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Whether its replica leads and no run can begin, because the state cannot be read: another
    /// replica is to lead.
    pub fn is_unreadable(&self) -> bool {
        *self.unreadable.borrow()
    }

    /// Ends it; commands that wait are refused, so that they are tried elsewhere.
    pub fn stop(&self) {
        self.task.abort();
    }
}

fn full() -> Error {
    Error::new(Code::Overloaded, "the partition's mailbox is full")
}

fn stopped() -> Error {
    Error::new(Code::ShuttingDown, "the partition has stopped")
}

struct Actor {
    parts: ExecutorParts,
    jobs: mpsc::Receiver<Job>,
    leading: watch::Sender<bool>,
    /// The state of the replica that leads cannot be read.
    broken: watch::Sender<bool>,
    /// The run under way.
    run: Option<Run>,
    /// Commands of an ended run that are to be executed again, before any new one.
    backlog: VecDeque<Job>,
}

impl Actor {
    async fn work(mut self) {
        let mut leadership = self.parts.group.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            if !now.is_me {
                self.broken.send_replace(false);
                if !self.refuse_until_change(&now, &mut leadership).await {
                    return;
                }
                continue;
            }
            let Some(run) = self.begin_run(now.term, &mut leadership).await else { continue };
            let run = self.run.insert(run);
            self.leading.send_replace(true);
            let ended = run.drive(&mut self.jobs, &mut self.backlog, &mut leadership).await;
            self.leading.send_replace(false);
            self.end_run();
            if ended == Ended::Closed {
                return;
            }
        }
    }

    /// What the run left unanswered comes before what is new.
    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        let later = std::mem::replace(&mut self.backlog, run.into_backlog().into());
        self.backlog.extend(later);
    }

    /// Answers commands while another replica leads; false when nobody can send any more.
    async fn refuse_until_change(&mut self, now: &Leadership, leadership: &mut watch::Receiver<Leadership>) -> bool {
        for job in std::mem::take(&mut self.backlog) {
            answers::refuse(job, answers::led_elsewhere(now));
        }
        tokio::select! {
            biased;
            changed = leadership.changed() => changed.is_ok(),
            job = self.jobs.recv() => match job {
                Some(job) => {
                    answers::refuse(job, answers::led_elsewhere(now));
                    true
                }
                None => false,
            },
        }
    }

    /// Proposes a marker and waits until it is applied; `None` when it was not to be.
    async fn begin_run(&mut self, term: u64, leadership: &mut watch::Receiver<Leadership>) -> Option<Run> {
        let run = RunId(self.parts.random.next_u64());
        let marker = PartitionEntry::Marker(Marker { term, run }).encode();
        let verdict = match self.parts.group.propose(term, marker).await {
            Ok(receiver) => receiver.wait(),
            Err(_) => {
                clock::sleep(Duration::from_millis(50)).await;
                return None;
            }
        };
        let mut verdict = std::pin::pin!(verdict);
        loop {
            tokio::select! {
                biased;
                verdict = &mut verdict => match verdict {
                    Verdict::Applied(outcome) if outcome.took_effect => break,
                    _ => {
                        // Refused although it leads: its write lease has run out (TECH 2a). A
                        // round renews it.
                        count(&self.parts.stats.fenced);
                        let _ = clock::timeout(Duration::from_millis(500), self.parts.group.confirm_leadership()).await;
                        clock::sleep(Duration::from_millis(5)).await;
                        return None;
                    }
                },
                changed = leadership.changed() => {
                    let now = *leadership.borrow_and_update();
                    if changed.is_err() || !now.is_me || now.term != term {
                        return None;
                    }
                }
            }
        }
        count(&self.parts.stats.runs);
        match Run::begin(&self.parts, term, run) {
            Ok(run) => {
                self.broken.send_replace(false);
                Some(run)
            }
            Err(error) => {
                tracing::error!(%error, "a run cannot begin: its state cannot be read; another replica is to lead");
                self.broken.send_replace(true);
                // Not with the damage's own code: of a write that came before it is no verdict.
                let why = Error::new(Code::NotReady, format!("this replica's state cannot be read: {}", error.brief()));
                let waiting = std::iter::from_fn(|| self.jobs.try_recv().ok());
                for job in std::mem::take(&mut self.backlog).into_iter().chain(waiting) {
                    answers::refuse(job, why.clone());
                }
                clock::sleep(Duration::from_millis(500)).await;
                None
            }
        }
    }
}

/// However it ends: whoever waits is told to ask elsewhere.
impl Drop for Actor {
    fn drop(&mut self) {
        self.end_run();
        self.jobs.close();
        let backlog = std::mem::take(&mut self.backlog);
        let mailbox = std::iter::from_fn(|| self.jobs.try_recv().ok());
        for job in backlog.into_iter().chain(mailbox) {
            answers::refuse(job, stopped());
        }
    }
}

#[cfg(test)]
mod tests;
