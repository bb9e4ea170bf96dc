//! The verdict on a run: pure functions from what was recorded to what is wrong with it.
//!
//! In: operations ([`crate::history`]), final values, leaders seen. Out: violations, each with
//! the check's name and the facts that contradict each other. A check never guesses: what is not
//! proven wrong passes.

mod kept;
mod leaders;
mod linearizable;
mod local;
mod once;
mod register;
mod watch;

#[cfg(test)]
mod tests;

pub use kept::{Finals, kept, levels};
pub use leaders::LeaderLog;
pub use linearizable::linearizable;
pub use local::{LocalRead, local_reads};
pub use once::{once_each, once_in_counters};
pub use watch::{Seen, Watched, watched};

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
