//! User code on a grid of three peers: in the partitions' turns, on all partitions, beside them,
//! and what becomes of it when a peer is lost or somebody cancels.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod grid;
mod jobs;
mod processes;
mod scatters;
mod turns;
mod versions;
