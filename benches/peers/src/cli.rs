//! The options.

use crate::target::System;
use clap::Parser;
use std::path::PathBuf;

/// Measures Keystead, etcd and Redis in turn with the same load.
///
/// Example: cargo run -p bench-peers --profile dist -- --json figures.json
///
/// etcd and redis-server are looked for on the path (Debian: apt-get install etcd-server
/// redis-server). Each round starts every system afresh, alone, and stops it again.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench-peers", verbatim_doc_comment)]
pub struct Options {
    /// The systems, in this order in every round.
    #[arg(long, value_delimiter = ',', default_values_t = [System::Keystead, System::Etcd, System::Redis])]
    pub systems: Vec<System>,
    /// Rounds; the table shows medians.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Keys. The puts of a round write each of them once, in random order.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Gets of a round, of random keys.
    #[arg(long, default_value_t = 300_000)]
    pub gets: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    pub value_size: usize,
    /// Requests in flight, in the closed loop.
    #[arg(long, default_value_t = 256)]
    pub in_flight: usize,
    /// Connections of the load generator to each system. Keystead's client has one to each peer, so
    /// where it is measured this is 3.
    #[arg(long, default_value_t = 3)]
    pub connections: usize,
    /// Partitions of the Keystead grid. One is what etcd has: one Raft group. The grid's own default, 64,
    /// lets it grow to many peers and costs more per put on few.
    #[arg(long, default_value_t = 1)]
    pub partitions: u32,
    /// Seconds of each open loop, which runs at 80 % of etcd's closed loop, the median of three short
    /// turns before the rounds; 0 leaves the open loops out.
    #[arg(long, default_value_t = 10)]
    pub open_seconds: u64,
    /// Where etcd's connections go: to its leader, which spares it a hop, or to all its members.
    #[arg(long, default_value = "leader")]
    pub etcd_to: EtcdTo,
    /// Writes the figures as JSON to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Which of etcd's members are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EtcdTo {
    /// The leader alone.
    Leader,
    /// All, by turns.
    All,
}
