//! A fault in one partition holds up no other: five peers, some partitions with a replica on three of them
//! each, a client per partition that writes all the time, and one fault that strikes one peer or two.
//!
//! In: a seed, which draws the fault. Out: the longest gap of each partition, judged by what the fault
//! left of it; and whether all that was read and written has one order: who reads is never cut off, so
//! that it asks a leader which has been deposed and does not know it.

use super::clients::{check_error, connect, is_unknown};
use super::harsher::Kind;
use super::shape::{self, COPIES};
use super::workload::MAP;
use super::{Records, peer};
use crate::actions::perform;
use crate::checks::{self, Bounds, Left, Served, Times, Violation, Witnessed};
use crate::dice::Dice;
use crate::history::{Action, Operation};
use crate::machine::Life;
use crate::nemesis::{Death, Fault, Plan, Planned};
use crate::simulation::Simulation;
use crate::{tally, trace};
use keystead::client::Client;
use keystead::clock::sleep;
use keystead::node::{PartitionInfo, ReplicaState};
use keystead::ring;
use keystead::types::{AckLevel, KeyCodec, PartitionId, ValueCodec, slot_of};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

const TIMES: Times =
    Times { struck: Duration::from_secs(12), mended: Duration::from_secs(16), until: Duration::from_secs(20) };

/// A write needs four messages one after the other, of 6 ms at most: to the leader, to a follower and both
/// answers. Its client rests for 30 ms before it. A batch waits for its place among those of its peer for no
/// longer than 20 ms, also where others have no majority and keep theirs. That is 74 ms; the rest is for what
/// stands in line. Whoever waited for an election would wait for 300 ms.
///
/// One that has lost its leader serves again while the fault lasts, which is 4 s. A leader that is cut off from its
/// voters and not from the client lets a write wait for 0.9 s, and a peer that sends it on to such a one for 0.7 s: two
/// peers are struck at most, so that the call's 2 s may be over, and the next one has another such peer before it.
/// How long a failover takes at best is not asked here.
const BOUNDS: Bounds = Bounds { whole: Duration::from_millis(120), elected: Duration::from_millis(3600) };

/// The clients begin so long before the fault.
const BEFORE: Duration = Duration::from_secs(1);
/// When everything must be over.
const AT_MOST: Duration = Duration::from_secs(40);
/// A writer rests so long.
const REST: Duration = Duration::from_millis(30);
/// Between two reads.
const READS_EVERY: Duration = Duration::from_millis(60);
/// Fewer answers before the fault, and the partition was not asked steadily.
const FEWEST: usize = 10;

/// What is known of the partitions when the fault strikes: leader and replicas, once nothing moves.
type Placed = BTreeMap<u32, (String, Vec<String>)>;

#[derive(Clone, Default)]
struct Apart {
    records: Records,
    placed: Rc<RefCell<Option<Placed>>>,
    answers: Rc<RefCell<BTreeMap<u32, Vec<Duration>>>>,
}

/// The fault: who is struck, and how.
fn draw_faults(seed: u64, peers: usize) -> (BTreeSet<String>, Vec<Fault>) {
    let mut dice = Dice::new(seed, "apart");
    let one = dice.index(peers);
    let other = (one + 1 + dice.index(peers - 1)) % peers;
    let (struck, faults) = match dice.below(8) {
        0 => (vec![one], vec![Fault::Crash(one, Death::PowerHard)]),
        1 => (vec![one], vec![Fault::Clog(one)]),
        2 => (vec![one], vec![Fault::Rest(one)]),
        3 => (vec![one], vec![Fault::LongPause(one, dice.per_mille(500))]),
        4 => (vec![one], vec![Fault::SlowDisk(one, Duration::from_millis(dice.between(50, 300)))]),
        5 => (vec![one], vec![Fault::DiskFull(one, 0)]),
        6 => (vec![one, other], [one, other].map(|node| Fault::Crash(node, Death::Kill)).into()),
        _ => (vec![one, other], [one, other].map(Fault::Clog).into()),
    };
    (struck.into_iter().map(|node| format!("n{}", node + 1)).collect(), faults)
}

/// Runs the scenario.
pub(super) fn run(seed: u64) -> Vec<Violation> {
    let shape = Kind::Apart.shape(seed);
    let (struck, faults) = draw_faults(seed, shape.peers);
    crate::event!("apart", "{shape:?} {struck:?} {faults:?}");
    let planned = |fault| Planned { from: TIMES.struck, until: TIMES.mended, fault };
    let plan = Plan { faults: faults.into_iter().map(planned).collect(), quiet_from: TIMES.mended };
    let mut simulation = Simulation::new(seed, AT_MOST);
    let apart = Apart {
        records: Records { kind: Kind::Apart, witnessed: Witnessed::new(COPIES), ..Records::default() },
        ..Apart::default()
    };
    let addresses: Vec<String> = shape.names().iter().map(|name| shape::address(&simulation, name)).collect();
    for name in shape.names() {
        let (shape, records, addresses) = (shape.clone(), apart.records.clone(), addresses.clone());
        simulation.machine(&name, move |life| peer::run(life, shape.clone(), addresses.clone(), records.clone()));
    }
    for partition in 0..shape.partitions {
        let key = key_of(partition, shape.partitions);
        let (seeds, to, at) = (addresses.clone(), apart.clone(), key.clone());
        simulation.client(&format!("c{partition}"), move |life| write(life, seeds, partition, at, to));
        let (seeds, to) = (addresses.clone(), apart.clone());
        simulation.spectator(&format!("r{partition}"), move |life| read(life, seeds, partition, key, to));
    }
    let (seeds, to) = (addresses, apart.clone());
    simulation.client("surveyor", move |life| survey(life, seeds, shape.partitions as usize, to));
    let ended = simulation.run(plan);
    judge(ended, &struck, &apart)
}

/// A key that lives in a partition.
fn key_of(partition: u32, partitions: u32) -> String {
    let slots = ring::slot_range(PartitionId(partition), partitions);
    let lives_there = |key: &String| slots.contains(&slot_of(key.as_bytes()).0);
    (0..u32::MAX).map(|number| format!("k{number}")).find(lives_there).unwrap_or_default()
}

async fn begin(life: &Life, endpoints: &[String]) -> Client {
    let client = connect(life, endpoints).await;
    while client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let before = (TIMES.struck - BEFORE).saturating_sub(trace::now());
    sleep(before).await;
    client
}

/// Writes to one partition all the time.
async fn write(life: Life, endpoints: Vec<String>, partition: u32, key: String, apart: Apart) {
    let client = begin(&life, &endpoints).await;
    while trace::now() < TIMES.until {
        if ask(&client, partition, &key, Action::Increment(1), &apart.records).await {
            apart.answers.borrow_mut().entry(partition).or_default().push(trace::now());
        }
        sleep(REST).await;
    }
}

/// Reads what the writer of a partition writes.
async fn read(life: Life, endpoints: Vec<String>, partition: u32, key: String, apart: Apart) {
    let client = begin(&life, &endpoints).await;
    while trace::now() < TIMES.until {
        ask(&client, 100 + partition, &key, Action::Get, &apart.records).await;
        sleep(READS_EVERY).await;
    }
}

/// Whether it was answered.
async fn ask(client: &Client, number: u32, key: &str, action: Action, records: &Records) -> bool {
    let history = &records.history;
    let operation = history.invoke(number, key, action, AckLevel::MajorityFsync);
    match perform(client, MAP, key, action).await {
        Ok((answer, level)) => {
            history.answered(operation, answer, level);
            return true;
        }
        Err(error) if is_unknown(&error) => history.unknown(operation),
        Err(error) => {
            check_error(&error, records);
            history.refused(operation);
        }
    }
    false
}

/// Notes who leads and holds each partition, until the fault strikes.
async fn survey(life: Life, endpoints: Vec<String>, partitions: usize, apart: Apart) {
    let client = connect(&life, &endpoints).await;
    while trace::now() + Duration::from_millis(100) < TIMES.struck {
        let found = client.partitions().await.unwrap_or_default();
        let settled = found.len() == partitions && found.iter().all(is_settled);
        let place = |at: &PartitionInfo| {
            let replicas = at.replicas.iter().map(|replica| replica.name.clone()).collect();
            (at.id.0, (at.leader.clone().unwrap_or_default(), replicas))
        };
        *apart.placed.borrow_mut() = settled.then(|| found.iter().map(place).collect());
        sleep(Duration::from_millis(50)).await;
    }
    crate::event!("surveyor", "{:?}", apart.placed.borrow());
}

/// Whether all copies are there, and the one leads that is to.
fn is_settled(partition: &PartitionInfo) -> bool {
    let first = partition.replicas.first().map(|replica| &replica.name);
    partition.replicas.len() == COPIES
        && first == partition.leader.as_ref()
        && partition.replicas.iter().all(|replica| replica.state == ReplicaState::Holding)
}

fn judge(ended: Result<Duration, String>, struck: &BTreeSet<String>, apart: &Apart) -> Vec<Violation> {
    let records = &apart.records;
    let mut violations: Vec<Violation> =
        ended.err().map(|what| Violation { check: "all finish", what }).into_iter().collect();
    let operations = records.history.operations();
    let is_answered = |operation: &&Operation| operation.answer().is_some();
    let answered = operations.iter().filter(is_answered).count();
    tally::operations("answered", answered);
    tally::operations("refused, or of unknown outcome", operations.len() - answered);
    violations.extend(checks::linearizable(&operations));
    violations.extend(checks::levels(&operations));
    violations.extend(records.leaders.violations());
    violations.extend(records.witnessed.violations());
    violations.append(&mut records.violations.borrow_mut());
    let Some(placed) = apart.placed.borrow().clone() else {
        violations.push(nothing("the partitions were not in their places when the fault struck"));
        return violations;
    };
    let served = |(partition, (leader, replicas)): (u32, (String, Vec<String>))| {
        let answers = apart.answers.borrow().get(&partition).cloned().unwrap_or_default();
        Served { partition, left: Left::of(&leader, &replicas, struck), answers }
    };
    let served: Vec<Served> = placed.into_iter().map(served).collect();
    for served in &served {
        crate::event!("judge", "partition {}: {:?}, {:?}", served.partition, served.left, served.gap(&TIMES));
        tally::longest(served.left.name(), served.gap(&TIMES));
    }
    violations.extend(checks::gaps(&served, &TIMES, &BOUNDS));
    let steady = |served: &Served| served.answers.iter().filter(|at| **at < TIMES.struck).count() >= FEWEST;
    if !served.iter().all(steady) {
        violations.push(nothing("a partition was hardly asked before the fault"));
    }
    let (whole, hit): (Vec<&Served>, Vec<&Served>) = served.iter().partition(|served| served.left == Left::Leader);
    if whole.is_empty() || hit.is_empty() {
        violations.push(nothing("of whole and of struck partitions there was only one kind"));
    }
    violations
}

fn nothing(what: &str) -> Violation {
    Violation { check: "scenario", what: what.to_owned() }
}
