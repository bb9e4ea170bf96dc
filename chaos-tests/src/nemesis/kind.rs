//! The kinds of faults, and which of them a run has: a run with few kinds goes further into what
//! those do together than one with all (swarm testing, Groce and others, ISSTA 2012). Pure.

use crate::dice::Dice;

/// A kind of fault. The numbers beside the names are weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node dies and starts again.
    Crash,
    /// All nodes die at once.
    CrashAll,
    /// Some nodes are cut off from the others.
    Partition,
    /// One direction between two nodes is cut.
    OneWay,
    /// A leader's streams stand still while its gossip lives.
    LeaderCut,
    /// A link comes and goes.
    Flap,
    /// Nodes are cut off one after the other, and come back in another order.
    Swizzle,
    /// Messages take long, and overtake each other.
    Delay,
    /// Gossip is lost.
    Loss,
    /// A node stands still for a while.
    Pause,
    /// A node stands still for longer than any lease.
    LongPause,
    /// A wall clock jumps.
    Jump,
    /// A wall clock runs too fast or too slow.
    Drift,
    /// A disk is full, and then has room again.
    DiskFull,
    /// A disk is slow.
    SlowDisk,
    /// A write fails.
    WriteError,
    /// A sync fails.
    SyncError,
    /// A byte of the log or of a snapshot is damaged while the node is down.
    Rot,
    /// A node comes back with an empty disk.
    DiskLost,
}

/// Every kind with its weight.
const WEIGHTS: [(Kind, u64); 19] = [
    (Kind::Crash, 24),
    (Kind::CrashAll, 4),
    (Kind::Partition, 16),
    (Kind::OneWay, 8),
    (Kind::LeaderCut, 10),
    (Kind::Flap, 5),
    (Kind::Swizzle, 4),
    (Kind::Delay, 6),
    (Kind::Loss, 6),
    (Kind::Pause, 8),
    (Kind::LongPause, 5),
    (Kind::Jump, 5),
    (Kind::Drift, 4),
    (Kind::DiskFull, 6),
    (Kind::SlowDisk, 6),
    (Kind::WriteError, 4),
    (Kind::SyncError, 5),
    (Kind::Rot, 8),
    (Kind::DiskLost, 8),
];

/// What a machine of any software can suffer: no disk is damaged, fails or fills up.
const PLAIN: [Kind; 10] = [
    Kind::Crash,
    Kind::CrashAll,
    Kind::Partition,
    Kind::OneWay,
    Kind::Flap,
    Kind::Delay,
    Kind::Loss,
    Kind::Pause,
    Kind::LongPause,
    Kind::Jump,
];

/// The kinds that a run has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(Vec<(Kind, u64)>);

impl Kinds {
    /// Those that need nothing of what runs on the machines.
    pub fn plain() -> Self {
        Kinds(WEIGHTS.into_iter().filter(|(kind, _)| PLAIN.contains(kind)).collect())
    }

    /// All.
    pub fn all() -> Self {
        Kinds(WEIGHTS.to_vec())
    }

    /// Some of all, as the dice say: in one of four runs all.
    pub fn swarm(dice: &mut Dice) -> Self {
        if dice.per_mille(250) {
            return Kinds::all();
        }
        let share = dice.between(200, 700) as u32;
        let mut some: Vec<(Kind, u64)> = WEIGHTS.into_iter().filter(|_| dice.per_mille(share)).collect();
        if some.is_empty() {
            some.push(*dice.pick(&WEIGHTS));
        }
        Kinds(some)
    }

    /// Without these.
    pub fn without(mut self, kinds: &[Kind]) -> Self {
        self.0.retain(|(kind, _)| !kinds.contains(kind));
        if self.0.is_empty() { Kinds::plain() } else { self }
    }

    /// One of them.
    pub fn draw(&self, dice: &mut Dice) -> Kind {
        let mut drawn = dice.below(self.0.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in &self.0 {
            match drawn.checked_sub(*weight) {
                None => return *kind,
                Some(rest) => drawn = rest,
            }
        }
        Kind::Crash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn swarms_differ_and_every_kind_occurs() {
        let swarms: BTreeSet<String> =
            (0..50).map(|seed| format!("{:?}", Kinds::swarm(&mut Dice::new(seed, "kinds")))).collect();
        assert!(swarms.len() > 20, "{}", swarms.len());
        let mut dice = Dice::new(1, "kinds");
        let drawn: BTreeSet<Kind> = (0..5000).map(|_| Kinds::all().draw(&mut dice)).collect();
        assert_eq!(drawn.len(), WEIGHTS.len());
        let plain: BTreeSet<Kind> = (0..5000).map(|_| Kinds::plain().draw(&mut dice)).collect();
        assert_eq!(plain.len(), PLAIN.len());
    }

    #[test]
    fn what_is_left_out_is_never_drawn() {
        let mut dice = Dice::new(1, "kinds");
        let kinds = Kinds::all().without(&[Kind::Rot, Kind::DiskLost]);
        assert!((0..5000).map(|_| kinds.draw(&mut dice)).all(|kind| kind != Kind::Rot && kind != Kind::DiskLost));
    }
}
