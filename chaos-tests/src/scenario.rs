//! What is simulated: the scenarios that the binary and the tests run.

mod findings;
mod gossip;
mod grid;
mod log;

pub use findings::{Finding, NOT_BUILT, findings};
pub use gossip::gossip;
pub use grid::{apart, grid, grid_on_lying_disks, harsh, late_proposals, local_reads, moves};
pub use log::{log, rotten_log};
