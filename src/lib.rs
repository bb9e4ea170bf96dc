//! Keystead: an embedded data-grid node.
//!
//! Every process is an equal peer that owns part of a consistent-hash ring of Raft-replicated
//! partitions; tasks run on the peer that leads their key's partition, so the state they read is
//! always local. `docs/ARCHITECTURE.md` names every module and the direction of dependencies: a
//! module uses only what stands below it there.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod compute;
pub mod config;
pub mod error;
#[cfg(test)]
mod fuzzing;
pub mod grid;
pub mod membership;
pub mod meta;
pub mod net;
pub mod node;
pub mod partition;
pub mod raft;
pub mod ring;
pub mod storage;
pub mod types;

pub use grid::{Grid, GridBuilder};
