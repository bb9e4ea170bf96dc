//! Which faults, when. Pure: dice in, plan out.

use super::Death;
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
    /// Messages between all hosts take up to so long.
    Delay(Duration),
    /// So many of 1000 gossip datagrams are lost.
    Loss(u32),
    /// A node stands still; its monotonic clock too, if so told.
    Pause(usize, bool),
    /// A node's wall clock is off by so many milliseconds.
    Skew(usize, i64),
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

impl Plan {
    /// Draws a plan. Faults may overlap: safety must hold even if no majority is left.
    pub fn draw(dice: &mut Dice, profile: &Profile) -> Plan {
        let mut faults = Vec::new();
        let mut now = profile.calm_until;
        loop {
            now += between(dice, Duration::from_millis(20), profile.pause_max);
            if now >= profile.quiet_from {
                return Plan { faults, quiet_from: profile.quiet_from };
            }
            let lasts = between(dice, Duration::from_millis(50), profile.fault_max);
            let until = (now + lasts).min(profile.quiet_from);
            faults.push(Planned { from: now, until, fault: draw_fault(dice, profile.nodes) });
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

fn draw_fault(dice: &mut Dice, nodes: usize) -> Fault {
    let node = dice.index(nodes);
    let other = (node + 1 + dice.index(nodes.saturating_sub(1).max(1))) % nodes;
    match dice.below(100) {
        0..30 => Fault::Crash(node, draw_death(dice)),
        30..35 => Fault::CrashAll(draw_death(dice)),
        35..55 => draw_partition(dice, nodes, node),
        55..65 if other != node => Fault::OneWay(node, other),
        55..72 => Fault::Delay(Duration::from_millis(dice.between(10, 400))),
        72..80 => Fault::Loss(dice.between(50, 900) as u32),
        80..92 => Fault::Pause(node, dice.per_mille(500)),
        _ => Fault::Skew(node, dice.between(0, 4000) as i64 - 2000),
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
        }
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
            for planned in Plan::draw(&mut Dice::new(seed, "nemesis"), &profile()).faults {
                assert!(planned.from > Duration::from_secs(2) && planned.from < planned.until);
                assert!(planned.until <= Duration::from_secs(12));
                kinds.insert(format!("{:?}", planned.fault).split(['(', ' ']).next().map(str::to_owned));
                match planned.fault {
                    Fault::Crash(node, _) | Fault::Pause(node, _) | Fault::Skew(node, _) => assert!(node < 3),
                    Fault::OneWay(from, to) => assert!(from != to && from < 3 && to < 3),
                    Fault::Partition { side, .. } => assert!(!side.is_empty() && side.len() < 3),
                    Fault::CrashAll(_) | Fault::Delay(_) | Fault::Loss(_) => {}
                }
            }
        }
        assert_eq!(kinds.len(), 8, "every kind of fault is drawn: {kinds:?}");
    }

    #[test]
    fn a_grid_of_one_is_spared_what_takes_two() {
        let mut profile = profile();
        profile.nodes = 1;
        for seed in 0..100 {
            let plan = Plan::draw(&mut Dice::new(seed, "nemesis"), &profile);
            assert!(!plan.faults.iter().any(|planned| matches!(planned.fault, Fault::OneWay(..))));
        }
    }
}
