//! Whole peers and real clients under faults: the promises of a grid, checked.
//!
//! In: a seed. Out: violations of: no acknowledged write lost, linearizability per key, each
//! request once, broadcasts once per partition, scatters that miss nothing, one leader per term, the
//! level of each acknowledgement, watches without gap or repeat, entries hidden at their time, neither
//! before nor after, that all finish once everything is mended, and that every partition then has its
//! replicas where they should be, each with the same rows.

mod apart;
mod big;
mod cancels;
mod clients;
mod copies;
mod expiring;
mod further;
mod harsher;
mod jobs;
mod local;
mod movement;
mod peer;
mod pipelined;
mod scarce;
mod shape;
mod transfers;
mod walks;
mod watchers;
mod workload;

use crate::checks::{self, Finals, LeaderLog, LocalRead, Milestone, Violation, Watched, Witnessed};
use crate::dice::Dice;
use crate::history::{History, Outcome};
use crate::nemesis::{Fault, Insight, Kinds, Plan, Planned, Profile};
use crate::simulation::Simulation;
use crate::{tally, trace};
use harsher::Kind;
use keystead::node::Node;
use shape::Shape;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Weak;
use std::time::Duration;

/// When everything is mended.
const QUIET_FROM: Duration = Duration::from_secs(14);
/// When everything must be over.
const AT_MOST: Duration = Duration::from_secs(70);
/// A clock may differ from the others by so much, and no peer says anything.
const FAR_MS: u64 = 5000;
/// A grid that is left alone for so long at its start is founded.
const FOUNDED_IN_MS: u64 = 1000;
/// How long it may take after the mending until everything is read.
const READS_WITHIN: Duration = Duration::from_secs(20);

/// What the clients of a run recorded together. They all run on the simulation's thread.
#[derive(Clone, Default)]
struct Records {
    kind: Kind,
    /// A clock jumps so far that its peer's writes are rightly refused.
    far_jump: bool,
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
    /// Every replica is in its place, or never will be.
    settled: Rc<RefCell<bool>>,
    /// What came about in the end.
    milestones: Rc<RefCell<Vec<Milestone>>>,
    /// Peers whose removal somebody has asked for.
    asked: Rc<RefCell<BTreeSet<String>>>,
    /// Peers whose removal, or draining, was granted.
    granted: Rc<RefCell<BTreeSet<String>>>,
    /// Hosts whose disks were lost.
    lost: Rc<RefCell<BTreeSet<String>>>,
    leaders: LeaderLog,
    witnessed: Witnessed,
    /// The running peers, to look at their replicas in the end.
    nodes: Rc<RefCell<BTreeMap<String, Weak<Node>>>>,
    /// The life that each peer is in.
    lives: Rc<RefCell<BTreeMap<String, u64>>>,
}

impl Records {
    /// Something has come about that must, within such a time after the mending.
    fn reached(&self, what: &'static str, within: Duration) {
        self.milestones.borrow_mut().push(Milestone { what, within, reached: Some(trace::now()) });
    }
}

/// What the nemesis learns of the grid.
struct Hunter {
    records: Records,
    /// Peers that are removed or drained lose no disk: who comes back under such a name stays.
    spared: Vec<String>,
}

impl Insight for Hunter {
    fn leader(&self, number: u64) -> Option<String> {
        self.records.leaders.leader(number)
    }

    fn may_lose_disk(&self, host: &str) -> bool {
        !self.spared.iter().any(|spared| spared == host) && self.records.witnessed.may_lose(host)
    }

    fn lost_disk(&self, host: &str, wholly: bool) {
        if wholly {
            self.records.witnessed.disk_lost(host);
            self.records.lost.borrow_mut().insert(host.to_owned());
        }
    }
}

/// Runs the scenario.
pub fn grid(seed: u64) -> Vec<Violation> {
    run(seed, Kind::General)
}

/// The same with all kinds of faults, and harder on each promise.
pub fn harsh(seed: u64) -> Vec<Violation> {
    run(seed, Kind::Harsh)
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

/// One fault that strikes some of the partitions: the others notice nothing.
pub fn apart(seed: u64) -> Vec<Violation> {
    apart::run(seed)
}

/// Peers that join and go while nothing breaks: copies are counted all the time.
pub fn moves(seed: u64) -> Vec<Violation> {
    run(seed, Kind::Moves)
}

fn run(seed: u64, kind: Kind) -> Vec<Violation> {
    let shape = kind.shape(seed);
    crate::event!("grid", "{shape:?}");
    let mut simulation = Simulation::new(seed, AT_MOST);
    let plan = draw_plan(seed, kind, &shape);
    let far = |planned: &Planned| matches!(planned.fault, Fault::Jump(_, ms) if ms.unsigned_abs() > FAR_MS);
    let records = Records {
        kind,
        far_jump: plan.faults.iter().any(far),
        witnessed: Witnessed::new(shape::COPIES),
        ..Records::default()
    };
    let addresses: Vec<String> = shape.names().iter().map(|name| shape::address(&simulation, name)).collect();
    for name in shape.names() {
        let (shape, records, addresses) = (shape.clone(), records.clone(), addresses.clone());
        let run = move |life| peer::run(life, shape.clone(), addresses.clone(), records.clone());
        simulation.machine(&name, run).disk().set_lying(kind == Kind::LyingDisks);
    }
    add_clients(&mut simulation, seed, &shape, &addresses, &records);
    let hunter = Hunter { records: records.clone(), spared: shape.leaving() };
    let ended = simulation.run_with(plan, Rc::new(hunter));
    judge_run(ended, &records, &shape)
}

fn draw_plan(seed: u64, kind: Kind, shape: &Shape) -> Plan {
    let mut dice = Dice::new(seed, "kinds");
    let profile = Profile {
        nodes: shape.peers,
        calm_until: Duration::from_millis(shape.calm_ms),
        quiet_from: QUIET_FROM,
        pause_max: Duration::from_millis(1800),
        fault_max: Duration::from_secs(3),
        kinds: if kind == Kind::Harsh { Kinds::swarm(&mut dice) } else { Kinds::plain() },
    };
    crate::event!("grid", "{:?}", profile.kinds);
    kind.plan(Plan::draw(&mut Dice::new(seed, "nemesis"), &profile))
}

fn add_clients(simulation: &mut Simulation, seed: u64, shape: &Shape, addresses: &[String], records: &Records) {
    let given = || (addresses.to_vec(), records.clone());
    *records.working.borrow_mut() = shape.clients;
    further::start(simulation, seed, shape, addresses, records);
    for number in 0..shape.clients {
        let ((seeds, records), shape) = (given(), shape.clone());
        simulation.client(&format!("c{number}"), move |life| clients::work(life, seed, number, seeds, shape, records));
    }
    let slow_ms = shape.slow_ms;
    let (seeds, records) = given();
    simulation.client("w0", move |life| watchers::follow(life, seed, seeds, slow_ms, records));
    let (seeds, records) = given();
    simulation.client("w1", move |life| watchers::copy(life, seed, seeds, slow_ms, records));
    let (seeds, records) = given();
    simulation.client("e0", move |life| expiring::expire(life, seed, seeds, records));
    if shape.big {
        let ((seeds, records), limit) = (given(), shape.value_bytes);
        simulation.client("g0", move |life| big::write(life, seed, seeds, limit, records));
    }
    for at in 0..shape.removals.len() {
        let ((seeds, records), shape) = (given(), shape.clone());
        simulation.client(&format!("operator{at}"), move |life| movement::remove(life, seeds, at, shape, records));
    }
    let (seeds, records) = given();
    simulation.client("caretaker", move |life| movement::remove_lost(life, seeds, records));
    let ((seeds, records), shape) = (given(), shape.clone());
    simulation.client("judge", move |life| clients::read_all(life, seeds, shape, records));
}

fn judge_run(ended: Result<Duration, String>, records: &Records, shape: &Shape) -> Vec<Violation> {
    let finished = ended.is_ok();
    let mut violations: Vec<Violation> =
        ended.err().map(|what| Violation { check: "all finish", what }).into_iter().collect();
    let operations = records.history.operations();
    let answered = operations.iter().filter(|operation| operation.answer().is_some()).count();
    crate::event!("grid", "{answered} of {} operations answered", operations.len());
    let unknown = operations.iter().filter(|operation| operation.outcome == Outcome::Unknown).count();
    tally::operations("answered", answered);
    tally::operations("of unknown outcome", unknown);
    tally::operations("refused", operations.len() - answered - unknown);
    violations.extend(checks::linearizable(&operations));
    violations.extend(checks::levels(&operations));
    violations.extend(records.leaders.violations());
    violations.extend(records.witnessed.violations());
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
        let milestones = records.milestones.borrow();
        violations.extend(checks::converged(QUIET_FROM, &milestones));
        for milestone in milestones.iter() {
            tally::longest(milestone.what, milestone.took(QUIET_FROM).unwrap_or(AT_MOST));
        }
        let meanwhile = operations.iter().filter(|operation| operation.at < QUIET_FROM && operation.answer().is_some());
        let meanwhile = meanwhile.count();
        tally::operations("answered before the mending", meanwhile);
        // Swarms of faults may leave a small grid without a majority for most of the time, and keep one that
        // they strike at once from being founded before the mending.
        let few = match records.kind {
            Kind::Harsh if shape.calm_ms < FOUNDED_IN_MS => 0,
            Kind::Harsh => 5,
            _ => 30,
        };
        if meanwhile < few || records.leaders.leaderships() < 2 {
            violations.push(Violation { check: "scenario", what: "hardly anything happened".to_owned() });
        }
        violations.extend(records.kind.too_little(records));
    }
    violations
}
