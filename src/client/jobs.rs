//! Job tasks: starting, watching, cancelling them.

use super::Client;
use super::compute::{decode, encode};
use crate::api::wire;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::node::StartJob;
use crate::types::{JobId, JobInfo, TaskPayload};
use bytes::Bytes;
use grid_proto::keystead::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tonic::transport::Channel;
use v1::tasks_client::TasksClient;

/// How often a job that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);

fn job(reply: v1::JobReply) -> Result<JobInfo> {
    let job = reply.job.ok_or_else(|| Error::internal("a reply without the job"))?;
    wire::job_from_wire(job)
}

impl Client {
    /// Starts a job task beside the leader of its key's partition; it may take `time` in all. Gives
    /// it as soon as it is kept: it will run at least once, whatever fails.
    ///
    /// # Errors
    /// What the grid answers; `Overloaded` when the partition keeps too many jobs.
    pub async fn start_job(
        &self,
        name: &str,
        key: impl AsRef<[u8]>,
        payload: TaskPayload,
        time: Duration,
    ) -> Result<JobInfo> {
        let request = wire::start_job_to_wire(StartJob {
            name: name.to_owned(),
            key: Bytes::copy_from_slice(key.as_ref()),
            payload,
            // The same at every retry, so that it is started once.
            random: self.shared.random.next_u64().max(1),
            time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        });
        let ask = |mut tasks: TasksClient<Channel>| {
            let request = request.clone();
            async move { tasks.start_job(request).await }
        };
        self.ask_tasks(Instant::now() + self.shared.config.deadline, ask).await.and_then(job)
    }

    /// A job task as it stands.
    ///
    /// # Errors
    /// `NoSuchJob`; what else the grid answers.
    pub async fn job(&self, id: JobId) -> Result<JobInfo> {
        let ask = |mut tasks: TasksClient<Channel>| async move { tasks.get_job(v1::JobRequest { id: id.0 }).await };
        self.ask_tasks(Instant::now() + self.shared.config.deadline, ask).await.and_then(job)
    }

    /// Asks a job task to end.
    ///
    /// # Errors
    /// `NoSuchJob`; what else the grid answers.
    pub async fn cancel_job(&self, id: JobId) -> Result<JobInfo> {
        let ask = |mut tasks: TasksClient<Channel>| async move { tasks.cancel_job(v1::JobRequest { id: id.0 }).await };
        self.ask_tasks(Instant::now() + self.shared.config.deadline, ask).await.and_then(job)
    }

    /// All job tasks that are known, the oldest first.
    ///
    /// # Errors
    /// What the grid answers.
    pub async fn jobs(&self) -> Result<Vec<JobInfo>> {
        let ask = |mut tasks: TasksClient<Channel>| async move { tasks.list_jobs(v1::ListJobsRequest {}).await };
        let reply = self.ask_tasks(Instant::now() + self.shared.config.deadline, ask).await?;
        reply.jobs.into_iter().map(wire::job_from_wire).collect()
    }

    /// Waits for a job task's end; `seen` is told how it stands on the way.
    ///
    /// # Errors
    /// As [`Client::job`]; `DeadlineExceeded` when it has not ended within `at_most`.
    pub async fn wait_job(&self, id: JobId, at_most: Duration, mut seen: impl FnMut(&JobInfo)) -> Result<JobInfo> {
        let until = Instant::now() + at_most;
        loop {
            let job = self.job(id).await?;
            seen(&job);
            if job.state.ended() {
                return Ok(job);
            }
            if Instant::now() >= until {
                let what = format!("job {id} has not ended yet; it goes on");
                return Err(Error::new(Code::DeadlineExceeded, what).remedy("ask for it again with its id"));
            }
            clock::sleep(LOOK).await;
        }
    }

    /// Runs a job task with typed payload and answer, and waits for its end.
    ///
    /// # Errors
    /// As [`Client::start_job`] and [`Client::wait_job`]; the job's.
    pub async fn run_job<In: Serialize, Out: DeserializeOwned>(
        &self,
        name: &str,
        key: impl AsRef<[u8]>,
        input: &In,
        time: Duration,
    ) -> Result<Out> {
        let started = self.start_job(name, key, encode(input)?, time).await?;
        let ended = self.wait_job(started.id, time + Duration::from_secs(10), |_| ()).await?;
        decode(&ended.outcome.unwrap_or_else(|| Err(Error::internal("a job ended without an outcome")))?)
    }
}
