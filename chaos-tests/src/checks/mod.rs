//! The verdict on a run: from what was recorded to what is wrong with it, a file per invariant that
//! says where the invariant comes from.
//!
//! In: operations ([`crate::history`]), final values, leaders seen, what replicas did to their logs and
//! votes. Out: violations, each with
//! the check's name and the facts that contradict each other. A check never guesses: what is not
//! proven wrong passes.

mod convergence;
mod copies;
mod gaps;
mod kept;
mod leaders;
mod linearizable;
mod local;
mod log_matching;
mod oaths;
mod once;
mod register;
mod replicas;
mod session;
mod watch;
mod witnessed;

#[cfg(test)]
mod tests;

pub use convergence::{Milestone, converged};
pub use copies::Copies;
pub use gaps::{Bounds, Left, Served, Times, gaps};
pub use kept::{Finals, kept, levels};
pub use leaders::LeaderLog;
pub use linearizable::linearizable;
pub use local::{LocalRead, local_reads};
pub use log_matching::LogMatching;
pub use oaths::Oaths;
pub use once::{once_each, once_in_counters};
pub use replicas::{Copied, equal};
pub use session::{Rising, in_session_order};
pub use watch::{Seen, Watched, watched};
pub use witnessed::Witnessed;

use std::fmt;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    /// What contradicts what.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}
