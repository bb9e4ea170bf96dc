//! Clients at work, through the real client and its network.

use super::peer::{KEEP, LISTS};
use super::shape::Shape;
use super::workload::{self, MAP, Step, Steps};
use super::{QUIET_FROM, Records, movement};
pub(super) use crate::actions::number;
use crate::actions::perform;
use crate::checks::{Finals, Violation};
use crate::history::{Action, Answer};
use crate::machine::Life;
use crate::tally;
use keystead::client::{Client, ClientConfig, SubmitOptions};
use keystead::clock::{Instant, sleep};
use keystead::error::{Class, Code, Error, Result};
use keystead::types::{AckLevel, KeyCodec, TaskPayload, ValueCodec};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Time for one call. Longer than an election, shorter than the longest fault.
const DEADLINE: Duration = Duration::from_secs(2);

/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_millis(700);

/// The number of the client that reads everything in the end.
const JUDGE: u32 = 99;

pub(super) async fn connect(life: &Life, endpoints: &[String]) -> Client {
    let config = ClientConfig {
        deadline: DEADLINE,
        attempt_timeout: ATTEMPT,
        connect_deadline: Duration::from_secs(2),
        scatter_deadline: DEADLINE,
        keepalive: None,
        ..ClientConfig::default()
    };
    loop {
        let builder = Client::builder().config(config.clone()).network(Arc::new(life.network.clone()));
        match builder.random(life.random.clone()).connect(endpoints.to_vec()).await {
            Ok(client) => return client,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

pub(super) async fn create_maps(client: &Client) {
    for (map, codec) in [(MAP, ValueCodec::I64), (LISTS, ValueCodec::Msgpack)] {
        while client.create_map(map, KeyCodec::Utf8, codec, 0).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One client's work, until everything is mended.
pub(super) async fn work(
    life: Life,
    seed: u64,
    number: u32,
    mut endpoints: Vec<String>,
    shape: Shape,
    records: Records,
) {
    let partitions = shape.partitions;
    let start = Instant::now();
    let shift = number as usize % endpoints.len();
    endpoints.rotate_left(shift);
    let client = connect(&life, &endpoints).await;
    create_maps(&client).await;
    crate::event!(&life.name, "begins");
    let mut steps = Steps::new(seed, number, shape.hot_per_mille);
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(steps.pause_ms())).await;
        match steps.draw() {
            Step::Operate(key, action) => operate(&client, number, key, action, &mut steps, &records).await,
            Step::Task(key, mark, how) => submit(&client, key, mark, how, &records).await,
            Step::Broadcast(mark) => broadcast(&client, mark, partitions, &records).await,
            Step::Count => count(&client, partitions, &records).await,
        }
    }
    *records.working.borrow_mut() -= 1;
}

/// Whether the error leaves open what happened; of every other error the client says that
/// nothing did.
pub(super) fn is_unknown(error: &Error) -> bool {
    error.code.facts().0 == Class::OutcomeUnknown
}

async fn operate(
    client: &Client,
    number: u32,
    key: &'static str,
    action: Action,
    steps: &mut Steps,
    records: &Records,
) {
    let history = &records.history;
    let operation = history.invoke(number, key, action, AckLevel::MajorityFsync);
    match perform(client, MAP, key, action).await {
        Ok((answer, level)) => {
            if let Answer::Value(value) | Answer::Refused(value) = answer {
                steps.saw(key, value);
            }
            history.answered(operation, answer, level);
        }
        Err(error) if is_unknown(&error) => history.unknown(operation),
        Err(error) => {
            check_error(&error, records);
            history.refused(operation);
        }
    }
}

/// Errors that no fault of this simulation excuses.
pub(super) fn check_error(error: &Error, records: &Records) {
    let excused = matches!(error.code.facts().0, Class::Unavailable | Class::DeadlineExceeded | Class::Exhausted);
    let clocks = records.far_jump && error.code == Code::ClockAhead;
    if !excused && !clocks {
        records.violations.borrow_mut().push(Violation { check: "errors", what: error.to_string() });
    }
}

async fn submit(client: &Client, key: &'static str, mark: u64, how: u8, records: &Records) {
    crate::event!("task", "{key} {mark} {how}");
    let answer: Result<u64> = client.submit("append", key, &(mark, how)).await;
    crate::event!("task", "{mark} -> {:?}", answer.as_ref().map_err(|error| error.code));
    count_answer(&answer);
    let mut marks = records.marks.borrow_mut();
    match answer {
        Ok(_) => marks.acknowledged(key, mark),
        Err(error) if is_unknown(&error) && how == KEEP => marks.unknown(key, mark),
        // Its writes are undone: the mark must not be there.
        Err(error) if matches!(error.code, Code::TaskPanicked | Code::TaskFailed) && how != KEEP => {}
        Err(error) if is_unknown(&error) => {}
        Err(error) => check_error(&error, records),
    }
}

/// Counts how a request ended that no history keeps.
pub(super) fn count_answer<T>(answer: &Result<T>) {
    let outcome = match answer {
        Ok(_) => "answered",
        Err(error) if is_unknown(error) => "of unknown outcome",
        Err(_) => "refused",
    };
    tally::operations(outcome, 1);
}

/// Leaves a mark in every partition, once. An error leaves open whether it is there.
async fn broadcast(client: &Client, mark: u64, partitions: u32, records: &Records) {
    crate::event!("broadcast", "{mark}");
    *records.issued.borrow_mut() += u64::from(partitions);
    let payload = TaskPayload { codec: ValueCodec::Json, data: mark.to_string().into() };
    let answers = client.broadcast("mark", payload, SubmitOptions::default()).await;
    let keys = workload::partition_keys(partitions);
    let mut marks = records.marks.borrow_mut();
    let mut rest: BTreeSet<&String> = keys.iter().collect();
    for answer in answers.iter().flatten() {
        crate::event!(
            "broadcast",
            "{mark} in {}: {:?}",
            answer.partition,
            answer.outcome.as_ref().map_err(|error| error.code)
        );
        count_answer(&answer.outcome);
        let Some(key) = keys.get(answer.partition.0 as usize) else { continue };
        match &answer.outcome {
            Ok(_) => {
                marks.acknowledged(key, mark);
                rest.remove(key);
            }
            Err(error) if is_unknown(error) => {}
            Err(error) => check_error(error, records),
        }
    }
    if let Err(error) = &answers
        && !is_unknown(error)
    {
        check_error(error, records);
    }
    rest.into_iter().for_each(|key| marks.unknown(key, mark));
}

/// Counts the partitions' marks: no fewer than were acknowledged before, no more than were sent.
async fn count(client: &Client, partitions: u32, records: &Records) {
    let before = records.marks.borrow().in_partitions();
    let counted: Result<u64> = client.scatter_typed("count-marks", &()).await;
    crate::event!("count", "{before} of {partitions} -> {:?}", counted.as_ref().map_err(|error| error.code));
    count_answer(&counted);
    match counted {
        Ok(counted) => {
            let issued = *records.issued.borrow();
            if counted < before || counted > issued {
                let what = format!("a scatter counted {counted} marks; {before} were acknowledged, {issued} sent");
                records.violations.borrow_mut().push(Violation { check: "scatters miss nothing", what });
            }
        }
        Err(error) if error.code == Code::PartitionsFailed || is_unknown(&error) => {}
        Err(error) => check_error(&error, records),
    }
}

/// Reads everything once the others have finished: all of it must be answered.
pub(super) async fn read_all(life: Life, endpoints: Vec<String>, shape: Shape, records: Records) {
    while *records.working.borrow() > 0 {
        sleep(Duration::from_millis(50)).await;
    }
    let client = connect(&life, &endpoints).await;
    if shape.plain.is_some() {
        tasks_are_answered(&client, &records).await;
    }
    let numbers = read_numbers(&client, JUDGE, &records).await;
    *records.finals.borrow_mut() = numbers;
    let lists = workload::lists().map(str::to_owned).chain(workload::partition_keys(shape.partitions));
    for key in lists.collect::<Vec<_>>().iter().map(String::as_str) {
        let stored = until_answered(|| client.get(LISTS, key)).await;
        let list = stored.map(|stored| decode_list(&stored.value.data)).unwrap_or_default();
        records.marks.borrow_mut().found(key, list);
    }
    records.reached("everything is read", super::READS_WITHIN);
    *records.judged.borrow_mut() = true;
    movement::converge(&client, &shape, &records).await;
    *records.settled.borrow_mut() = true;
}

/// With a peer that does not carry them, too, tasks beside each key and on all partitions are answered.
async fn tasks_are_answered(client: &Client, records: &Records) {
    for (key, number) in workload::lists().zip(1..) {
        for mark in (u64::from(JUDGE) << 32 | number << 16).. {
            let answer: Result<u64> = client.submit("append", key, &(mark, KEEP)).await;
            crate::event!("judge", "task {key} {mark}: {:?}", answer.as_ref().map_err(|error| error.code));
            match answer {
                Ok(_) => {
                    records.marks.borrow_mut().acknowledged(key, mark);
                    break;
                }
                Err(error) if is_unknown(&error) => records.marks.borrow_mut().unknown(key, mark),
                Err(error) => check_error(&error, records),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The task's list, as it wrote it.
pub(super) fn decode_list(bytes: &[u8]) -> Vec<u64> {
    rmp_serde::from_slice(bytes).unwrap_or_else(|_| vec![u64::MAX])
}

/// Reads what the keys of numbers hold, one after the other, in the name of this client.
pub(super) async fn read_numbers(client: &Client, number: u32, records: &Records) -> Finals {
    let mut numbers = Finals::new();
    for key in workload::keys() {
        let operation = records.history.invoke(number, key, Action::Get, AckLevel::MajorityFsync);
        let answer = until_answered(|| perform(client, MAP, key, Action::Get)).await;
        records.history.answered(operation, answer.0, answer.1);
        if let Answer::Value(value) = answer.0 {
            numbers.insert(key.to_owned(), value);
        }
    }
    numbers
}

pub(super) async fn until_answered<T, F: Future<Output = Result<T>>>(mut ask: impl FnMut() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => crate::event!("judge", "no answer yet: {error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}
