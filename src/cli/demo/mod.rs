//! `demo`: the grid's main job on real input, with a peer killed and another joining on the way.
//!
//! In: events, from a file or made up. It starts three peers as processes of their own, sends
//! every event through the task `rolling-total` beside its customer's data, kills the peer that
//! leads most partitions without stopping, lets a fourth join, and compares every answer with a computation of its
//! own. Out: a table, a picture, the answers as a file. Never leaves a process or a directory
//! behind, and never calls a run good whose answers do not all agree, or whose joiner led nothing.

mod calendar;
mod decimal;
mod drive;
mod event;
mod expected;
mod figures;
#[cfg(test)]
mod fuzz;
mod generate;
mod output;
mod progress;
mod readings;
mod report;
mod retail;
mod verify;

#[cfg(test)]
mod reference_tests;

use super::args::DemoArgs;
use super::local::{FOUNDERS, Peers};
use super::output::{json, print};
use super::signals::Signals;
use crate::client::{Client, ClientConfig};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::types::{KeyCodec, ValueCodec};
use drive::{Drive, MAP, WINDOW_PACED, drive};
use event::Event;
use figures::Figures;
use futures::{StreamExt, stream};
use output::Output;
use readings::StateReads;
use retail::Input;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;
use verify::{Answered, Verdict, judge};

/// Time for one event, its retries through the failover included. Thousands of them wait at once, and a machine
/// that is busy with other things answers a hundred a second: that makes the demo slow, and not wrong.
const EVENT_DEADLINE: Duration = Duration::from_secs(120);
/// How long the grid may take, once its peers are ready, until every partition has its replicas
/// and a leader.
const FORMED_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks at the partitions.
const LOOK: Duration = Duration::from_millis(100);
/// Keys enough for some to lie with each peer.
const KEYS_EVERYWHERE: usize = 256;
/// Final questions in flight.
const FINAL_AT_ONCE: usize = 256;

/// Runs the demo; what it prints goes to `out`.
///
/// # Errors
/// What keeps the demo from running, `ShuttingDown` when it is interrupted, and `Internal` when
/// the grid's answers do not all agree.
pub(super) async fn demo(args: &DemoArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let Input { events, skipped } = events(args)?;
    let output = args.output.as_deref().map(|path| Output::open(path, args.input.as_deref())).transpose()?;
    let mut signals = Signals::new()?;
    let peers = Peers::start()?;
    let ran = tokio::select! {
        biased;
        signal = signals.wait() => Err(stopped_by(signal)),
        ran = run(&peers, &events, args.rate) => ran,
    };
    let last_words = ran.as_ref().map(|(drive, _)| peers.last_words(&drive.joiner.peer)).unwrap_or_default();
    peers.stop();
    let (drive, mut figures) = ran?;
    figures.skipped_rows = skipped;
    if let Some(output) = output {
        output.write(&events, &drive.outcomes)?;
    }
    show(args, &drive, &figures, out)?;
    match (figures.agrees, figures.joiner_led) {
        (true, true) => Ok(()),
        (true, false) => Err(too_little(&figures, &last_words)),
        (false, _) => Err(disagreement(&figures)),
    }
}

fn too_little(figures: &Figures, last_words: &str) -> Error {
    let least = figures::JOINER_PERCENT;
    let what = format!(
        "peer {} joined and answered {:.1} % of the events as a leader, less than {least} %; its last words: {last_words}",
        figures.joined, figures.joined_percent
    );
    Error::new(Code::NotReady, what)
        .remedy("the run must last some seconds after the join: use more events or a lower --rate")
}

fn stopped_by(signal: &str) -> Error {
    Error::new(Code::ShuttingDown, format!("the demo was stopped by {signal}")).remedy("run it again")
}

fn disagreement(figures: &Figures) -> Error {
    Error::internal(report::sentence(figures)).remedy("please report this, with the input and the figures")
}

fn events(args: &DemoArgs) -> Result<Input> {
    let input = match &args.input {
        Some(path) => retail::read_file(path, args.skip_bad)?,
        None => Input { events: generate::card_transactions(args.events as usize, args.seed), skipped: 0 },
    };
    if input.events.is_empty() {
        let place = args.input.as_ref().map_or("option --events".to_owned(), |path| path.display().to_string());
        return Err(Error::new(Code::InvalidRequest, "there is no event to send")
            .at(place)
            .remedy("name another input"));
    }
    Ok(input)
}

async fn run(peers: &Peers, events: &[Event], rate: u64) -> Result<(Drive, Figures)> {
    peers.wait_ready().await?;
    let config = ClientConfig {
        deadline: EVENT_DEADLINE,
        // More than ever wait at once, so that an event is taken in as soon as it is sent.
        max_outstanding: 2 * WINDOW_PACED,
        ..ClientConfig::default()
    };
    let client = Client::connect(peers.addresses(), config).await?;
    wait_formed(&client).await?;
    create_map(&client).await?;
    let before = StateReads::sum(peers, StateReads::none()).await;
    let drive = drive(&client, peers, events, rate).await?;
    let last = final_questions(events);
    let answers = ask_finally(&client, &last).await?;
    let reads = StateReads::sum(peers, drive.kill.reads).await.since(before);
    let names = client.members().await?.into_iter().map(|member| (member.id, member.name)).collect();
    let figures = figures::figures(&drive, last.len(), verdict(events, &drive, &last, &answers), reads, &names);
    Ok((drive, figures))
}

/// Waits until every partition has its replicas and a leader.
async fn wait_formed(client: &Client) -> Result<()> {
    let give_up = Instant::now() + FORMED_WITHIN;
    loop {
        let partitions = client.partitions().await?;
        let is_whole = |partition: &crate::node::PartitionInfo| {
            partition.leader.is_some() && partition.under_replicated == 0 && partition.replicas.len() >= FOUNDERS
        };
        let whole = partitions.iter().filter(|partition| is_whole(partition)).count();
        if whole == partitions.len() && whole > 0 {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let what = format!("{whole} of {} partitions have {FOUNDERS} replicas and a leader", partitions.len());
            return Err(Error::new(Code::NotReady, what).remedy("run the demo again"));
        }
        clock::sleep(LOOK).await;
    }
}

/// Creates the map and waits until those who lead have heard of it: unlike a task, a read of a map
/// waits for it there.
async fn create_map(client: &Client) -> Result<()> {
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Msgpack, 1).await?;
    let keys: Vec<String> = (0..KEYS_EVERYWHERE).map(|number| number.to_string()).collect();
    client.get_many(MAP, &keys).await.map(|_| ())
}

/// For each customer an event that adds nothing, at the time of the last one: its answer tells
/// what the grid has kept.
fn final_questions(events: &[Event]) -> Vec<Event> {
    let mut last: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in events {
        let newest = last.entry(&event.customer).or_insert(event);
        if event.time_s >= newest.time_s {
            *newest = event;
        }
    }
    last.into_values().map(|event| Event { pence: 0, ..event.clone() }).collect()
}

async fn ask_finally(client: &Client, questions: &[Event]) -> Result<Vec<Option<i64>>> {
    let mut calls = Vec::with_capacity(questions.len());
    for question in questions {
        calls.push(drive::ask(client.clone(), question.customer.clone(), drive::payload(question)?));
    }
    Ok(stream::iter(calls).buffered(FINAL_AT_ONCE).map(|answer| answer.ok().map(|(total, _)| total)).collect().await)
}

fn verdict(events: &[Event], drive: &Drive, last: &[Event], answers: &[Option<i64>]) -> Verdict {
    let mut ledger = expected::Ledger::default();
    let first = drive.outcomes.iter().map(|outcome| outcome.as_ref().and_then(|outcome| outcome.total.clone().ok()));
    let all = events.iter().chain(last).zip(first.chain(answers.iter().copied()));
    judge(all.map(|(event, answer)| Answered { event, expected: ledger.add(event), answer }))
}

fn show(args: &DemoArgs, drive: &Drive, figures: &Figures, out: &mut (dyn Write + Send)) -> Result<()> {
    if args.json {
        let value = serde_json::to_value(figures).map_err(|error| Error::internal(error.to_string()))?;
        return json(out, &value);
    }
    let outcomes: Vec<&drive::Outcome> = drive.outcomes.iter().flatten().collect();
    let marks = [
        (drive.kill.at, format!("{} killed", drive.kill.peer)),
        (drive.joiner.at, format!("{} joins", drive.joiner.peer)),
    ];
    let picture = report::picture(&figures::answer_times(&outcomes), &marks);
    let mut text = format!("{}\n{picture}", report::table(figures));
    if figures.agrees {
        text.push_str(&format!("\n{}\n", report::sentence(figures)));
    }
    print(out, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_peer_that_led_too_little_is_an_error_with_its_last_words() {
        let figures = Figures { joiner_led: false, joined_percent: 1.25, ..figures::tests::sample() };
        let error = too_little(&figures, "KS3004: not ready");
        assert_eq!((error.code, error.code.exit_status()), (Code::NotReady, 1));
        assert!(error.what.contains("peer n4 joined and answered 1.2 % of the events as a leader, less than 5 %"));
        assert!(error.what.ends_with("its last words: KS3004: not ready") && error.remedy.contains("more events"));
    }

    #[test]
    fn the_final_question_asks_at_the_last_time_and_adds_nothing() {
        let event = |row, customer: &str, time_s| Event { row, customer: customer.to_owned(), time_s, pence: 5 };
        let questions = final_questions(&[event(1, "b", 10), event(2, "a", 20), event(3, "b", 30), event(4, "b", 25)]);
        let seen: Vec<(&str, i64, i64)> =
            questions.iter().map(|event| (event.customer.as_str(), event.time_s, event.pence)).collect();
        assert_eq!(seen, [("a", 20, 0), ("b", 30, 0)]);
    }
}
