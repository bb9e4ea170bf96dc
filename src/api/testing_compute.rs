//! User code on partitions, as the grid in memory has it.

use super::testing::FakePeer;
use crate::error::{Code, Error, Result};
use crate::node::{
    Broadcast, CancelReport, ComputeService, PartitionAnswer, Scatter, ScatterAnswer, ScatterEvent, StartJob,
};
use crate::types::{JobId, JobInfo, JobState, PartitionId, slot_of};
use tokio::sync::mpsc;

/// Partitions of the world.
const PARTITIONS: u32 = 2;

#[async_trait::async_trait]
impl ComputeService for FakePeer {
    /// Partition 0 answers what it was given, partition 1 fails; "wait" never answers.
    async fn broadcast(&self, request: Broadcast) -> Result<mpsc::Receiver<PartitionAnswer>> {
        let (sender, receiver) = mpsc::channel(8);
        self.broadcasts.lock().expect("lock").push(request.clone());
        crate::clock::spawn(async move {
            for id in 0..PARTITIONS {
                let outcome = match id {
                    0 => Ok(request.payload.clone()),
                    _ => Err(Error::new(Code::TaskFailed, "no: not here")),
                };
                let answer =
                    PartitionAnswer { partition: PartitionId(id), done: id + 1, of: PARTITIONS, outcome, served: None };
                drop(sender.send(answer).await);
            }
        });
        Ok(receiver)
    }

    /// Half is done, then it is answered with what it was given.
    async fn scatter(&self, request: Scatter) -> Result<mpsc::Receiver<ScatterEvent>> {
        let (sender, receiver) = mpsc::channel(8);
        let part = request.parts.then(|| request.payload.data.clone());
        drop(sender.send(ScatterEvent::Progress { done: 1, of: PARTITIONS, part }).await);
        let failed = vec![(PartitionId(1), Error::new(Code::NoLeader, "nobody leads it"))];
        let end = match request.partial {
            true => Ok(ScatterAnswer { answer: Some(request.payload), failed }),
            false => Err(Error::new(Code::PartitionsFailed, "1 of 2")),
        };
        drop(sender.send(ScatterEvent::End(end)).await);
        Ok(receiver)
    }

    async fn start_job(&self, job: StartJob) -> Result<JobInfo> {
        let id = JobId::new(slot_of(&job.key), job.random);
        let fresh = JobInfo {
            id,
            name: job.name,
            key: job.key,
            payload: job.payload,
            state: JobState::Queued,
            attempt: 0,
            node: None,
            permille: 0,
            text: String::new(),
            submitted_ms: 1,
            begun_ms: 0,
            ended_ms: 0,
            deadline_ms: 1 + job.time_ms,
            cancelling: false,
            outcome: None,
        };
        Ok(self.jobs.lock().expect("lock").entry(id).or_insert(fresh).clone())
    }

    async fn job(&self, id: JobId) -> Result<JobInfo> {
        let jobs = self.jobs.lock().expect("lock");
        jobs.get(&id).cloned().ok_or_else(|| Error::new(Code::NoSuchJob, format!("there is no job {id}")))
    }

    async fn jobs(&self) -> Result<Vec<JobInfo>> {
        Ok(self.jobs.lock().expect("lock").values().cloned().collect())
    }

    async fn cancel_job(&self, id: JobId) -> Result<JobInfo> {
        let mut jobs = self.jobs.lock().expect("lock");
        let job = jobs.get_mut(&id).ok_or_else(|| Error::new(Code::NoSuchJob, format!("there is no job {id}")))?;
        job.state = JobState::Cancelled;
        job.outcome = Some(Err(Error::new(Code::TaskCancelled, "it was cancelled")));
        Ok(job.clone())
    }

    async fn cancel(&self, id: u64) -> CancelReport {
        self.cancelled.lock().expect("lock").push(id);
        CancelReport { told: 2, unreachable: 1 }
    }
}
