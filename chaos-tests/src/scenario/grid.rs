//! Whole peers and real clients under faults: the promises of a grid, checked.
//!
//! In: a seed. Out: violations of: no acknowledged write lost, linearizability per key, each
//! request once, broadcasts once per partition, scatters that miss nothing, one leader per term, the
//! level of each acknowledgement, watches without gap or repeat, entries hidden at their time, neither
//! before nor after, that all finish once everything is mended, and that every partition then has its
//! replicas where they should be, each with the same rows.

mod clients;
mod copies;
mod expiring;
mod harsher;
mod local;
mod movement;
mod peer;
mod shape;
mod watchers;
mod workload;

use crate::checks::{self, Finals, LeaderLog, LocalRead, Violation, Watched};
use crate::dice::Dice;
use crate::history::History;
use crate::nemesis::{Plan, Profile};
use crate::simulation::Simulation;
use harsher::Kind;
use keystead::node::Node;
use shape::Shape;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Weak;
use std::time::Duration;

/// When the faults begin: the grid has been founded by then, or has to manage under faults.
const CALM_UNTIL: Duration = Duration::from_millis(2500);
/// When everything is mended.
const QUIET_FROM: Duration = Duration::from_secs(14);
/// When everything must be over.
const AT_MOST: Duration = Duration::from_secs(60);

/// What the clients of a run recorded together. They all run on the simulation's thread.
#[derive(Clone, Default)]
struct Records {
    kind: Kind,
    history: History,
    marks: Rc<RefCell<workload::Marks>>,
    finals: Rc<RefCell<Finals>>,
    working: Rc<RefCell<u32>>,
    /// Marks that broadcasts may have left in partitions.
    issued: Rc<RefCell<u64>>,
    violations: Rc<RefCell<Vec<Violation>>>,
    watched: Rc<RefCell<Vec<Watched>>>,
    local: Rc<RefCell<Vec<LocalRead>>>,
    /// Everything has been read in the end.
    judged: Rc<RefCell<bool>>,
    /// The running peers, to look at their replicas in the end.
    nodes: Rc<RefCell<BTreeMap<String, Weak<Node>>>>,
}

/// Runs the scenario.
pub fn grid(seed: u64) -> Vec<Violation> {
    run(seed, Kind::General)
}

/// The same on disks that acknowledge syncs without doing them: the checks must notice.
pub fn grid_on_lying_disks(seed: u64) -> Vec<Violation> {
    run(seed, Kind::LyingDisks)
}

/// The same with proposals that are lost, or late, on their way from an executor to Raft.
pub fn late_proposals(seed: u64) -> Vec<Violation> {
    run(seed, Kind::LateProposals)
}

/// The same with local reads everywhere, and replicas that get snapshots all the time.
pub fn local_reads(seed: u64) -> Vec<Violation> {
    run(seed, Kind::LocalReads)
}

/// Peers that join and go while nothing breaks: copies are counted all the time.
pub fn moves(seed: u64) -> Vec<Violation> {
    run(seed, Kind::Moves)
}

fn run(seed: u64, kind: Kind) -> Vec<Violation> {
    let shape = kind.shape(seed);
    crate::event!("grid", "{shape:?}");
    let mut simulation = Simulation::new(seed, AT_MOST);
    let (records, leaders) = (Records { kind, ..Records::default() }, LeaderLog::default());
    let seeds: Vec<String> = shape.names().iter().map(|name| shape::address(&simulation, name)).collect();
    for name in shape.names() {
        let (shape, leaders, records, seeds) = (shape.clone(), leaders.clone(), records.clone(), seeds.clone());
        let run = move |life| peer::run(life, shape.clone(), seeds.clone(), leaders.clone(), records.clone());
        simulation.machine(&name, run).disk().set_lying(kind == Kind::LyingDisks);
    }
    let partitions = shape.partitions;
    *records.working.borrow_mut() = shape.clients;
    for number in 0..shape.clients {
        let (records, seeds) = (records.clone(), seeds.clone());
        simulation
            .client(&format!("c{number}"), move |life| clients::work(life, seed, number, seeds, partitions, records));
    }
    let (follower, endpoints) = (records.clone(), seeds.clone());
    simulation.client("w0", move |life| watchers::follow(life, seed, endpoints, follower));
    let (follower, endpoints) = (records.clone(), seeds.clone());
    simulation.client("w1", move |life| watchers::copy(life, seed, endpoints, follower));
    let (expiring, endpoints) = (records.clone(), seeds.clone());
    simulation.client("e0", move |life| expiring::expire(life, seed, endpoints, expiring));
    if let (Some(name), Some((_, at))) = (shape.removed(), shape.removal) {
        let endpoints = seeds.clone();
        simulation.client("operator", move |life| movement::remove(life, endpoints, name, at));
    }
    let (judge, endpoints) = (records.clone(), seeds);
    let judged = shape.clone();
    simulation.client("judge", move |life| clients::read_all(life, endpoints, judged, judge));
    let profile = Profile {
        nodes: shape.peers,
        calm_until: CALM_UNTIL,
        quiet_from: QUIET_FROM,
        pause_max: Duration::from_millis(1800),
        fault_max: Duration::from_secs(3),
    };
    if kind == Kind::Moves {
        let (shape, records) = (shape.clone(), records.clone());
        simulation.client("copies", move |_| copies::count(shape, records));
    }
    let plan = kind.plan(Plan::draw(&mut Dice::new(seed, "nemesis"), &profile));
    let ended = simulation.run(plan);
    judge_run(ended, &records, &leaders)
}

fn judge_run(ended: Result<Duration, String>, records: &Records, leaders: &LeaderLog) -> Vec<Violation> {
    let finished = ended.is_ok();
    let mut violations: Vec<Violation> =
        ended.err().map(|what| Violation { check: "all finish", what }).into_iter().collect();
    let operations = records.history.operations();
    let answered = operations.iter().filter(|operation| operation.answer().is_some()).count();
    crate::event!("grid", "{answered} of {} operations answered", operations.len());
    violations.extend(checks::linearizable(&operations));
    violations.extend(checks::levels(&operations));
    violations.extend(leaders.violations());
    violations.extend(checks::local_reads(&records.local.borrow()));
    violations.append(&mut records.violations.borrow_mut());
    if finished {
        let finals = records.finals.borrow();
        violations.extend(checks::kept(&operations, &finals));
        violations.extend(checks::once_in_counters(&operations, &finals));
        violations.extend(records.marks.borrow().check());
        let watched = records.watched.borrow();
        let keys: Vec<&str> = workload::keys().collect();
        violations.extend(watched.iter().flat_map(|watched| checks::watched(watched, &operations, &keys)));
        if answered < 50 || leaders.leaderships() < 2 {
            violations.push(Violation { check: "scenario", what: "hardly anything happened".to_owned() });
        }
    }
    violations
}
