//! Grids that are harder on one promise than the general one: for what that meets too seldom.

use super::Records;
use super::shape::Shape;
use crate::checks::Violation;
use crate::dice::Dice;
use crate::nemesis::{Fault, Plan};
use std::time::Duration;

/// What kind of run it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bit of everything, with the plain faults.
    #[default]
    General,
    /// All kinds of faults in swarms, founding under faults, hot keys, large values, two that go.
    Harsh,
    /// Disks acknowledge syncs without doing them.
    LyingDisks,
    /// Some proposals are lost or late between an executor and Raft, with many on their way. Needs the
    /// feature `faults`.
    LateProposals,
    /// Replicas get snapshots all the time, and are read while they pass their ends.
    LocalReads,
    /// Five peers of which nobody goes: one fault strikes some partitions and not the others.
    Apart,
    /// Peers join and go; messages are slow, and nothing else breaks.
    Moves,
}

/// One of so many proposals is lost.
#[cfg(feature = "faults")]
const LOSE_EVERY: u64 = 20;

/// The fewest in a run of its kind.
const LOCAL_READS: u64 = 1000;
const NEWCOMERS: u64 = 1;
#[cfg(feature = "faults")]
const LOST: u64 = 5;

impl Kind {
    /// The grid for this seed.
    pub(super) fn shape(self, seed: u64) -> Shape {
        let mut shape = Shape::draw(seed);
        let mut dice = Dice::new(seed, "harsher");
        match self {
            Kind::General | Kind::LyingDisks => shape.make_plain(),
            Kind::Harsh => {}
            Kind::LateProposals => {
                #[cfg(feature = "faults")]
                keystead::planted::lose_proposals(LOSE_EVERY);
                (shape.partitions, shape.clients) = (1, 6);
            }
            Kind::LocalReads => {
                (shape.peers, shape.founders, shape.starts_ms) = (3, 3, vec![0; 3]);
                (shape.partitions, shape.removals) = (dice.between(1, 2) as u32, Vec::new());
                (shape.checkpoint_bytes, shape.max_lag_entries) = (2 << 10, 5);
            }
            Kind::Apart => {
                (shape.peers, shape.founders, shape.starts_ms) = (5, 3, vec![0; 5]);
                (shape.partitions, shape.removals, shape.plain) = (dice.between(6, 8) as u32, Vec::new(), None);
                // Nobody takes the place of who is away: what moves, moves its leader, too.
                shape.replace_after_ms = 60_000;
            }
            Kind::Moves => {
                let joins = dice.between(1, 2) as usize;
                (shape.peers, shape.founders) = (3 + joins, 3);
                shape.starts_ms =
                    (0..shape.peers).map(|at| if at < 3 { 0 } else { dice.between(5000, 8000) }).collect();
                shape.removals = vec![(dice.index(3), dice.between(5000, 10_000))];
                shape.checkpoint_bytes = 2 << 10;
                // Few and long logs: a newcomer has much to catch up with.
                (shape.partitions, shape.clients) = (dice.between(1, 2) as u32, 4);
            }
        }
        shape
    }

    /// What this kind of run is made for has hardly happened.
    pub(super) fn too_little(self, records: &Records) -> Option<Violation> {
        let (what, happened, fewest) = match self {
            Kind::LocalReads => ("local reads", records.local.borrow().len() as u64, LOCAL_READS),
            Kind::Moves => ("replicas that became voters after others", records.witnessed.newcomers(), NEWCOMERS),
            #[cfg(feature = "faults")]
            Kind::LateProposals => ("proposals lost", keystead::planted::proposals_lost(), LOST),
            _ => return None,
        };
        let says = || format!("{what}: {happened}, and {fewest} were to be seen at least");
        (happened < fewest).then(|| Violation { check: "scenario", what: says() })
    }

    /// The faults, given those of a general run.
    pub(super) fn plan(self, mut plan: Plan) -> Plan {
        if self == Kind::Moves {
            // Nothing that could keep a group from electing: then no copy lags for long.
            for planned in &mut plan.faults {
                planned.fault = Fault::Delay(Duration::from_millis(60));
            }
        }
        plan
    }
}
