//! One round: clients at work, faults, everything mended, and the verdict.
//!
//! In: a running grid. Out: what was done, how long it took, and every promise that was broken. A round
//! ends in bounded time whatever the grid does.

use super::agree;
use super::clients::{self, Common, FIRST_PLACE};
use super::converge;
use super::fleet::Fleet;
use super::nemesis::Nemesis;
use super::peer::Peer;
use super::pulse::Pulse;
use super::record::Record;
use super::watchers;
use super::workload;
use crate::checks::{self, Finals, Violation, Watched};
use crate::history::{Operation, Outcome};
use anyhow::Context;
use keystead::client::Client;
use keystead::clock::{self, Instant, JoinHandle};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long clients have the grid to themselves at first.
const CALM: Duration = Duration::from_secs(1);
/// How long things break.
const FAULTS: Duration = Duration::from_secs(20);
/// How long the clients may take to finish, and the judge to read.
const FINISH_WITHIN: Duration = Duration::from_secs(60);

/// For so many rounds their keys are read again.
const REMEMBERED: u32 = 60;

/// What a run carries from round to round.
pub struct Run {
    /// Decides what can be decided.
    pub seed: u64,
    /// The peers.
    pub fleet: Arc<tokio::sync::Mutex<Fleet>>,
    /// What breaks them.
    pub nemesis: Nemesis,
    /// Time for bounds.
    pub pulse: Pulse,
    /// How many clients.
    pub clients: u32,
    /// Operations on the keys of earlier rounds, and what these held in the end.
    pub settled: BTreeMap<String, Settled>,
}

/// A key of an earlier round.
pub struct Settled {
    round: u32,
    value: Option<i64>,
    operations: Vec<Operation>,
}

/// What came of a round.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Operations that were answered.
    pub answered: u64,
    /// Operations of which nobody knows.
    pub unknown: u64,
    /// Operations that were refused, so that nothing happened.
    pub refused: u64,
    /// Time until everything was in its place again.
    pub converged: Duration,
    /// Time that the checks took.
    pub checked: Duration,
    /// Watches that saw the round through to its end.
    pub watches: u64,
    /// Events that watches showed.
    pub events: u64,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Everything that was asked and told.
    pub operations: Vec<Operation>,
}

impl Run {
    /// Runs one round.
    ///
    /// # Errors
    /// What keeps the round from being run, which is no verdict on the grid.
    pub async fn round(&mut self, round: u32) -> anyhow::Result<Outcomes> {
        let endpoints = self.fleet.lock().await.endpoints();
        let common = Common {
            seed: self.seed,
            round,
            record: Record::default(),
            stop: Arc::new(AtomicBool::new(false)),
            quiet: Arc::new(AtomicBool::new(false)),
            answered: Arc::new((0..self.clients).map(|_| AtomicU64::new(0)).collect()),
            pulse: self.pulse.clone(),
            violations: Arc::default(),
            endpoints: Arc::new(Mutex::new(endpoints)),
        };
        self.fleet.lock().await.timeline.note(format_args!("round {round} begins"));
        let judge = self.judge().await?;
        let workers = self.start_clients(&common).await;
        let watcher = self.start_watcher(&common).await;
        clock::sleep(CALM).await;
        let change = self.nemesis.rage(round, &self.fleet, &judge, FAULTS).await?;
        let mut outcomes = Outcomes::default();
        {
            let mut fleet = self.fleet.lock().await;
            fleet.look().await?;
            fleet.heal().await?;
            fleet.timeline.note("mended");
            *common.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = fleet.endpoints();
        }
        let judge = self.judge().await?;
        match converge::converged(&self.fleet, &judge, &change, &self.pulse).await {
            Ok(took) => outcomes.converged = took,
            Err(violation) => outcomes.violations.push(violation),
        }
        outcomes.violations.extend(converge::departed(&self.fleet, &change, &self.pulse).await.err());
        outcomes.violations.extend(converge::going_on(&common).await.err());
        common.stop.store(true, Ordering::Relaxed);
        self.end_clients(workers, &mut outcomes).await;
        common.quiet.store(true, Ordering::Relaxed);
        let watches = self.end_watcher(watcher, &mut outcomes).await;
        self.verdict(&common, &judge, watches, &mut outcomes).await?;
        self.fleet.lock().await.timeline.note(format_args!("round {round} ends"));
        Ok(outcomes)
    }

    /// A client that no fault concerns.
    ///
    /// # Errors
    /// That nobody answers it.
    pub async fn judge(&self) -> anyhow::Result<Client> {
        let (from, endpoints) = {
            let fleet = self.fleet.lock().await;
            (fleet.proxy.address(FIRST_PLACE - 1), fleet.endpoints())
        };
        let mut last = None;
        for _ in 0..20 {
            match clients::connect(from, endpoints.clone()).await {
                Ok(client) => return Ok(client),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no attempt was made"), Into::into)).context("no peer answers")
    }

    async fn start_clients(&self, common: &Common) -> Vec<JoinHandle<()>> {
        let proxy = self.fleet.lock().await.proxy.clone();
        let numbers = (0..self.clients).zip(FIRST_PLACE..);
        numbers
            .map(|(number, place)| clock::spawn(clients::work(common.clone(), number, proxy.address(place))))
            .collect()
    }

    async fn end_clients(&self, workers: Vec<JoinHandle<()>>, outcomes: &mut Outcomes) {
        for (number, mut worker) in workers.into_iter().enumerate() {
            let what = match self.pulse.within(FINISH_WITHIN, &mut worker).await {
                Some(Ok(())) => continue,
                Some(Err(error)) => format!("client {number}: {error}"),
                None => format!("client {number} does not finish"),
            };
            worker.abort();
            outcomes.violations.push(Violation { check: "clients finish", what });
        }
    }

    async fn start_watcher(&self, common: &Common) -> JoinHandle<Vec<Watched>> {
        let proxy = self.fleet.lock().await.proxy.clone();
        let place = FIRST_PLACE + self.clients as u8;
        clock::spawn(watchers::follow(common.clone(), proxy.address(place)))
    }

    async fn end_watcher(&self, mut watcher: JoinHandle<Vec<Watched>>, outcomes: &mut Outcomes) -> Vec<Watched> {
        let what = match self.pulse.within(FINISH_WITHIN, &mut watcher).await {
            Some(Ok(watches)) => return watches,
            Some(Err(error)) => format!("the watcher: {error}"),
            None => "the watcher does not finish".to_owned(),
        };
        watcher.abort();
        outcomes.violations.push(Violation { check: "clients finish", what });
        Vec::new()
    }

    /// Reads everything, and checks it.
    async fn verdict(
        &mut self,
        common: &Common,
        judge: &Client,
        watches: Vec<Watched>,
        outcomes: &mut Outcomes,
    ) -> anyhow::Result<()> {
        let (round, keys) = (common.round, workload::keys(common.round));
        let read = clients::read_all(judge, &keys, &common.record, &self.pulse, FINISH_WITHIN).await;
        let found = |what| Violation { check: "reads after all is mended", what };
        let finals = read.map_err(|what| outcomes.violations.push(found(what))).unwrap_or_default();
        outcomes.violations.append(&mut common.violations.lock().unwrap_or_else(PoisonError::into_inner));
        let begun = Instant::now();
        outcomes.operations = common.record.operations();
        outcomes.watches = watches.iter().filter(|watched| watched.end.is_some()).count() as u64;
        outcomes.events = watches.iter().map(|watched| watched.events.len() as u64).sum();
        let (operations, of, of_round) = (outcomes.operations.clone(), finals.clone(), keys.clone());
        // The search takes a processor for itself for a while.
        let check_all = move || [check(&operations, &of), watchers::check(&watches, &operations, &of_round)].concat();
        let checked = tokio::task::spawn_blocking(check_all).await?;
        outcomes.violations.extend(checked);
        outcomes.checked = begun.elapsed();
        let count = |wanted: fn(&Outcome) -> bool| {
            outcomes.operations.iter().filter(|operation| wanted(&operation.outcome)).count() as u64
        };
        outcomes.answered = count(|outcome| matches!(outcome, Outcome::Answered(_)));
        outcomes.unknown = count(|outcome| *outcome == Outcome::Unknown);
        outcomes.refused = count(|outcome| *outcome == Outcome::Refused);
        let (from, peers) = {
            let fleet = self.fleet.lock().await;
            let peer = |peer: &Peer| (peer.identity.name.clone(), peer.identity.front.to_string());
            (fleet.proxy.address(FIRST_PLACE - 1), fleet.peers().map(peer).collect::<Vec<_>>())
        };
        outcomes.violations.extend(agree::agree(&peers, from, judge, &self.pulse).await);
        outcomes.violations.extend(self.audit(judge).await);
        let mut fleet = self.fleet.lock().await;
        fleet.look().await?;
        outcomes.violations.extend(fleet.ended());
        outcomes.violations.extend(fleet.alarms());
        for (key, value) in finals {
            let of_key = outcomes.operations.iter().filter(|operation| operation.key == key).cloned().collect();
            self.settled.insert(key, Settled { round, value, operations: of_key });
        }
        self.settled.retain(|_, settled| settled.round + REMEMBERED > round);
        Ok(())
    }

    /// Reads the keys of earlier rounds again: nobody has written to them, but who was never answered.
    async fn audit(&mut self, judge: &Client) -> Vec<Violation> {
        let keys: Vec<String> = self.settled.keys().cloned().collect();
        let record = Record::default();
        let read = clients::read_all(judge, &keys, &record, &self.pulse, FINISH_WITHIN).await;
        let found = match read {
            Ok(found) => found,
            Err(what) => return vec![Violation { check: "reads after all is mended", what }],
        };
        let reads = record.operations();
        let mut violations = Vec::new();
        for (key, value) in found {
            let Some(Settled { value: before, operations, .. }) = self.settled.get_mut(&key) else { continue };
            if *before == value {
                continue;
            }
            // A request of unknown outcome may have arrived late; nothing else explains it.
            let last = operations.iter().map(|operation| operation.invoked).max().unwrap_or(0);
            let last = operations.iter().map(|op| op.returned).filter(|at| *at != u64::MAX).fold(last, u64::max);
            let late = reads.iter().filter(|read| read.key == key).cloned();
            operations.extend(late.map(|read| Operation { invoked: last + 1, returned: last + 2, ..read }));
            *before = value;
            violations.extend(checks::linearizable(operations));
        }
        violations
    }
}

/// Every check of a history.
pub fn check(operations: &[Operation], finals: &Finals) -> Vec<Violation> {
    let checks = [
        checks::linearizable(operations),
        checks::once_in_counters(operations, finals),
        checks::kept(operations, finals),
        checks::levels(operations),
    ];
    checks.concat()
}
