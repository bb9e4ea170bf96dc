//! Breaks things on a schedule that the seed decides.
//!
//! In: the seed's dice and what the run allows ([`Profile`]); what it must know of the run
//! ([`Insight`]). Out: a [`Plan`] of faults, and a [`Nemesis`] that carries it out between the
//! simulation's steps. After [`Plan::quiet_from`] everything is mended and every node runs: then all
//! must finish.

mod apply;
mod damage;
mod kind;
mod links;
mod plan;

pub use apply::{LATENCY_MAX, Nemesis};
pub use damage::Spot;
pub use kind::{Kind, Kinds};
pub use plan::{Fault, Plan, Planned, Profile, RESTS};

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

/// What a nemesis must know of what runs on the machines, to strike where it hurts and not where no
/// promise holds.
pub trait Insight {
    /// The host that leads one of the groups, as the number says; `None` when nobody is known to.
    fn leader(&self, number: u64) -> Option<String>;

    /// Whether this host may lose its disk: enough copies of everything on it are elsewhere.
    fn may_lose_disk(&self, host: &str) -> bool;

    /// This host's disk was lost or damaged.
    fn lost_disk(&self, host: &str, wholly: bool);
}

/// Knows nothing: no leader is hunted, and no disk is lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blind;

impl Insight for Blind {
    fn leader(&self, _: u64) -> Option<String> {
        None
    }

    fn may_lose_disk(&self, _: &str) -> bool {
        false
    }

    fn lost_disk(&self, _: &str, _: bool) {}
}
