//! What is simulated: the scenarios that the binary and the tests run.

mod gossip;
mod log;

pub use gossip::gossip;
pub use log::log;
