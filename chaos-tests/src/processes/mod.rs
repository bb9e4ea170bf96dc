//! The same promises, on real processes: `keystead start` under kills, stops, cut links and changes of
//! its members, while clients write and read.
//!
//! In: minutes, peers, a seed. Out: a line per round, a table, and what was broken, with the directory
//! of the peers' logs. Needs no privileges: every link goes through a [`proxy`], processes are broken by
//! signals ([`nemesis`], [`peer`]), and all of it ends with this program. The [`clients`]' histories, and
//! what [`watchers`] saw, are judged by the same [`crate::checks`] as the simulator's. Time here is real, so a seed decides what is
//! done and not what comes of it. A [`round`] ends in bounded time of the [`pulse`].

pub mod agree;
pub mod cli;
pub mod clients;
pub mod converge;
pub mod fleet;
pub mod namespace;
pub mod nemesis;
pub mod peer;
pub mod proxy;
pub mod pulse;
pub mod record;
pub mod report;
pub mod round;
pub mod timeline;
pub mod watchers;
pub mod workload;

#[cfg(test)]
mod tests;
