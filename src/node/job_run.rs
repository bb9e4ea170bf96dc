//! One attempt of a job: begun by a committed step, run on a thread of its own, ended by another.

use super::jobs::Jobs;
use super::stamper::Stamper;
use crate::clock::{self, Instant, run_future};
use crate::compute::{JobContext, JobGrid, JobIdentity, JobProgress};
use crate::error::{Code, Error, Result};
use crate::partition::{MapDirectory, Page, Place, SlotView, View};
use crate::types::{
    AckLevel, GroupId, JobInfo, JobState, JobStep, MapDescriptor, Op, ReadLevel, Reply, ReplyBody, Request, Slot,
    TaskPayload,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often progress is written down at most.
const REPORT: Duration = Duration::from_millis(500);

/// How long a job that was asked to end may take to do so.
const GRACE: Duration = Duration::from_secs(2);

/// How long after that its thread is waited for.
const THREAD: Duration = Duration::from_secs(1);

/// Time for one command of a job.
const COMMAND: Duration = Duration::from_secs(30);

/// The largest result that is kept.
const MAX_RESULT: usize = 256 << 10;

/// A job that is to be begun here.
pub(super) struct Attempt {
    pub(super) group: GroupId,
    pub(super) job: JobInfo,
    pub(super) ending: CancellationToken,
}

/// Begins, runs and ends one attempt.
pub(super) async fn attempt(jobs: &Arc<Jobs>, attempt: Attempt) {
    let Attempt { group, job, ending } = attempt;
    let (id, number, me) = (job.id, job.attempt + 1, jobs.hosting.parts.directory.me());
    let begun = jobs.step(group, id, JobStep::Begin { attempt: number, node: me }).await;
    let job = match begun {
        Ok(ReplyBody::Job(job)) if job.state == JobState::Running && job.attempt == number && job.node == Some(me) => {
            job
        }
        Ok(_) => return,
        Err(error) => {
            tracing::warn!(%error, job = %id, "a job could not be begun");
            return;
        }
    };
    tracing::info!(job = %id, name = job.name, attempt = number, "a job begins");
    let (progress, told) = watch::channel(JobProgress::default());
    let left = job.deadline_ms.saturating_sub(jobs.router.time().ms());
    let grid = LocalGrid { jobs: jobs.clone(), group, stamper: Stamper::new(&*jobs.hosting.parts.ports.random) };
    let identity = JobIdentity { id, attempt: number, key: job.key.clone(), slots: jobs.slots(group) };
    let context = JobContext::new(identity, Arc::new(grid), ending.clone(), progress);
    let running = run(jobs, &job, context, ending.clone(), Duration::from_millis(left));
    let reporting = report(jobs, group, &job, told);
    let outcome = tokio::select! {
        biased;
        outcome = running => outcome,
        () = reporting => return,
    };
    finish(jobs, group, &job, outcome).await;
}

/// Runs the handler until its end, or until it had to end and did not.
async fn run(
    jobs: &Arc<Jobs>,
    job: &JobInfo,
    context: JobContext,
    ending: CancellationToken,
    left: Duration,
) -> Result<TaskPayload> {
    let handler = jobs.registry.job(&job.name, context, job.payload.clone())?;
    let (deadline, asked) = (Instant::now() + left, ending.clone());
    // Dropped at its next await when it was asked to end and did not.
    let over = async move {
        tokio::select! {
            biased;
            () = asked.cancelled() => {}
            () = clock::sleep_until(deadline) => asked.cancel(),
        }
        clock::sleep(GRACE).await;
    };
    let bounded = async move {
        tokio::select! {
            biased;
            outcome = handler => Some(outcome),
            () = over => None,
        }
    };
    let threads = &jobs.hosting.parts.ports.threads;
    let stuck = clock::timeout_at(deadline + GRACE + THREAD, run_future(threads, bounded)).await;
    let overrun = || Error::new(Code::TaskOverrun, "the job was not through in its time").at(format!("job {}", job.id));
    let outcome = match stuck {
        Ok(Ok(Some(outcome))) => outcome,
        Ok(Ok(None)) if Instant::now() < deadline => {
            Err(Error::new(Code::TaskCancelled, "the job was asked to end, did not, and was dropped"))
        }
        Ok(Ok(None)) | Err(clock::Elapsed) => Err(overrun()),
        Ok(Err(error)) => Err(error),
    };
    match outcome {
        Ok(answer) if answer.data.len() > MAX_RESULT => {
            let what = format!("the job's answer has {} bytes; the limit is {MAX_RESULT}", answer.data.len());
            Err(Error::new(Code::TooLarge, what).remedy("write it to a map, and answer with what names it"))
        }
        Err(error) if error.code == Code::TaskCancelled && Instant::now() >= deadline => Err(overrun()),
        outcome => outcome,
    }
}

/// Writes progress down, now and then, for ever.
async fn report(jobs: &Jobs, group: GroupId, job: &JobInfo, mut told: watch::Receiver<JobProgress>) {
    loop {
        if told.changed().await.is_err() {
            // The handler is through; whoever runs it ends this.
            std::future::pending::<()>().await;
        }
        let JobProgress { permille, text } = told.borrow_and_update().clone();
        let step = JobStep::Report { attempt: job.attempt, permille, text };
        if let Err(error) = jobs.step(group, job.id, step).await {
            tracing::debug!(%error, job = %job.id, "progress could not be written down");
        }
        clock::sleep(REPORT).await;
    }
}

/// Writes the outcome down, as long as this peer leads: else the next leader begins the job again.
async fn finish(jobs: &Jobs, group: GroupId, job: &JobInfo, outcome: Result<TaskPayload>) {
    while jobs.leads(group) {
        let step = JobStep::End { attempt: job.attempt, outcome: outcome.clone() };
        match jobs.step(group, job.id, step).await {
            Ok(_) => {
                tracing::info!(job = %job.id, ok = outcome.is_ok(), "a job has ended");
                return;
            }
            Err(error) => tracing::warn!(%error, job = %job.id, "a job's end could not be written down yet"),
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

/// The grid, for one attempt.
struct LocalGrid {
    jobs: Arc<Jobs>,
    group: GroupId,
    stamper: Stamper,
}

#[async_trait::async_trait]
impl JobGrid for LocalGrid {
    async fn execute(&self, op: Op) -> Result<Reply> {
        let lost = || Error::new(Code::TaskCancelled, "the job's peer leads its partition no more");
        if !self.jobs.leads(self.group) {
            return Err(lost());
        }
        let mut request = Request {
            affinity: None,
            op,
            read: ReadLevel::default(),
            ack: AckLevel::default(),
            stamp: None,
            deadline_ms: COMMAND.as_millis() as u32,
        };
        if request.op.is_read() {
            return self.jobs.router.execute(request, 0).await;
        }
        let stamped = self.stamper.stamp(self.jobs.router.time(), request.reach())?;
        request.stamp = Some(stamped.stamp());
        let answer = self.jobs.router.execute(request, 0).await;
        stamped.answered(&answer);
        answer
    }

    async fn confirm(&self) -> Result<()> {
        let request = Request {
            affinity: None,
            op: Op::Barrier { slot: self.jobs.slots(self.group).0 },
            read: ReadLevel::Linearizable,
            ack: AckLevel::default(),
            stamp: None,
            deadline_ms: COMMAND.as_millis() as u32,
        };
        // One hop has been taken: it is answered here or not at all.
        let until = Instant::now() + COMMAND;
        self.jobs.router.execute_in(self.group, request, None, 1, until).await.map(drop)
    }

    fn descriptor(&self, map: &str) -> Option<MapDescriptor> {
        self.jobs.hosting.parts.directory.map(map)
    }

    fn page(&self, slots: (Slot, Slot), map: &str, after: Option<&Place>, limit: usize) -> Result<Page> {
        let gone = || Error::new(Code::NotLeader, "the partition's replica has gone");
        let hosted = self.jobs.hosting.get(self.group).ok_or_else(gone)?;
        if !hosted.state.may_serve() {
            return Err(Error::new(Code::NotLeader, "the partition's replica is being replaced"));
        }
        View::new(hosted.state.clone(), self.jobs.hosting.parts.directory.clone()).page(slots, map, after, limit)
    }
}
