//! A node's configuration: one struct, filled from the command line, `KEYSTEAD_*` variables, a TOML
//! file and defaults, in this order of precedence, and checked as a whole.
//!
//! In: option texts from the four sources. Out: a [`NodeConfig`] that is usable, or an error that
//! names the option. Never reads the environment by itself (the caller passes a look-up), never
//! opens a port or a data directory.

mod address;
#[cfg(test)]
mod fuzz;
mod limits;
mod nearest;
mod node;
mod sources;
mod units;

pub use address::{is_loopback, port_of};
pub use limits::Limits;
pub use node::{Backend, NodeConfig};
pub use sources::Options;
pub use units::{parse_duration, parse_size};

#[cfg(test)]
mod tests;
