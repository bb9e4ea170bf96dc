//! Whole Keystead nodes in a simulated world: one seed decides the network, the time, the disks,
//! the faults and the clients.
//!
//! In: a seed. Out: a verdict and a trace that the same seed always gives again. The parts:
//! [`dice`], [`hook`] and [`ports`] take decisions, randomness, clocks and threads from the seed;
//! [`disk`], [`backend`] and [`network`] stand in for the machine's, put together in a
//! [`machine`]; [`nemesis`] breaks things on a schedule while a [`simulation`] runs; [`actions`]
//! are what clients do, [`history`] records what they saw and [`checks`] judges it; [`trace`] makes
//! runs comparable, [`tally`] counts, [`alarms`] reads real peers' logs; [`scenario`] says what is run, and [`runner`] runs one seed;
//! [`mutants`] checks the checkers; [`processes`] does the same to real ones. With the feature
//! `faults`, `crashes` lets real processes die at each step of their work. Production code never
//! depends on this crate.

#![deny(unsafe_code)]

pub mod actions;
pub mod alarms;
pub mod backend;
pub mod checks;
#[cfg(feature = "faults")]
pub mod crashes;
pub mod dice;
pub mod disk;
pub mod history;
pub mod hook;
pub mod machine;
pub mod mutants;
pub mod nemesis;
pub mod network;
pub mod ports;
pub mod processes;
pub mod runner;
pub mod scenario;
pub mod simulation;
pub mod tally;
pub mod trace;
