//! Real peers that die at each step of their work. In: which points. Out: a table, and what was found.
//!
//! Four processes on loopback serve a grid while clients write to it. For each failpoint of
//! `keystead::failpoint` one peer is armed, brought to that step and dies there; it is started again;
//! then everything that was acknowledged must be there, each increment once, and all replicas of a
//! partition must have the same rows. A second pass arms all peers at once. At last the disk is full
//! ([`full`]). The grid lives through the whole suite, so that each round begins with what the ones
//! before have left. A point that nobody comes to is a finding.
//!
//! It never injects anything by itself: what happens between the peers is theirs. Time and processes are
//! the machine's, so a round is not repeated exactly by its name.

mod control;
mod full;
mod grid;
mod load;
mod patience;
mod peer;
mod points;
mod process;
mod provoke;
mod rounds;
mod table;

pub use peer::{PeerArgs, run as run_peer};
pub use rounds::{Options, run};
pub use table::{Row, Table};
