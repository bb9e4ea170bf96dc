//! The commands and their options.

use super::walk_args::{ClearArgs, DropArgs, MapsArgs, ScanArgs, SizeArgs, TransactArgs};
use clap::{Args, Parser, Subcommand};

mod compute;
mod entries;
mod grid;
mod maps;
mod movement;
mod peers;

pub use compute::{
    BroadcastArgs, CancelArgs, JobArgs, JobCommand, JobStartArgs, JobsArgs, ScatterArgs, ScatterOptions, TaskArgs,
    TopKArgs, WordCountArgs,
};
pub use entries::{Ack, Affinity, DeleteArgs, Fresh, IncrArgs, KeyArgs, PutArgs, TouchArgs};
pub use grid::{ExplainArgs, MembersArgs, PartitionsArgs};
pub use maps::{CreateMapArgs, WatchArgs};
pub use movement::{DrainArgs, RebalanceArgs, RebalanceCommand, RemoveArgs};
pub use peers::{BenchArgs, DemoArgs, DevArgs, StartArgs};

/// An embedded data-grid node, and the client for it.
#[derive(Debug, Parser)]
#[command(
    name = "keystead",
    version,
    max_term_width = 100,
    after_help = "\
Exit status: 0 done, 1 failed, 2 usage, 3 not found.

Example:
  keystead start &
  keystead put orders 42 open && keystead get orders 42"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a peer
    Start(Box<StartArgs>),
    /// Write an entry; the first write to a map creates it with utf8 keys and values
    Put(PutArgs),
    /// Print an entry's value
    Get(KeyArgs),
    /// Give an entry a new time to live
    Touch(TouchArgs),
    /// Delete an entry
    Delete(DeleteArgs),
    /// Add to a number and print the sum
    Incr(IncrArgs),
    /// Check and write several entries of one slot, all or nothing
    Transact(TransactArgs),
    /// Print a map's entries
    Scan(ScanArgs),
    /// Count a map's entries
    Size(SizeArgs),
    /// Delete all entries of a map
    Clear(ClearArgs),
    /// List the maps and what they hold
    Maps(MapsArgs),
    /// Drop a map
    Drop(DropArgs),
    /// Create a map, with limits and a time to live if it is to have them
    CreateMap(CreateMapArgs),
    /// Print a map's changes as they come
    Watch(WatchArgs),
    /// List the grid's members
    Members(MembersArgs),
    /// List the partitions: leader, replicas, progress
    Partitions(PartitionsArgs),
    /// Remove a member for good, dead or alive; what it holds moves away first
    Remove(RemoveArgs),
    /// Empty a member, which stays one
    Drain(DrainArgs),
    /// Look at how data moves between the peers
    #[command(subcommand, after_help = "Example:\n  keystead rebalance status --json")]
    Rebalance(RebalanceCommand),
    /// Tell where a key lives, and why there
    Explain(ExplainArgs),
    /// Run a task beside a key and print its answer
    Task(TaskArgs),
    /// Run a partition task on every partition and print the answers
    Broadcast(BroadcastArgs),
    /// Run a scatter over all partitions and print its answer
    Scatter(ScatterArgs),
    /// Count the words of a map's values
    WordCount(WordCountArgs),
    /// Show a map's entries with the largest numbers
    TopK(TopKArgs),
    /// Start, show or cancel a job task
    #[command(subcommand, after_help = "Example:\n  keystead job start rebuild --key customer-7 --wait")]
    Job(JobCommand),
    /// List the job tasks
    Jobs(JobsArgs),
    /// Cancel what was submitted under an id
    Cancel(CancelArgs),
    /// Measure throughput and latency in a closed loop
    Bench(BenchArgs),
    /// Show a grid that survives the loss of a peer and takes in another, on real input
    Demo(DemoArgs),
    /// Run a grid of three peers here, with a live table; type `kill 2` or `add`
    Dev(DevArgs),
}

/// Where the grid is, and how to print.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Peers to ask, with commas between; the first that answers is enough
    #[arg(
        long,
        env = "KEYSTEAD_ENDPOINT",
        value_name = "HOST:PORT[,..]",
        default_value = "127.0.0.1:7401",
        value_delimiter = ',',
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub endpoint: Vec<String>,
    /// Time for each request to the grid, in seconds, retries included
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
