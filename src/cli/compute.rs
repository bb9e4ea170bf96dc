//! `broadcast`, `cancel`: tasks on all partitions, with a line of progress.

use super::args::{BroadcastArgs, CancelArgs};
use super::{output, task};
use crate::client::{Client, Progress, SubmitOptions};
use crate::clock::{Random, SystemRandom};
use crate::error::{Code, Error, Result};
use crate::node::PartitionAnswer;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Writes a line of progress over the last one; nothing where no person looks on.
pub(super) fn show_progress(progress: Progress) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        let end = if progress.done >= progress.of { "\n" } else { "" };
        drop(write!(errors, "\r{} of {} partitions{end}", progress.done, progress.of));
        drop(errors.flush());
    }
}

/// The id of a submission; one that was drawn is printed, so that it can be cancelled.
pub(super) fn submission_id(named: Option<u64>) -> u64 {
    named.unwrap_or_else(|| {
        let id = SystemRandom.next_u64().max(1);
        let mut errors = std::io::stderr();
        if errors.is_terminal() {
            drop(writeln!(errors, "to cancel: keystead cancel {id}"));
        }
        id
    })
}

/// `broadcast`.
pub(super) async fn broadcast(client: &Client, args: &BroadcastArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let options = SubmitOptions {
        id: submission_id(args.id),
        deadline: Some(Duration::from_secs(args.timeout.into())),
        progress: Some(&show_progress),
    };
    let answers = client.broadcast(&args.name, task::payload(&args.payload)?, options).await?;
    let (of, mut first) = (answers.len(), None);
    let mut failed = 0;
    for PartitionAnswer { partition, outcome, served, .. } in answers {
        let mut fields = json!({ "partition": partition.0 });
        match outcome {
            Ok(answer) => fields["answer"] = task::shown(answer),
            Err(error) => {
                fields["error"] = error.to_string().into();
                failed += 1;
                first.get_or_insert((partition, error));
            }
        }
        match (args.connection.json, served) {
            (true, Some(served)) => output::json(out, &output::with(fields, output::served(&served, true)))?,
            (true, None) => output::json(out, &fields)?,
            (false, _) => {
                let said = fields.get("answer").or(fields.get("error")).map(ToString::to_string).unwrap_or_default();
                output::line(out, &format!("{:<5}  {said}", partition.0))?;
            }
        }
    }
    match first {
        None => Ok(()),
        Some((partition, error)) => {
            let what = format!("it failed on {failed} of {of} partitions; first on partition {partition}: {error}");
            Err(Error::new(Code::PartitionsFailed, what).at(format!("task {}", args.name)))
        }
    }
}

/// `cancel`.
pub(super) async fn cancel(client: &Client, args: &CancelArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let report = client.cancel(args.id).await?;
    if args.connection.json {
        return output::json(out, &json!({ "id": args.id, "told": report.told, "unreachable": report.unreachable }));
    }
    let rest =
        if report.unreachable > 0 { format!(", {} could not be reached", report.unreachable) } else { String::new() };
    output::line(out, &format!("{} peers know{rest}", report.told))
}
