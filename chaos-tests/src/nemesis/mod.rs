//! Breaks things on a schedule that the seed decides.
//!
//! In: the seed's dice and what the run allows ([`Profile`]). Out: a [`Plan`] of faults, and a
//! [`Nemesis`] that carries it out between the simulation's steps. After [`Plan::quiet_from`]
//! everything is mended and every node runs: then all must finish.

mod apply;
mod plan;

pub use apply::{LATENCY_MAX, Nemesis};
pub use plan::{Fault, Plan, Planned, Profile};

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process is killed; the machine goes on.
    Kill,
    /// Power loss: of what was not synced some may be left.
    Power,
    /// Power loss: nothing that was not synced is left.
    PowerHard,
    /// Power loss in the middle of a change of the disk, so many changes from now.
    PowerAtChange(u64),
}
