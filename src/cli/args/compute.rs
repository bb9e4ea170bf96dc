//! Options of `task`, `broadcast`, `scatter`, `word-count`, `top-k`, `job`, `jobs` and `cancel`.

use super::Connection;
use clap::{Args, Subcommand};

/// `task`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  keystead task rolling-total --key customer-7 --payload \\
    '{\"map\":\"totals\",\"time_s\":1700000000,\"amount\":250,\"bucket_s\":3600,\"buckets\":168}'")]
pub struct TaskArgs {
    /// The task's registered name
    pub name: String,
    /// The key beside which it runs
    #[arg(long, allow_hyphen_values = true)]
    pub key: String,
    /// What the task is given, as JSON
    #[arg(long, default_value = "null", allow_hyphen_values = true)]
    pub payload: String,
    /// A number to cancel it by, from elsewhere [default: none]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub id: u64,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `broadcast`.
#[derive(Debug, Args)]
#[command(after_help = "\
Progress goes to standard error. Exit status 1 when it failed on a partition.

Example:
  keystead broadcast count-entries --payload '{\"map\":\"orders\"}'")]
pub struct BroadcastArgs {
    /// The partition task's registered name
    pub name: String,
    /// What each partition's handler is given, as JSON
    #[arg(long, default_value = "null", allow_hyphen_values = true)]
    pub payload: String,
    /// Time for all of it, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub within: u32,
    /// A number to cancel it by [default: drawn at random and printed]
    #[arg(long)]
    pub id: Option<u64>,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `job`.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Start a job task and print its id
    Start(JobStartArgs),
    /// Show a job task
    #[command(after_help = "Example:\n  keystead job status 1a2b00c3d4e5f607")]
    Status(JobArgs),
    /// Ask a job task to end
    #[command(after_help = "Example:\n  keystead job cancel 1a2b00c3d4e5f607")]
    Cancel(JobArgs),
}

/// `job start`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead job start rebuild --key customer-7 --payload '{\"days\":7}' --wait")]
pub struct JobStartArgs {
    /// The job task's registered name
    pub name: String,
    /// The key beside whose partition's leader it runs
    #[arg(long, allow_hyphen_values = true)]
    pub key: String,
    /// What it is given, as JSON
    #[arg(long, default_value = "null", allow_hyphen_values = true)]
    pub payload: String,
    /// How long it may take in all, in seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub time: u32,
    /// Wait for its end, with a line of progress, and print its answer
    #[arg(long)]
    pub wait: bool,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `job status`, `job cancel`.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job's id, as `job start` and `jobs` print it
    #[arg(value_parser = job_id)]
    pub id: crate::types::JobId,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

fn job_id(text: &str) -> Result<crate::types::JobId, String> {
    text.parse().map_err(|_| "a job's id is up to 16 hex digits".to_owned())
}

/// `jobs`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead jobs --json")]
pub struct JobsArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// How long a scatter may take, and what it may lack.
#[derive(Clone, Debug, Args)]
pub struct ScatterOptions {
    /// Time for all of it, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub within: u32,
    /// Take an answer that lacks partitions; they are named, and the exit status is 1
    #[arg(long)]
    pub partial: bool,
    /// A number to cancel it by [default: drawn at random and printed]
    #[arg(long)]
    pub id: Option<u64>,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `scatter`.
#[derive(Debug, Args)]
#[command(after_help = "\
Progress goes to standard error.

Example:
  keystead scatter word-count --payload '{\"map\":\"articles\",\"top\":20}'")]
pub struct ScatterArgs {
    /// The scatter's registered name
    pub name: String,
    /// What its steps are given, as JSON
    #[arg(long, default_value = "null", allow_hyphen_values = true)]
    pub payload: String,
    /// How.
    #[command(flatten)]
    pub options: ScatterOptions,
}

/// `word-count`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead word-count articles --top 10 --into counts")]
pub struct WordCountArgs {
    /// The map whose values are counted
    pub map: String,
    /// How many words are shown, the most frequent first
    #[arg(long, default_value_t = 20)]
    pub top: u32,
    /// A map that takes the counts of all words; created if there is none
    #[arg(long, value_name = "MAP")]
    pub into: Option<String>,
    /// How.
    #[command(flatten)]
    pub options: ScatterOptions,
}

/// `top-k`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead top-k orders --k 10 --field total")]
pub struct TopKArgs {
    /// The map
    pub map: String,
    /// How many entries
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub k: u32,
    /// The field of JSON or MessagePack values that holds the number, with dots between names
    #[arg(long)]
    pub field: Option<String>,
    /// How.
    #[command(flatten)]
    pub options: ScatterOptions,
}

/// `cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead cancel 4711")]
pub struct CancelArgs {
    /// The id that it was submitted under
    pub id: u64,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}
