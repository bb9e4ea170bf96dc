//! `broadcast`, `scatter`, `word-count`, `top-k`, `cancel`: tasks on all partitions, with a line of progress.

use super::args::{BroadcastArgs, CancelArgs, ScatterArgs, ScatterOptions, TopKArgs, WordCountArgs};
use super::{output, task};
use crate::client::{Client, Progress, SubmitOptions};
use crate::clock::{Random, SystemRandom};
use crate::compute::{top_k, word_count};
use crate::error::{Code, Error, Result};
use crate::node::{PartitionAnswer, ScatterAnswer};
use crate::types::TaskPayload;
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

/// Partitions that follow each other and failed alike: they take one line.
#[derive(Default)]
struct Failures {
    from: u32,
    to: u32,
    said: Option<String>,
}

impl Failures {
    fn take(&mut self, partition: u32, said: String, out: &mut (dyn Write + Send)) -> Result<()> {
        if self.said.as_ref() != Some(&said) || self.to + 1 != partition {
            self.print(out)?;
            self.from = partition;
        }
        (self.to, self.said) = (partition, Some(said));
        Ok(())
    }

    fn print(&mut self, out: &mut (dyn Write + Send)) -> Result<()> {
        let Some(said) = self.said.take() else { return Ok(()) };
        let which = if self.from == self.to { self.to.to_string() } else { format!("{}-{}", self.from, self.to) };
        output::line(out, &format!("{which:<5}  {said}"))
    }
}

/// `broadcast`.
pub(super) async fn broadcast(client: &Client, args: &BroadcastArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let options = SubmitOptions {
        id: submission_id(args.id),
        deadline: Some(Duration::from_secs(args.within.into())),
        progress: Some(&show_progress),
    };
    let answers = client.broadcast(&args.name, task::payload(&args.payload)?, options).await?;
    let (of, mut first) = (answers.len(), None);
    let mut failed = 0;
    let mut failures = Failures::default();
    for PartitionAnswer { partition, outcome, served, .. } in answers {
        let mut fields = json!({ "partition": partition.0 });
        match outcome {
            Ok(answer) => fields["answer"] = task::shown(answer),
            Err(error) => {
                fields["error"] = error.to_string().into();
                failed += 1;
                if !args.connection.json {
                    failures.take(partition.0, error.to_string(), out)?;
                }
                first.get_or_insert((partition, error));
            }
        }
        match (args.connection.json, served) {
            (true, Some(served)) => output::json(out, &output::with(fields, output::served(&served, true)))?,
            (true, None) => output::json(out, &fields)?,
            (false, _) => {
                let Some(answer) = fields.get("answer") else { continue };
                failures.print(out)?;
                output::line(out, &format!("{:<5}  {answer}", partition.0))?;
            }
        }
    }
    failures.print(out)?;
    match first {
        None => Ok(()),
        Some((partition, mut error)) => {
            let place = format!("task {}", args.name);
            if error.place == place {
                error.place.clear();
            }
            let first = error.brief();
            let what = format!("it failed on {failed} of {of} partitions; first on partition {partition}: {first}");
            Err(Error::new(Code::PartitionsFailed, what).at(place).remedy(error.remedy))
        }
    }
}

async fn run(client: &Client, name: &str, payload: TaskPayload, how: &ScatterOptions) -> Result<ScatterAnswer> {
    let options = SubmitOptions {
        id: submission_id(how.id),
        deadline: Some(Duration::from_secs(how.within.into())),
        progress: Some(&show_progress),
    };
    client.scatter(name, payload, how.partial, options).await
}

/// The status of an answer that lacks partitions: what there is has been printed.
fn complete(name: &str, answer: &ScatterAnswer) -> Result<()> {
    let Some((partition, first)) = answer.failed.first() else { return Ok(()) };
    let what =
        format!("the answer lacks {} partitions; first partition {partition}: {}", answer.failed.len(), first.brief());
    Err(Error::new(Code::PartitionsFailed, what).at(format!("scatter {name}")).remedy(""))
}

/// Prints an answer: as JSON with what it lacks, or by `table`.
fn print(
    out: &mut (dyn Write + Send),
    json: bool,
    answer: &ScatterAnswer,
    table: impl FnOnce(&mut (dyn Write + Send), serde_json::Value) -> Result<()>,
) -> Result<()> {
    let shown = answer.answer.clone().map_or(serde_json::Value::Null, task::shown);
    if !json {
        return table(out, shown);
    }
    let failed =
        answer.failed.iter().map(|(partition, error)| json!({ "partition": partition.0, "error": error.to_string() }));
    output::json(out, &json!({ "answer": shown, "failed": failed.collect::<Vec<_>>() }))
}

/// `scatter`.
pub(super) async fn scatter(client: &Client, args: &ScatterArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let answer = run(client, &args.name, task::payload(&args.payload)?, &args.options).await?;
    print(out, args.options.connection.json, &answer, |out, shown| output::json(out, &shown))?;
    complete(&args.name, &answer)
}

/// Two columns of an answer's list.
fn columns(
    answer: &serde_json::Value,
    cells: impl Fn(&serde_json::Value) -> [serde_json::Value; 2],
) -> Vec<Vec<String>> {
    let text = |cell: &serde_json::Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    let rows = answer["top"].as_array().into_iter().flatten();
    rows.map(|row| cells(row).iter().map(text).collect()).collect()
}

/// `word-count`.
pub(super) async fn word_count(client: &Client, args: &WordCountArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let payload = json!({ "map": args.map, "top": args.top, "into": args.into });
    let answer = run(client, word_count::NAME, task::payload(&payload.to_string())?, &args.options).await?;
    print(out, args.options.connection.json, &answer, |out, shown| {
        let rows = columns(&shown, |row| [row[0].clone(), row[1].clone()]);
        output::table(out, &["WORD", "COUNT"], &["COUNT"], &rows)?;
        output::line(out, &format!("{} words, {} different", shown["words"], shown["distinct"]))
    })?;
    complete(word_count::NAME, &answer)
}

/// `top-k`.
pub(super) async fn top_k(client: &Client, args: &TopKArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let payload = json!({ "map": args.map, "k": args.k, "field": args.field });
    let answer = run(client, top_k::NAME, task::payload(&payload.to_string())?, &args.options).await?;
    print(out, args.options.connection.json, &answer, |out, shown| {
        let rows = columns(&shown, |row| [row["key"].clone(), row["value"].clone()]);
        output::table(out, &["KEY", "VALUE"], &["VALUE"], &rows)?;
        match &shown["skipped"] {
            skipped if skipped.as_u64() == Some(0) => Ok(()),
            skipped => output::line(out, &format!("{skipped} entries hold no number there")),
        }
    })?;
    complete(top_k::NAME, &answer)
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
