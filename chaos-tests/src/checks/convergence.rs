//! Convergence: once everything is mended, all that must come about does so in bounded time.
//!
//! Source: TigerBeetle's VOPR, which follows its safety phase by a liveness phase in which a healthy
//! core must converge (`docs/internals/vopr.md`); Dwork, Lynch and Stockmeyer, "Consensus in the
//! Presence of Partial Synchrony" (JACM 1988): bounds hold after the network has become good.

use super::Violation;
use std::time::Duration;

/// Something that must come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// What.
    pub what: &'static str,
    /// It must be so far behind the mending at most.
    pub within: Duration,
    /// When it came about; `None`: never.
    pub reached: Option<Duration>,
}

impl Milestone {
    /// How long it took from the mending on; `None`: it never came about.
    pub fn took(&self, mended: Duration) -> Option<Duration> {
        self.reached.map(|reached| reached.saturating_sub(mended))
    }
}

/// Checks what came about after everything was mended.
pub fn converged(mended: Duration, milestones: &[Milestone]) -> Vec<Violation> {
    let late = milestones.iter().filter(|milestone| milestone.took(mended).is_none_or(|took| took > milestone.within));
    let violation = |milestone: &Milestone| {
        let Milestone { what, within, reached } = milestone;
        let what = format!("{what}: at {reached:?}, must be within {within:?} after the mending at {mended:?}");
        Violation { check: "convergence", what }
    };
    late.map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(reached: Option<u64>) -> Vec<Violation> {
        let seconds = Duration::from_secs;
        converged(seconds(14), &[Milestone { what: "all read", within: seconds(6), reached: reached.map(seconds) }])
    }

    #[test]
    fn in_time_passes_late_and_never_are_found() {
        assert_eq!(at(Some(20)), []);
        assert_eq!(at(Some(9)), [], "before the mending");
        assert_eq!(at(Some(21)).len(), 1);
        assert_eq!(at(None).len(), 1);
    }
}
