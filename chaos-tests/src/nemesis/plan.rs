//! Which faults, when. Pure: dice in, plan out.

use super::kind::{Kind, Kinds};
use super::{Death, Spot};
use crate::dice::Dice;
use std::time::Duration;

/// What the run allows.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Nodes, numbered from 0.
    pub nodes: usize,
    /// Nothing breaks before: the nodes have to find each other first.
    pub calm_until: Duration,
    /// Everything is mended from here on.
    pub quiet_from: Duration,
    /// Faults begin at most so far apart.
    pub pause_max: Duration,
    /// A fault lasts at most so long.
    pub fault_max: Duration,
    /// What may happen.
    pub kinds: Kinds,
}

/// One fault. Nodes are named by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node dies and starts again when the fault ends.
    Crash(usize, Death),
    /// All nodes die at once.
    CrashAll(Death),
    /// These nodes cannot reach the others nor be reached; perhaps not even by clients.
    Partition {
        /// One side.
        side: Vec<usize>,
        /// Whether clients are on the other side.
        clients: bool,
    },
    /// One node's messages to another are lost; the other way works.
    OneWay(usize, usize),
    /// Streams between the leader of one of the groups, as the number says, and the other nodes
    /// stand still; clients reach it, and its gossip lives.
    LeaderCut(u64),
    /// Nothing passes between two nodes.
    Flap(usize, usize),
    /// A node is cut off from the other nodes.
    Clog(usize),
    /// Messages between all hosts take up to so long.
    Delay(Duration),
    /// So many of 1000 gossip datagrams are lost.
    Loss(u32),
    /// A node stands still; its monotonic clock too, if so told.
    Pause(usize, bool),
    /// The same for longer than any lease.
    LongPause(usize, bool),
    /// A node's wall clock is off by so many milliseconds.
    Jump(usize, i64),
    /// A node's wall clock gains so many milliseconds per second.
    Drift(usize, i64),
    /// Only so many bytes more fit on a node's disk.
    DiskFull(usize, u64),
    /// Each write of a node's log takes so much longer.
    SlowDisk(usize, Duration),
    /// The n-th write of a node from now fails. The process ends, and is started when the fault ends.
    WriteError(usize, u64),
    /// The n-th sync of a node from now fails, likewise.
    SyncError(usize, u64),
    /// Nothing reaches a node, so that its log comes to rest.
    Rest(usize),
    /// A node loses power, and a byte of its disk is damaged.
    Rot(usize, Spot),
    /// A node loses power, and comes back with an empty disk.
    DiskLost(usize),
}

impl Fault {
    /// Its kind, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Crash(_, Death::Kill) => "crash: process killed",
            Fault::Crash(..) => "crash: power lost",
            Fault::CrashAll(_) => "crash of all at once",
            Fault::Partition { .. } => "partition",
            Fault::OneWay(..) => "partition: one way",
            Fault::LeaderCut(_) => "partition: leader cut off, gossip lives",
            Fault::Flap(..) => "partition: flapping link",
            Fault::Clog(_) => "partition: swizzle-clogging",
            Fault::Delay(_) => "delay and reorder",
            Fault::Loss(_) => "loss of gossip",
            Fault::Pause(_, false) => "pause",
            Fault::Pause(_, true) => "pause: clock suspended",
            Fault::LongPause(_, false) => "pause: longer than a lease",
            Fault::LongPause(_, true) => "pause: longer than a lease, clock suspended",
            Fault::Jump(..) => "clock: jump",
            Fault::Drift(..) => "clock: drift",
            Fault::DiskFull(..) => "disk: full",
            Fault::SlowDisk(..) => "disk: slow",
            Fault::WriteError(..) => "disk: error on write",
            Fault::SyncError(..) => "disk: error on fsync",
            Fault::Rest(_) => "partition: node left alone",
            Fault::Rot(_, spot) => spot.name(),
            Fault::DiskLost(_) => "disk: lost",
        }
    }

    /// Whether it may keep a node from writing to its disk for a while.
    pub fn disturbs(&self, node: usize) -> bool {
        match self {
            Fault::CrashAll(_) => true,
            Fault::Crash(at, _)
            | Fault::Pause(at, _)
            | Fault::LongPause(at, _)
            | Fault::DiskFull(at, _)
            | Fault::SlowDisk(at, _)
            | Fault::WriteError(at, _)
            | Fault::SyncError(at, _) => *at == node,
            _ => false,
        }
    }
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it begins.
    pub from: Duration,
    /// When it ends.
    pub until: Duration,
    /// What it is.
    pub fault: Fault,
}

/// A run's faults, in the order of their beginnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The faults.
    pub faults: Vec<Planned>,
    /// From here on everything works.
    pub quiet_from: Duration,
}

/// How long a node rests before its disk is damaged: what it has acknowledged is sealed by then, and
/// no damage to it can pass for a torn write.
pub const RESTS: Duration = Duration::from_millis(700);

impl Plan {
    /// Draws a plan. Faults may overlap: safety must hold even if no majority is left. One disk at
    /// most is damaged or lost, and that once: no promise survives more.
    pub fn draw(dice: &mut Dice, profile: &Profile) -> Plan {
        let (mut faults, mut kinds) = (Vec::new(), profile.kinds.clone());
        let mut now = profile.calm_until;
        loop {
            now += between(dice, Duration::from_millis(20), profile.pause_max);
            if now >= profile.quiet_from {
                faults.sort_by_key(|planned: &Planned| planned.from);
                return Plan { faults, quiet_from: profile.quiet_from };
            }
            let kind = kinds.draw(dice);
            if matches!(kind, Kind::Rot | Kind::DiskLost) {
                kinds = kinds.without(&[Kind::Rot, Kind::DiskLost]);
            }
            let lasts = between(dice, Duration::from_millis(50), profile.fault_max);
            for (from, until, fault) in draw_faults(dice, kind, profile.nodes, now, lasts) {
                let until = until.min(profile.quiet_from);
                if from < until {
                    faults.push(Planned { from, until, fault });
                }
            }
        }
    }

    /// A plan without faults.
    pub fn calm(quiet_from: Duration) -> Plan {
        Plan { faults: Vec::new(), quiet_from }
    }
}

fn between(dice: &mut Dice, low: Duration, high: Duration) -> Duration {
    Duration::from_millis(dice.between(low.as_millis() as u64, high.as_millis() as u64))
}

type Timed = (Duration, Duration, Fault);

fn draw_faults(dice: &mut Dice, kind: Kind, nodes: usize, now: Duration, lasts: Duration) -> Vec<Timed> {
    let node = dice.index(nodes);
    let other = (node + 1 + dice.index(nodes.saturating_sub(1).max(1))) % nodes;
    let one = |fault| vec![(now, now + lasts, fault)];
    match kind {
        Kind::OneWay | Kind::Flap | Kind::LeaderCut if other == node => one(Fault::Crash(node, draw_death(dice))),
        Kind::Crash => one(Fault::Crash(node, draw_death(dice))),
        Kind::CrashAll => one(Fault::CrashAll(draw_death(dice))),
        Kind::Partition => one(draw_partition(dice, nodes, node)),
        Kind::OneWay => one(Fault::OneWay(node, other)),
        Kind::LeaderCut => one(Fault::LeaderCut(dice.next_u64())),
        Kind::Flap => draw_flaps(dice, (node, other), now, lasts),
        Kind::Swizzle => draw_swizzle(dice, nodes, now, lasts),
        Kind::Delay => one(Fault::Delay(Duration::from_millis(dice.between(10, 400)))),
        Kind::Loss => one(Fault::Loss(dice.between(50, 900) as u32)),
        Kind::Pause => one(Fault::Pause(node, dice.per_mille(500))),
        Kind::LongPause => {
            let lasts = between(dice, Duration::from_millis(1200), Duration::from_millis(4000));
            vec![(now, now + lasts, Fault::LongPause(node, dice.per_mille(700)))]
        }
        Kind::Jump => {
            let far = if dice.per_mille(150) { 12_000 } else { 2000 };
            one(Fault::Jump(node, dice.between(0, 2 * far) as i64 - far as i64))
        }
        Kind::Drift => one(Fault::Drift(node, dice.between(0, 400) as i64 - 200)),
        Kind::DiskFull => one(Fault::DiskFull(node, dice.below(64 << 10))),
        Kind::SlowDisk => one(Fault::SlowDisk(node, Duration::from_millis(dice.between(5, 250)))),
        Kind::WriteError => one(Fault::WriteError(node, dice.between(1, 40))),
        Kind::SyncError => one(Fault::SyncError(node, dice.between(1, 40))),
        Kind::Rot => {
            let (damaged, until) = (now + RESTS, now + RESTS + lasts);
            vec![(now, until, Fault::Rest(node)), (damaged, until, Fault::Rot(node, Spot::draw(dice)))]
        }
        Kind::DiskLost => one(Fault::DiskLost(node)),
    }
}

fn draw_death(dice: &mut Dice) -> Death {
    match dice.below(4) {
        0 => Death::Kill,
        1 => Death::Power,
        2 => Death::PowerHard,
        _ => Death::PowerAtChange(dice.between(1, 60)),
    }
}

fn draw_partition(dice: &mut Dice, nodes: usize, node: usize) -> Fault {
    // Mostly one node alone; in bigger grids sometimes more.
    let more = (0..nodes).filter(|other| *other != node && dice.per_mille(200));
    let mut side: Vec<usize> = more.collect();
    side.push(node);
    side.sort_unstable();
    side.truncate(nodes.saturating_sub(1).max(1));
    Fault::Partition { side, clients: dice.per_mille(400) }
}

/// A link that is down and up again all the time.
fn draw_flaps(dice: &mut Dice, (a, b): (usize, usize), now: Duration, lasts: Duration) -> Vec<Timed> {
    let (short, end) = (Duration::from_millis(20), now + lasts);
    let mut flaps = Vec::new();
    let mut at = now;
    while at < end {
        let down = between(dice, short, Duration::from_millis(500));
        flaps.push((at, (at + down).min(end), Fault::Flap(a, b)));
        at += down + between(dice, short, Duration::from_millis(500));
    }
    flaps
}

/// Some nodes are cut off one by one and come back one by one, in another order (FoundationDB's
/// swizzle-clogging).
fn draw_swizzle(dice: &mut Dice, nodes: usize, now: Duration, lasts: Duration) -> Vec<Timed> {
    let mut side: Vec<usize> = (0..nodes).filter(|_| dice.per_mille(600)).collect();
    if side.is_empty() {
        side.push(dice.index(nodes));
    }
    let middle = now + lasts / 2;
    let mut clog = |node| {
        let from = now + between(dice, Duration::ZERO, lasts / 2);
        (from, middle + between(dice, Duration::from_millis(1), lasts / 2), Fault::Clog(node))
    };
    side.into_iter().map(&mut clog).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            nodes: 3,
            calm_until: Duration::from_secs(2),
            quiet_from: Duration::from_secs(12),
            pause_max: Duration::from_millis(900),
            fault_max: Duration::from_secs(3),
            kinds: Kinds::all(),
        }
    }

    fn kind(fault: &Fault) -> String {
        format!("{fault:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_seed_always_draws_the_same_plan() {
        let draw = |seed| Plan::draw(&mut Dice::new(seed, "nemesis"), &profile());
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn faults_lie_between_calm_and_quiet_and_name_nodes_that_exist() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let plan = Plan::draw(&mut Dice::new(seed, "nemesis"), &profile());
            assert!(plan.faults.is_sorted_by_key(|planned| planned.from));
            for planned in plan.faults {
                assert!(planned.from > Duration::from_secs(2) && planned.from < planned.until);
                assert!(planned.until <= Duration::from_secs(12));
                kinds.insert(kind(&planned.fault));
                match planned.fault {
                    Fault::CrashAll(_) | Fault::Delay(_) | Fault::Loss(_) | Fault::LeaderCut(_) => {}
                    Fault::OneWay(from, to) | Fault::Flap(from, to) => assert!(from != to && from < 3 && to < 3),
                    Fault::Partition { side, .. } => assert!(!side.is_empty() && side.len() < 3),
                    Fault::Crash(node, _) | Fault::Pause(node, _) | Fault::LongPause(node, _) => assert!(node < 3),
                    Fault::Jump(node, _) | Fault::Drift(node, _) | Fault::DiskFull(node, _) => assert!(node < 3),
                    Fault::SlowDisk(node, _) | Fault::WriteError(node, _) | Fault::SyncError(node, _) => {
                        assert!(node < 3);
                    }
                    Fault::Clog(node) | Fault::Rest(node) | Fault::Rot(node, _) | Fault::DiskLost(node) => {
                        assert!(node < 3);
                    }
                }
            }
        }
        assert_eq!(kinds.len(), 20, "every kind of fault is drawn: {kinds:?}");
    }

    #[test]
    fn one_disk_at_most_is_damaged_or_lost() {
        let mut struck = 0;
        for seed in 0..300 {
            let plan = Plan::draw(&mut Dice::new(seed, "nemesis"), &profile());
            let hits = plan.faults.iter().filter(|at| matches!(at.fault, Fault::Rot(..) | Fault::DiskLost(_))).count();
            assert!(hits <= 1);
            struck += hits;
        }
        assert!(struck > 100, "{struck}");
    }

    #[test]
    fn a_grid_of_one_is_spared_what_takes_two() {
        let mut profile = profile();
        profile.nodes = 1;
        for seed in 0..100 {
            let plan = Plan::draw(&mut Dice::new(seed, "nemesis"), &profile);
            let two = |fault: &Fault| matches!(fault, Fault::OneWay(..) | Fault::Flap(..) | Fault::LeaderCut(_));
            assert!(!plan.faults.iter().any(|planned| two(&planned.fault)));
        }
    }
}
