//! What is simulated: the scenarios that the binary and the tests run.

mod gossip;

pub use gossip::gossip;
