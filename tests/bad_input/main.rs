//! Bad input of every kind: always a clear error with a code, never a panic, never a loss, never
//! memory without a bound. Each test shows the words that people read.
#![allow(missing_docs)]
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod damage;
mod directory;
mod disk;
mod majority;
mod movement;
mod options;
mod process;
mod refusals;
mod requests;
mod silent;
mod skew;
mod state;
mod sweep;
mod table;
