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
use crate::compute::{MAX_TEXT, Registry, cut};
use crate::error::{Code, Error, Result};
use crate::partition::{jobs as rules, rows};
use crate::types::{AckLevel, GroupId, JobId, JobInfo, JobState, JobStep, Op, ReadLevel, ReplyBody, Request, Slot};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Groups whose waiting jobs are being told why.
    telling: Mutex<BTreeSet<GroupId>>,
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
            telling: Mutex::default(),
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
        let (mut old, mut waiting) = (false, Vec::new());
        for (_, row) in rows_of(hosted) {
            let job = match rules::decode(&row) {
                Ok(job) => job,
                Err(error) => {
                    tracing::error!(%error, %group, "a job cannot be read");
                    continue;
                }
            };
            match job.state {
                JobState::Queued | JobState::Running => match self.waits(&job, now_ms) {
                    Some(text) if job.state == JobState::Queued && job.text == text => {}
                    Some(text) => waiting.push((job.id, JobStep::Wait { attempt: job.attempt, text })),
                    None => self.take_up(group, job),
                },
                _ => old |= job.ended_ms + rules::KEEP_MS < now_ms,
            }
        }
        if !waiting.is_empty() {
            self.tell(group, waiting);
        }
        if old && let Some(jobs) = self.myself.upgrade() {
            clock::spawn(async move { jobs.step(group, JobId::default(), JobStep::Forget).await });
        }
    }

    /// Why a job is not begun here, though this peer leads: it lacks it, and another carries it, to
    /// which the leadership goes when it is there. What is to end all the same is begun, and ends so.
    fn waits(&self, job: &JobInfo, now_ms: u64) -> Option<String> {
        if job.cancelling || now_ms >= job.deadline_ms {
            return None;
        }
        let error = self.registry.check_job(&job.name).err()?;
        let lacking = self.hosting.parts.directory.lacking(error, &job.name, "leads the partition and ");
        (lacking.code == Code::TaskNotCarried).then(|| cut(format!("waits: {}", lacking.what), MAX_TEXT))
    }

    /// Writes down why jobs wait, one after the other; what fails is tried at the next look.
    fn tell(&self, group: GroupId, waiting: Vec<(JobId, JobStep)>) {
        let telling = move |jobs: &Jobs, begins: bool| {
            let mut telling = jobs.telling.lock().unwrap_or_else(PoisonError::into_inner);
            if begins { telling.insert(group) } else { telling.remove(&group) }
        };
        let Some(jobs) = self.myself.upgrade().filter(|jobs| telling(jobs, true)) else { return };
        clock::spawn(async move {
            for (id, step) in waiting {
                if let Err(error) = jobs.step(group, id, step).await {
                    tracing::debug!(%error, job = %id, "why a job waits could not be written down");
                }
            }
            telling(&jobs, false);
        });
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
