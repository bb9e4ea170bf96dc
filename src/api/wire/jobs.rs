//! Job tasks, both ways.

use super::values::{bad, check_key, check_name, check_size, payload_from_wire, payload_to_wire};
use super::{error_from_wire, error_to_wire};
use crate::config::Limits;
use crate::error::Result;
use crate::node::StartJob;
use crate::types::{JobId, JobInfo, JobState, TaskPayload};
use grid_proto::keystead::v1;
use v1::job::Outcome;

/// Time for a job that names none: an hour.
const DEFAULT_TIME_MS: u64 = 3_600_000;

/// Checks a job that is to be started.
///
/// # Errors
/// `InvalidRequest`, `InvalidName`, `TooLarge`, `TaskCodec`.
pub fn start_job_from_wire(request: v1::StartJobRequest, limits: &Limits) -> Result<StartJob> {
    check_name("job task", &request.name)?;
    check_key("key", &request.key, limits)?;
    let payload = payload_from_wire(request.payload)?;
    check_size("payload", payload.data.len(), limits.max_payload_bytes)?;
    let asked = if request.time_ms == 0 { DEFAULT_TIME_MS } else { request.time_ms };
    let time_ms = asked.min(limits.max_job_time_ms);
    Ok(StartJob { name: request.name, key: request.key, payload, random: request.random, time_ms })
}

/// A job that is to be started, for a peer.
pub fn start_job_to_wire(job: StartJob) -> v1::StartJobRequest {
    let payload = Some(payload_to_wire(job.payload));
    v1::StartJobRequest { name: job.name, key: job.key, payload, random: job.random, time_ms: job.time_ms }
}

/// A job, for the client.
pub fn job_to_wire(job: JobInfo) -> v1::Job {
    let state = match job.state {
        JobState::Queued => v1::JobState::Queued,
        JobState::Running => v1::JobState::Running,
        JobState::Done => v1::JobState::Done,
        JobState::Failed => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
    };
    v1::Job {
        id: job.id.0,
        name: job.name,
        key: job.key,
        state: state.into(),
        attempt: job.attempt,
        node: job.node.map(|node| node.to_string()).unwrap_or_default(),
        permille: job.permille.into(),
        text: job.text,
        submitted_ms: job.submitted_ms,
        begun_ms: job.begun_ms,
        ended_ms: job.ended_ms,
        deadline_ms: job.deadline_ms,
        cancelling: job.cancelling,
        payload: Some(payload_to_wire(job.payload)),
        outcome: job.outcome.map(|outcome| match outcome {
            Ok(answer) => Outcome::Answer(payload_to_wire(answer)),
            Err(error) => Outcome::Error(error_to_wire(&error)),
        }),
    }
}

/// A job, from a peer.
///
/// # Errors
/// `InvalidRequest` when the message makes no sense.
pub fn job_from_wire(job: v1::Job) -> Result<JobInfo> {
    let state = match v1::JobState::try_from(job.state) {
        Ok(v1::JobState::Queued) => JobState::Queued,
        Ok(v1::JobState::Running) => JobState::Running,
        Ok(v1::JobState::Done) => JobState::Done,
        Ok(v1::JobState::Failed) => JobState::Failed,
        Ok(v1::JobState::Cancelled) => JobState::Cancelled,
        Ok(v1::JobState::Unspecified) | Err(_) => return Err(bad("a job's state is not named")),
    };
    let node = match job.node.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| bad("a job's node is no node id"))?),
    };
    let outcome: Option<std::result::Result<TaskPayload, _>> = match job.outcome {
        None => None,
        Some(Outcome::Answer(answer)) => Some(Ok(payload_from_wire(Some(answer))?)),
        Some(Outcome::Error(error)) => Some(Err(error_from_wire(error))),
    };
    Ok(JobInfo {
        id: JobId(job.id),
        name: job.name,
        key: job.key,
        payload: payload_from_wire(job.payload)?,
        state,
        attempt: job.attempt,
        node,
        permille: u16::try_from(job.permille).unwrap_or(1000),
        text: job.text,
        submitted_ms: job.submitted_ms,
        begun_ms: job.begun_ms,
        ended_ms: job.ended_ms,
        deadline_ms: job.deadline_ms,
        cancelling: job.cancelling,
        outcome,
    })
}
