//! `job start`, `job status`, `job cancel`, `jobs`.

use super::args::{Connection, JobCommand, JobStartArgs};
use super::{output, task};
use crate::client::Client;
use crate::error::Result;
use crate::types::{JobInfo, JobState};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Where a command's grid is.
pub(super) fn connection(command: &JobCommand) -> &Connection {
    match command {
        JobCommand::Start(args) => &args.connection,
        JobCommand::Status(args) | JobCommand::Cancel(args) => &args.connection,
    }
}

/// `job`.
pub(super) async fn job(client: &Client, command: &JobCommand, out: &mut (dyn Write + Send)) -> Result<()> {
    let json = connection(command).json;
    match command {
        JobCommand::Start(args) => start(client, args, out).await,
        JobCommand::Status(args) => show(out, &client.job(args.id).await?, json),
        JobCommand::Cancel(args) => show(out, &client.cancel_job(args.id).await?, json),
    }
}

async fn start(client: &Client, args: &JobStartArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let time = Duration::from_secs(args.time.into());
    let started = client.start_job(&args.name, &args.key, task::payload(&args.payload)?, time).await?;
    if !args.wait {
        return match args.connection.json {
            true => output::json(out, &fields(&started)),
            false => output::line(out, &started.id.to_string()),
        };
    }
    let ended = client.wait_job(started.id, time + Duration::from_secs(10), show_progress).await?;
    match (&ended.outcome, args.connection.json) {
        (Some(Ok(answer)), false) => output::json(out, &task::shown(answer.clone())),
        (Some(Err(error)), false) => Err(error.clone()),
        (outcome, _) => {
            output::json(out, &fields(&ended))?;
            outcome.clone().map_or(Ok(()), |outcome| outcome.map(drop))
        }
    }
}

/// A line of progress over the last one; nothing where no person looks on.
fn show_progress(job: &JobInfo) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        let end = if job.state.ended() { "\n" } else { "" };
        drop(write!(errors, "\r\x1b[K{} {} %  {}{end}", job.state.name(), job.permille / 10, job.text));
        drop(errors.flush());
    }
}

/// A job's JSON.
fn fields(job: &JobInfo) -> serde_json::Value {
    let mut fields = json!({
        "id": job.id.to_string(),
        "name": job.name,
        "key": String::from_utf8_lossy(&job.key),
        "state": job.state,
        "progress": f64::from(job.permille) / 1000.0,
        "text": job.text,
        "attempt": job.attempt,
        "node": job.node.map(|node| node.to_string()),
        "cancelling": job.cancelling,
        "submitted_ms": job.submitted_ms,
        "begun_ms": job.begun_ms,
        "ended_ms": job.ended_ms,
        "deadline_ms": job.deadline_ms,
    });
    match &job.outcome {
        Some(Ok(answer)) => fields["answer"] = task::shown(answer.clone()),
        Some(Err(error)) => fields["error"] = error.to_string().into(),
        None => {}
    }
    fields
}

fn row(job: &JobInfo) -> Vec<String> {
    let state = if job.cancelling && job.state == JobState::Running { "ending" } else { job.state.name() };
    let said = match &job.outcome {
        Some(Ok(answer)) => task::shown(answer.clone()).to_string(),
        Some(Err(error)) => error.to_string(),
        None => job.text.clone(),
    };
    let node = job.node.map(|node| node.to_string()).unwrap_or_default();
    let percent = format!("{} %", job.permille / 10);
    vec![job.id.to_string(), job.name.clone(), state.to_owned(), percent, job.attempt.to_string(), node, said]
}

const HEAD: &[&str] = &["JOB", "NAME", "STATE", "PROGRESS", "ATTEMPT", "PEER", ""];

fn show(out: &mut (dyn Write + Send), job: &JobInfo, json: bool) -> Result<()> {
    match json {
        true => output::json(out, &fields(job)),
        false => output::table(out, HEAD, &["PROGRESS", "ATTEMPT"], &[row(job)]),
    }
}

/// `jobs`.
pub(super) async fn jobs(client: &Client, json: bool, out: &mut (dyn Write + Send)) -> Result<()> {
    let jobs = client.jobs().await?;
    match json {
        true => output::json(out, &jobs.iter().map(fields).collect::<Vec<_>>().into()),
        false => output::table(out, HEAD, &["PROGRESS", "ATTEMPT"], &jobs.iter().map(row).collect::<Vec<_>>()),
    }
}
