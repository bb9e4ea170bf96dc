//! Job tasks on this peer: begins those whose partitions it leads, ends those whose leadership it
//! lost, writes down their progress and what came of them.
//!
//! In: the rows of jobs in the partitions led here. Out: attempts on threads of their own, and
//! steps, which the partition's executor commits like any write. Rows are the truth: whatever is
//! lost here is begun again by whoever leads next.

use super::hosting::{Hosted, Hosting};
use super::job_run::{self, Attempt};
use super::router::Router;
use crate::clock::{self, Instant};
use crate::compute::Registry;
use crate::error::{Code, Error, Result};
use crate::partition::{jobs as rules, rows};
use crate::types::{AckLevel, GroupId, JobId, JobInfo, JobState, JobStep, Op, ReadLevel, ReplyBody, Request, Slot};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the rows are looked at, besides when a job is known to have changed.
const PERIOD: Duration = Duration::from_millis(500);

/// Jobs that run at once on a peer; further ones wait as rows.
pub const AT_ONCE: usize = 4;

/// Time for one step to be committed, tried again while this peer leads.
const STEP: Duration = Duration::from_secs(5);

/// An attempt that runs here.
struct Running {
    group: GroupId,
    /// Asks it to end.
    ending: CancellationToken,
}

/// The job tasks of a peer.
pub struct Jobs {
    pub(super) hosting: Arc<Hosting>,
    pub(super) router: Arc<Router>,
    pub(super) registry: Arc<Registry>,
    running: Mutex<BTreeMap<JobId, Running>>,
    changed: Notify,
    pub(super) myself: Weak<Jobs>,
}

impl Jobs {
    /// Runs what the registry holds in the partitions that `hosting` leads.
    pub fn new(hosting: Arc<Hosting>, router: Arc<Router>, registry: Arc<Registry>) -> Arc<Self> {
        Arc::new_cyclic(|myself| Jobs {
            hosting,
            router,
            registry,
            running: Mutex::default(),
            changed: Notify::new(),
            myself: myself.clone(),
        })
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<JobId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run here.
    pub fn count(&self) -> usize {
        self.running().len()
    }

    /// Asks all that runs here to end: the peer goes.
    pub fn stop(&self) {
        self.running().values().for_each(|job| job.ending.cancel());
    }

    /// A job's row has changed: look now.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// Runs until it is aborted.
    pub async fn work(&self) {
        loop {
            // Whether it was woken or not: rows tell what is to be done.
            let _ = clock::timeout(PERIOD, self.changed.notified()).await;
            for (group, hosted) in self.hosting.all() {
                if group.partition().is_some() {
                    self.look_at(group, &hosted);
                }
            }
        }
    }

    fn look_at(&self, group: GroupId, hosted: &Arc<Hosted>) {
        if !*hosted.executor.leads().borrow() {
            let running = self.running();
            running.values().filter(|job| job.group == group).for_each(|job| job.ending.cancel());
            return;
        }
        let now_ms = self.router.time().ms();
        let mut old = false;
        for (_, row) in rows_of(hosted) {
            let job = match rules::decode(&row) {
                Ok(job) => job,
                Err(error) => {
                    tracing::error!(%error, %group, "a job cannot be read");
                    continue;
                }
            };
            match job.state {
                JobState::Queued | JobState::Running => self.take_up(group, job),
                _ => old |= job.ended_ms + rules::KEEP_MS < now_ms,
            }
        }
        if old && let Some(jobs) = self.myself.upgrade() {
            clock::spawn(async move { jobs.step(group, JobId::default(), JobStep::Forget).await });
        }
    }

    /// Begins a job, or passes on that it is to end.
    fn take_up(&self, group: GroupId, job: JobInfo) {
        let mut running = self.running();
        if let Some(known) = running.get(&job.id) {
            if job.cancelling {
                known.ending.cancel();
            }
            return;
        }
        let Some(jobs) = self.myself.upgrade().filter(|_| running.len() < AT_ONCE) else { return };
        let ending = CancellationToken::new();
        running.insert(job.id, Running { group, ending: ending.clone() });
        drop(running);
        clock::spawn(async move {
            let id = job.id;
            job_run::attempt(&jobs, Attempt { group, job, ending }).await;
            jobs.running().remove(&id);
            jobs.look();
        });
    }

    /// Has a step committed by the group's leader, wherever that is.
    ///
    /// # Errors
    /// Coded; `NoSuchJob`.
    pub async fn step(&self, group: GroupId, id: JobId, step: JobStep) -> Result<ReplyBody> {
        let slot = match id {
            JobId(0) => self.first_slot(group),
            id => id.slot(),
        };
        let request = Request {
            affinity: None,
            op: Op::Job { slot, id, step },
            read: ReadLevel::default(),
            ack: AckLevel::default(),
            stamp: None,
            deadline_ms: STEP.as_millis() as u32,
        };
        let reply = self.router.execute_in(group, request, None, 0, Instant::now() + STEP).await?;
        self.look();
        Ok(reply.body)
    }

    /// As [`Jobs::step`], of one job.
    ///
    /// # Errors
    /// As [`Jobs::step`].
    pub async fn step_of(&self, id: JobId, step: JobStep) -> Result<JobInfo> {
        let view = self.hosting.parts.directory.view();
        let not_ready = || Error::new(Code::NotReady, "this peer does not know its grid's partitions yet");
        let group = view.partition_of(id.slot()).ok_or_else(not_ready)?.group();
        match self.step(group, id, step).await? {
            ReplyBody::Job(job) => Ok(*job),
            _ => Err(Error::internal("a job's step got an answer of another kind")),
        }
    }

    pub(super) fn slots(&self, group: GroupId) -> (Slot, Slot) {
        let count = self.hosting.parts.directory.view().partitions();
        let range = crate::ring::slot_range(group.partition().unwrap_or_default(), count);
        (Slot(*range.start()), Slot(*range.end()))
    }

    fn first_slot(&self, group: GroupId) -> Slot {
        self.slots(group).0
    }

    /// Whether this peer leads a group.
    pub(super) fn leads(&self, group: GroupId) -> bool {
        self.hosting.get(group).is_some_and(|hosted| *hosted.executor.leads().borrow())
    }
}

/// The rows of a partition's jobs; none if they cannot be read, which is said.
fn rows_of(hosted: &Hosted) -> Vec<(Bytes, Bytes)> {
    hosted.state.scan(&rows::job_prefix(), None, rules::MAX_JOBS).unwrap_or_else(|error| {
        tracing::error!(%error, "jobs cannot be read");
        Vec::new()
    })
}
