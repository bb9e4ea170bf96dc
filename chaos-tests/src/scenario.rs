//! What is simulated: the scenarios that the binary and the tests run.

mod gossip;
mod grid;
mod log;

pub use gossip::gossip;
pub use grid::grid;
pub use log::log;
