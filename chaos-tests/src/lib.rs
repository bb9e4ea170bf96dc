//! Whole Keystead nodes in a simulated world: one seed decides the network, the time, the disks,
//! the faults and the clients.
//!
//! In: a seed. Out: a verdict and a trace that the same seed always gives again. The parts:
//! [`dice`], [`hook`] and [`ports`] take decisions, randomness, clocks and threads from the seed;
//! [`disk`], [`backend`] and [`network`] stand in for the machine's, put together in a
//! [`machine`]; [`nemesis`] breaks things on a schedule while a [`simulation`] runs; [`history`]
//! records what clients saw and [`checks`] judges it; [`trace`] makes runs comparable;
//! [`scenario`] says what is run, and [`runner`] runs one seed. Production code never depends on
//! this crate.

#![deny(unsafe_code)]

pub mod backend;
pub mod checks;
pub mod dice;
pub mod disk;
pub mod history;
pub mod hook;
pub mod machine;
pub mod nemesis;
pub mod network;
pub mod ports;
pub mod processes;
pub mod runner;
pub mod scenario;
pub mod simulation;
pub mod trace;
