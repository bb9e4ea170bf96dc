//! Time, randomness and threads as ports, so that the simulator runs the same code.
//!
//! Everything that waits, spawns or reads a monotonic clock goes through this module; the wall
//! clock, random numbers and threads are passed in as [`WallClock`], [`Random`] and [`Threads`].
//! Inside a [`Gate`] (the simulator puts one round each node) tasks stop being polled while the
//! node is paused, and the node's clock can stand still; without one nothing is added but a check
//! at spawn.

#[allow(clippy::disallowed_methods)]
mod gate;
#[allow(clippy::disallowed_methods)]
mod instant;
#[allow(clippy::disallowed_methods)]
mod ports;

pub use gate::{Gate, JoinHandle, spawn};
pub use instant::Interval;
pub use instant::{Elapsed, Instant, Sleep, Timeout, interval, sleep, sleep_until, timeout, timeout_at};
pub use ports::{Random, SystemClock, SystemRandom, SystemThreads, ThreadKind, Threads, WallClock, run_future, run_on};
