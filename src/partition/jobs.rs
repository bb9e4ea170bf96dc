//! The rows of job tasks. Pure: a step and the present rows in, a reply and row writes out.
//!
//! An attempt's steps count only while it is the row's latest: what an attempt on a peer that lost
//! its leadership still says changes nothing.

use super::entry::RowWrite;
use super::operations::Done;
use super::overlay::View;
use super::rows;
use crate::error::{Code, Error, Result};
use crate::types::{JobId, JobInfo, JobState, JobStep, ReplyBody};
use bytes::Bytes;

/// Jobs that a partition keeps, ended ones included.
pub const MAX_JOBS: usize = 1024;

/// Attempts after which a job whose peers are lost is given up.
pub const MAX_ATTEMPTS: u32 = 5;

/// How long an ended job is kept, with its result.
pub const KEEP_MS: u64 = 600_000;

/// The longest answer that a list shows.
const LISTED: usize = 1024;

/// Jobs that one step forgets at most.
const FORGET: usize = 64;

/// A row: version (1), then MessagePack of a [`JobInfo`] with field names.
const VERSION: u8 = 1;

/// Encodes a job's row.
pub fn encode(job: &JobInfo) -> Result<Bytes> {
    let body = rmp_serde::to_vec_named(job).map_err(|error| Error::internal(format!("a job's row: {error}")))?;
    Ok([&[VERSION], &body[..]].concat().into())
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// `UnknownFormat`, `CorruptRow`.
pub fn decode(row: &[u8]) -> Result<JobInfo> {
    let body = row
        .strip_prefix(&[VERSION])
        .ok_or_else(|| Error::new(Code::UnknownFormat, format!("a job's row has format version {:?}", row.first())))?;
    crate::types::msgpack::from_slice(body)
        .map_err(|error| Error::new(Code::CorruptRow, format!("a job's row: {error}")))
}

fn changed(job: JobInfo) -> Result<Done> {
    let write = RowWrite::put(rows::job_row(job.id), encode(&job)?);
    Ok(Done { body: ReplyBody::Job(Box::new(job)), writes: vec![write] })
}

fn unchanged(job: JobInfo) -> Result<Done> {
    Ok(Done { body: ReplyBody::Job(Box::new(job)), writes: Vec::new() })
}

fn end(mut job: JobInfo, state: JobState, now_ms: u64, outcome: Result<crate::types::TaskPayload>) -> Result<Done> {
    job.state = state;
    job.ended_ms = now_ms;
    job.outcome = Some(outcome);
    changed(job)
}

/// Does one step at the partition's time.
///
/// # Errors
/// `NoSuchJob`; `Overloaded` when the partition keeps too many jobs.
pub(super) fn execute(view: &View, id: JobId, step: &JobStep, now_ms: u64) -> Result<Done> {
    match step {
        JobStep::List => {
            let rows = view.scan_rows(&rows::job_prefix(), None, usize::MAX)?;
            let jobs = rows.iter().map(|(_, row)| decode(row).map(listed)).collect::<Result<Vec<_>>>()?;
            Ok(Done { body: ReplyBody::Jobs(jobs), writes: Vec::new() })
        }
        JobStep::Forget => forget(view, now_ms),
        _ => {
            let present = view.get(&rows::job_row(id))?.map(|row| decode(&row)).transpose()?;
            match (step, present) {
                (JobStep::Start { .. }, None) => start(view, id, step, now_ms),
                (_, None) => Err(Error::new(Code::NoSuchJob, format!("there is no job {id}"))),
                (step, Some(job)) => advance(job, step, now_ms),
            }
        }
    }
}

/// A job as lists show it: without what may be long, so that a list stays short.
fn listed(mut job: JobInfo) -> JobInfo {
    job.payload.data = Bytes::new();
    job.outcome = job.outcome.filter(|outcome| outcome.as_ref().map_or(0, |answer| answer.data.len()) <= LISTED);
    job
}

fn start(view: &View, id: JobId, step: &JobStep, now_ms: u64) -> Result<Done> {
    let JobStep::Start { name, key, payload, time_ms } = step else { return Err(Error::internal("no start")) };
    if view.scan_rows(&rows::job_prefix(), None, MAX_JOBS)?.len() >= MAX_JOBS {
        let what = format!("the partition keeps {MAX_JOBS} jobs already");
        return Err(Error::new(Code::Overloaded, what).remedy("ended jobs are forgotten after ten minutes"));
    }
    changed(JobInfo {
        id,
        name: name.clone(),
        key: key.clone(),
        payload: payload.clone(),
        state: JobState::Queued,
        attempt: 0,
        node: None,
        permille: 0,
        text: String::new(),
        submitted_ms: now_ms,
        begun_ms: 0,
        ended_ms: 0,
        deadline_ms: now_ms.saturating_add(*time_ms),
        cancelling: false,
        outcome: None,
    })
}

fn forget(view: &View, now_ms: u64) -> Result<Done> {
    let mut writes = Vec::new();
    for (row, value) in view.scan_rows(&rows::job_prefix(), None, usize::MAX)? {
        let job = decode(&value)?;
        if job.state.ended() && job.ended_ms + KEEP_MS < now_ms && writes.len() < FORGET {
            writes.push(RowWrite::drop(row));
        }
    }
    Ok(Done { body: ReplyBody::Jobs(Vec::new()), writes })
}

fn cancelled(id: JobId) -> Error {
    Error::new(Code::TaskCancelled, format!("job {id} was cancelled"))
}

/// What a step makes of a job.
fn advance(mut job: JobInfo, step: &JobStep, now_ms: u64) -> Result<Done> {
    let (id, of_latest) = (job.id, |attempt: u32| job.state == JobState::Running && attempt == job.attempt);
    match step {
        JobStep::Begin { attempt, node } if !job.state.ended() && *attempt == job.attempt + 1 => {
            if job.cancelling {
                return end(job, JobState::Cancelled, now_ms, Err(cancelled(id)));
            }
            if now_ms >= job.deadline_ms {
                let error = Error::new(Code::TaskOverrun, format!("job {id} was not through in its time"));
                return end(job, JobState::Failed, now_ms, Err(error));
            }
            if *attempt > MAX_ATTEMPTS {
                let what = format!("job {id} was begun {MAX_ATTEMPTS} times, and its peer was lost each time");
                return end(job, JobState::Failed, now_ms, Err(Error::new(Code::JobGaveUp, what)));
            }
            if job.state == JobState::Queued {
                // Why it waited.
                job.text.clear();
            }
            job.state = JobState::Running;
            job.attempt = *attempt;
            job.node = Some(*node);
            job.begun_ms = now_ms;
            changed(job)
        }
        JobStep::Report { attempt, permille, text } if of_latest(*attempt) => {
            job.permille = *permille;
            job.text = text.clone();
            changed(job)
        }
        JobStep::Wait { attempt, text } if !job.state.ended() && !job.cancelling && *attempt == job.attempt => {
            if job.state == JobState::Queued && job.text == *text {
                return unchanged(job);
            }
            // Whatever ran it leads no more.
            job.state = JobState::Queued;
            job.node = None;
            job.text = text.clone();
            changed(job)
        }
        // Nobody asked it to end: its peer lost the leadership, and the next attempt goes on.
        JobStep::End { outcome: Err(error), .. } if error.code == Code::TaskCancelled && !job.cancelling => {
            unchanged(job)
        }
        JobStep::End { attempt, outcome } if of_latest(*attempt) => {
            let state = match outcome {
                Ok(_) => JobState::Done,
                Err(error) if error.code == Code::TaskCancelled => JobState::Cancelled,
                Err(_) => JobState::Failed,
            };
            if state == JobState::Done {
                job.permille = 1000;
            }
            end(job, state, now_ms, outcome.clone())
        }
        JobStep::Cancel if job.state == JobState::Queued => end(job, JobState::Cancelled, now_ms, Err(cancelled(id))),
        JobStep::Cancel if job.state == JobState::Running && !job.cancelling => {
            job.cancelling = true;
            changed(job)
        }
        _ => unchanged(job),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, Slot, TaskPayload, ValueCodec};

    fn payload() -> TaskPayload {
        TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"1") }
    }

    fn queued() -> JobInfo {
        JobInfo {
            id: JobId::new(Slot(7), 1 << 16),
            name: "j".into(),
            key: Bytes::from_static(b"k"),
            payload: payload(),
            state: JobState::Queued,
            attempt: 0,
            node: None,
            permille: 0,
            text: String::new(),
            submitted_ms: 10,
            begun_ms: 0,
            ended_ms: 0,
            deadline_ms: 1_000,
            cancelling: false,
            outcome: None,
        }
    }

    fn after(job: JobInfo, step: JobStep, now_ms: u64) -> JobInfo {
        match advance(job, &step, now_ms).expect("a reply").body {
            ReplyBody::Job(job) => *job,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_leave_out_what_is_long() {
        let answer = |len| TaskPayload { codec: ValueCodec::Json, data: vec![b'1'; len].into() };
        let done = |len| JobInfo { outcome: Some(Ok(answer(len))), ..queued() };
        assert_eq!(listed(done(LISTED)).outcome, Some(Ok(answer(LISTED))));
        assert_eq!(listed(done(LISTED + 1)).outcome, None);
        assert!(listed(done(1)).payload.data.is_empty());
    }

    fn begin(attempt: u32) -> JobStep {
        JobStep::Begin { attempt, node: NodeId(u64::from(attempt)) }
    }

    #[test]
    fn an_older_attempt_changes_nothing() {
        let job = after(queued(), begin(1), 20);
        assert_eq!((job.state, job.attempt, job.begun_ms), (JobState::Running, 1, 20));
        let job = after(job, begin(2), 30);
        assert_eq!((job.attempt, job.node), (2, Some(NodeId(2))));
        let late = after(job.clone(), JobStep::End { attempt: 1, outcome: Ok(payload()) }, 40);
        assert_eq!(late, job);
        let late = after(job.clone(), JobStep::Report { attempt: 1, permille: 9, text: "x".into() }, 40);
        assert_eq!(late, job);
        assert_eq!(after(job.clone(), begin(2), 40), job, "no attempt begins twice");
        let done = after(job, JobStep::End { attempt: 2, outcome: Ok(payload()) }, 50);
        assert_eq!((done.state, done.ended_ms, done.permille), (JobState::Done, 50, 1000));
        assert_eq!(after(done.clone(), JobStep::Cancel, 60), done);
        assert_eq!(after(done.clone(), begin(3), 60), done);
    }

    #[test]
    fn a_job_that_its_leader_lacks_waits_and_says_why() {
        let wait = |attempt| JobStep::Wait { attempt, text: "n2 carries it".into() };
        let waiting = after(queued(), wait(0), 20);
        assert_eq!((waiting.state, waiting.text.as_str(), waiting.attempt), (JobState::Queued, "n2 carries it", 0));
        let running = after(waiting, begin(1), 30);
        assert_eq!((running.state, running.text.as_str()), (JobState::Running, ""));
        assert_eq!(after(running.clone(), wait(0), 40), running, "said before it was begun");
        let again = after(running, wait(1), 40);
        assert_eq!((again.state, again.node), (JobState::Queued, None), "the next leader lacks it");
        let late = after(again.clone(), JobStep::End { attempt: 1, outcome: Ok(payload()) }, 50);
        assert_eq!(late, again, "its former peer leads no more");
        assert_eq!(after(again.clone(), JobStep::Cancel, 50).state, JobState::Cancelled);
        let cancelling = JobInfo { cancelling: true, state: JobState::Running, ..again };
        assert_eq!(after(cancelling.clone(), wait(1), 50), cancelling, "an attempt ends it");
    }

    #[test]
    fn a_cancelled_job_begins_no_attempt() {
        let cancelled = after(queued(), JobStep::Cancel, 20);
        assert_eq!((cancelled.state, cancelled.ended_ms), (JobState::Cancelled, 20));
        let running = after(after(queued(), begin(1), 20), JobStep::Cancel, 30);
        assert!(running.state == JobState::Running && running.cancelling);
        assert_eq!(after(running.clone(), begin(2), 40).state, JobState::Cancelled);
        let end = JobStep::End { attempt: 1, outcome: Err(Error::new(Code::TaskCancelled, "it ended as asked")) };
        assert_eq!(after(running, end.clone(), 40).state, JobState::Cancelled);
        let uncalled = after(queued(), begin(1), 20);
        assert_eq!(after(uncalled, end, 40).state, JobState::Running, "its peer only lost the leadership");
    }

    #[test]
    fn attempts_and_time_are_bounded() {
        let mut job = queued();
        for attempt in 1..=MAX_ATTEMPTS {
            job = after(job, begin(attempt), 20);
            assert_eq!(job.state, JobState::Running);
        }
        let given_up = after(job.clone(), begin(MAX_ATTEMPTS + 1), 30);
        assert!(matches!(given_up.outcome, Some(Err(error)) if error.code == Code::JobGaveUp));
        let late = after(queued(), begin(1), 1_000);
        assert!(matches!(late.outcome, Some(Err(error)) if error.code == Code::TaskOverrun));
    }

    #[test]
    fn a_jobs_row_has_golden_bytes() {
        let row = encode(&queued()).expect("encodes");
        let text: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, GOLDEN);
        assert_eq!(decode(&row), Ok(queued()));
        assert_eq!(decode(b"\x02").expect_err("foreign").code, Code::UnknownFormat);
        assert_eq!(rows::parse_job_row(&rows::job_row(queued().id)), Some(queued().id));
    }

    const GOLDEN: &str = "018fa26964cf0007000000000001a46e616d65a16aa36b6579c4016ba77061796c6f616482a5636f646563a4\
        6a736f6ea464617461c40131a57374617465a6717565756564a7617474656d707400a46e6f6465c0a8706572\
        6d696c6c6500a474657874a0ac7375626d69747465645f6d730aa8626567756e5f6d7300a8656e6465645f6d\
        7300ab646561646c696e655f6d73cd03e8aa63616e63656c6c696e67c2a76f7574636f6d65c0";
}
