//! Clients at work, through the real client and the proxy.
//!
//! In: where the peers are reached, and dice. Out: a [`Record`] of what was asked and told; whatever no
//! fault excuses. An error that promises that nothing happened is believed, and so checked; one that does
//! not stays unknown.

use super::proxy::Place;
use super::pulse::Pulse;
use super::record::Record;
use super::workload::{Actions, MAP};
use crate::actions::{is_excused, perform, says_without_effect};
use crate::checks::{Finals, Violation};
use crate::history::{Action, Answer, Outcome};
use keystead::client::{Client, ClientConfig};
use keystead::clock::sleep;
use keystead::error::{Error, Result};
use keystead::net::TcpFrom;
use keystead::types::{KeyCodec, ValueCodec};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time for one call: longer than an election, shorter than the longest fault.
const DEADLINE: Duration = Duration::from_secs(4);
/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// By so much may a call outlive its deadline: processes share few cores.
const GRACE: Duration = Duration::from_secs(6);
/// After this a call counts as lost for ever.
const NEVER: Duration = Duration::from_secs(60);

/// The number of the client that reads everything in the end.
pub const JUDGE: u32 = 99;
/// The place of the first client; the judge has the one before. Only peers stand below.
pub const FIRST_PLACE: Place = 201;

/// What the clients of a round have in common.
#[derive(Clone)]
pub struct Common {
    /// Of the run.
    pub seed: u64,
    /// Which round.
    pub round: u32,
    /// What they asked and were told.
    pub record: Record,
    /// They are to finish.
    pub stop: Arc<AtomicBool>,
    /// They have finished: what a watcher sees now is the end.
    pub quiet: Arc<AtomicBool>,
    /// Answered operations per client.
    pub answered: Arc<Vec<AtomicU64>>,
    /// Time for bounds.
    pub pulse: Pulse,
    /// What nothing excuses.
    pub violations: Arc<Mutex<Vec<Violation>>>,
    /// Where the peers are reached at present.
    pub endpoints: Arc<Mutex<Vec<String>>>,
}

impl Common {
    /// Notes what nothing excuses.
    pub fn violation(&self, check: &'static str, what: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(Violation { check, what });
    }

    /// The peers' addresses, another first for each client.
    pub fn endpoints(&self, client: u32) -> Vec<String> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let by = client as usize % endpoints.len().max(1);
        endpoints.rotate_left(by);
        endpoints
    }
}

/// A client whose connections come from an address, once a peer answers.
///
/// # Errors
/// What the last attempt gave.
pub async fn connect(from: Ipv4Addr, endpoints: Vec<String>) -> Result<Client> {
    let config = ClientConfig {
        deadline: DEADLINE,
        attempt_timeout: ATTEMPT,
        connect_deadline: DEADLINE,
        ..ClientConfig::default()
    };
    Client::builder().config(config).network(Arc::new(TcpFrom(from.into()))).connect(endpoints).await
}

/// Creates the map, unless it is there.
///
/// # Errors
/// What the grid answers.
pub async fn create_map(client: &Client) -> Result<()> {
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.map(drop)
}

/// One client's work, until it is told to stop.
pub async fn work(common: Common, number: u32, from: Ipv4Addr) {
    let mut actions = Actions::new(common.seed, common.round, number);
    let stopped = || common.stop.load(Ordering::Relaxed);
    while !stopped() {
        let Ok(client) = connect(from, common.endpoints(number)).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Now and then a client ends, and another comes with another session.
        actions.another_session();
        let lifetime = actions.dice().between(100, 3000);
        for _ in 0..lifetime {
            if stopped() {
                return;
            }
            // Two at a time now and then: one session, concurrent calls.
            if actions.dice().per_mille(200) {
                let (one, two) = (actions.draw(), actions.draw());
                let (one, two) =
                    tokio::join!(operate(&common, &client, number, &one), operate(&common, &client, number, &two));
                one.into_iter().chain(two).for_each(|(key, value)| actions.saw(&key, value));
            } else {
                let drawn = actions.draw();
                let seen = operate(&common, &client, number, &drawn).await;
                seen.into_iter().for_each(|(key, value)| actions.saw(&key, value));
            }
            let pause = if actions.dice().per_mille(30) { actions.dice().between(20, 150) } else { 0 };
            sleep(Duration::from_millis(pause + actions.dice().below(6))).await;
        }
    }
}

/// Asks, and notes what came of it. Gives what was seen, if anything was.
async fn operate(
    common: &Common,
    client: &Client,
    number: u32,
    (key, action): &(String, Action),
) -> Option<(String, Option<i64>)> {
    let begun = common.pulse.now();
    let operation = common.record.invoke(number, key, *action);
    let Some(answer) = common.pulse.within(NEVER, perform(client, MAP, key, *action)).await else {
        common.violation("calls end", format!("c{number}: {action:?} of {key} has not ended for {NEVER:?}"));
        return None;
    };
    let took = common.pulse.now() - begun;
    if took > DEADLINE + GRACE {
        common.violation("calls end", format!("c{number}: {action:?} of {key} took {took:?}: {answer:?}"));
    }
    match answer {
        Ok((answer, level)) => {
            common.record.end(operation, Outcome::Answered(answer), level);
            if let Some(answered) = common.answered.get(number as usize) {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            match (answer, *action) {
                (Answer::Value(value) | Answer::Refused(value), _) => Some((key.clone(), value)),
                (Answer::Written, Action::CompareAndSet { new, .. } | Action::PutIfAbsent(new) | Action::Put(new))
                | (Answer::Written, Action::Replace(new))
                | (Answer::Replaced(_), Action::GetAndPut(new)) => Some((key.clone(), Some(new))),
                (Answer::Deleted(_), _) => Some((key.clone(), None)),
                _ => None,
            }
        }
        Err(error) => {
            let (outcome, excused) = judged(&error);
            common.record.end(operation, outcome, None);
            if !excused {
                common.violation("errors", format!("c{number}: {action:?} of {key}: {error}"));
            }
            None
        }
    }
}

/// What an error says of the operation, and whether the faults of this nemesis excuse it.
fn judged(error: &Error) -> (Outcome, bool) {
    let outcome = if says_without_effect(error.code) { Outcome::Refused } else { Outcome::Unknown };
    (outcome, is_excused(error.code))
}

/// Reads keys in the judge's name, one after the other, each until it is answered or the time is over.
///
/// # Errors
/// The key that was not answered, and why.
pub async fn read_all(
    client: &Client,
    keys: &[String],
    record: &Record,
    pulse: &Pulse,
    at_most: Duration,
) -> std::result::Result<Finals, String> {
    let mut finals = Finals::new();
    let until = pulse.now() + at_most;
    for key in keys {
        let operation = record.invoke(JUDGE, key, Action::Get);
        let (answer, level) = loop {
            match perform(client, MAP, key, Action::Get).await {
                Ok(answered) => break answered,
                Err(error) if pulse.now() > until => return Err(format!("{key} cannot be read: {error}")),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        record.end(operation, Outcome::Answered(answer), level);
        if let Answer::Value(value) = answer {
            finals.insert(key.clone(), value);
        }
    }
    Ok(finals)
}
