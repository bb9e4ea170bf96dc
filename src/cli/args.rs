//! The commands and their options.

use super::walk_args::{ClearArgs, Conditions, DropArgs, MapsArgs, ScanArgs, SizeArgs, TransactArgs};
use crate::types::{AckLevel, Eviction, KeyCodec, ReadLevel, ValueCodec};
mod compute;

pub use compute::{
    BroadcastArgs, CancelArgs, JobArgs, JobCommand, JobStartArgs, JobsArgs, ScatterArgs, ScatterOptions, TopKArgs,
    WordCountArgs,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

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

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// On disk at a majority of the partition's replicas
    #[default]
    MajorityFsync,
    /// The leader has it; it may be lost
    Accepted,
}

impl From<Ack> for AckLevel {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::MajorityFsync => AckLevel::MajorityFsync,
            Ack::Accepted => AckLevel::Accepted,
        }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Fresh {
    /// Sees every write acknowledged before the read began
    #[default]
    Linearizable,
    /// From the asked peer's own replica, without asking others; may be old
    Local,
}

impl From<Fresh> for ReadLevel {
    fn from(read: Fresh) -> Self {
        match read {
            Fresh::Linearizable => ReadLevel::Linearizable,
            Fresh::Local => ReadLevel::Local,
        }
    }
}

/// `put`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead put orders 42 open")]
pub struct PutArgs {
    /// The map
    pub map: String,
    /// The key; what stands in {braces} decides where it lives
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// The value, as text; encoded as the map's codec wants it
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// How long the entry lives, such as 90s or 10m; 0s: for good [default: as the map says]
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub ttl: Option<Duration>,
    /// What must hold.
    #[command(flatten)]
    pub conditions: Conditions,
    /// When the write is acknowledged
    #[arg(long, value_enum, default_value_t)]
    pub ack: Ack,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `touch`.
#[derive(Debug, Args)]
#[command(after_help = "\
The entry keeps its value and gets a new revision.

Example:
  keystead touch sessions 42 --ttl 30m")]
pub struct TouchArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// How long the entry lives from now on; 0s: for good [default: as the map says]
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub ttl: Option<Duration>,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `get`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead get orders 42")]
pub struct KeyArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// Read the asked peer's copy of a replicated map
    #[arg(long)]
    pub local: bool,
    /// With --local: wait until the copy is of this revision, that of a write of one's own, say
    #[arg(long, value_name = "REVISION", requires = "local", default_value_t = 0)]
    pub at_least: u64,
    /// How fresh the value must be
    #[arg(long, value_enum, default_value_t)]
    pub read: Fresh,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead delete orders 42")]
pub struct DeleteArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// What must hold.
    #[command(flatten)]
    pub conditions: Conditions,
    /// When the deletion is acknowledged
    #[arg(long, value_enum, default_value_t)]
    pub ack: Ack,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `incr`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead incr visits home 5")]
pub struct IncrArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// What to add
    #[arg(default_value_t = 1, allow_hyphen_values = true)]
    pub delta: i64,
    /// When the sum is acknowledged
    #[arg(long, value_enum, default_value_t)]
    pub ack: Ack,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each change comes once, in order for each key, also when peers fail. With --tokens the place behind
each message is printed; --from goes on there. The history is bounded: a watch that went on too late
fails with KS7001; with --snapshot it prints `reset` and the entries that are there instead.

Example:
  keystead watch orders --prefix 2026- --snapshot")]
pub struct WatchArgs {
    /// The map
    pub map: String,
    /// Only this key
    #[arg(long, conflicts_with = "prefix", allow_hyphen_values = true)]
    pub key: Option<String>,
    /// Only keys that start so
    #[arg(long, allow_hyphen_values = true)]
    pub prefix: Option<String>,
    /// What decides where the keys live, if their writes named it
    #[arg(long, allow_hyphen_values = true)]
    pub affinity: Option<String>,
    /// Go on behind this token
    #[arg(long, value_name = "TOKEN")]
    pub from: Option<String>,
    /// Begin with the entries that are there
    #[arg(long)]
    pub snapshot: bool,
    /// Print the token behind each message, too
    #[arg(long)]
    pub tokens: bool,
    /// End behind the message in which so many events have come
    #[arg(long, value_name = "EVENTS")]
    pub count: Option<u64>,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `create-map`.
#[derive(Debug, Args)]
#[command(after_help = "\
Limits are of the whole map; each partition enforces its share.

Example:
  keystead create-map sessions --ttl 30m --max-bytes 64MiB --eviction lru")]
pub struct CreateMapArgs {
    /// The map's name
    pub map: String,
    /// How its keys are encoded: bytes, utf8 or i64
    #[arg(long, value_name = "CODEC", default_value = "utf8", value_parser = key_codec)]
    pub keys: KeyCodec,
    /// How its values are encoded: bytes, utf8, json, msgpack or i64
    #[arg(long, value_name = "CODEC", default_value = "utf8", value_parser = value_codec)]
    pub values: ValueCodec,
    /// Schema version of its values
    #[arg(long, default_value_t = 0)]
    pub schema: u32,
    /// How long an entry lives if its write names no time, such as 90s or 10m [default: it stays]
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub ttl: Option<Duration>,
    /// Entries that the map may hold [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_entries: Option<u64>,
    /// Bytes of keys and values that the map may hold, such as 64MiB [default: any number]
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    pub max_bytes: Option<u64>,
    /// What makes room at a limit: none, lru or lfu; with none a write is refused
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = eviction)]
    pub eviction: Eviction,
    /// Keep a copy of the map on every peer, to read from
    #[arg(long)]
    pub replicated: bool,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

fn key_codec(text: &str) -> Result<KeyCodec, String> {
    let all = [KeyCodec::Bytes, KeyCodec::Utf8, KeyCodec::I64];
    let named = all.into_iter().find(|codec| super::output::key_codec_name(*codec) == text);
    named.ok_or_else(|| format!("\"{text}\" is none of bytes, utf8 and i64"))
}

fn value_codec(text: &str) -> Result<ValueCodec, String> {
    let named =
        (0..=u8::MAX).map_while(ValueCodec::from_number).find(|codec| super::output::codec_name(*codec) == text);
    named.ok_or_else(|| format!("\"{text}\" is none of bytes, utf8, json, msgpack and i64"))
}

fn eviction(text: &str) -> Result<Eviction, String> {
    let named = [Eviction::None, Eviction::Lru, Eviction::Lfu].into_iter().find(|eviction| eviction.name() == text);
    named.ok_or_else(|| format!("\"{text}\" is none of none, lru and lfu"))
}

/// `members`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead members --json")]
pub struct MembersArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `partitions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead partitions --json")]
pub struct PartitionsArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `remove`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The command waits until the member has gone. Its disk is refused afterwards; an empty one joins anew.

Example:
  keystead remove n2")]
pub struct RemoveArgs {
    /// The member's name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub member: String,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after so many seconds; the removal goes on
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub timeout: u64,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `drain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The command waits until the member holds nothing.

Example:
  keystead drain n2 && systemctl stop keystead")]
pub struct DrainArgs {
    /// The member's name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub member: String,
    /// Let the member hold its share again
    #[arg(long)]
    pub undo: bool,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after so many seconds; the drain goes on
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub timeout: u64,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `rebalance`.
#[derive(Clone, Debug, Subcommand)]
pub enum RebalanceCommand {
    /// Show the moves under way
    Status(RebalanceArgs),
}

/// `rebalance status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  keystead rebalance status")]
pub struct RebalanceArgs {
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead explain 'order:{customer-7}:42'")]
pub struct ExplainArgs {
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

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

/// `bench`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  keystead bench --ops 200000 --reads 50 --json")]
pub struct BenchArgs {
    /// Operations in all
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub ops: u64,
    /// Operations in flight at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub concurrency: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=524_288))]
    pub value_size: u32,
    /// How many of a hundred operations are linearizable reads
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub reads: u32,
    /// Different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub keys: u64,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `demo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  keystead demo --input retail.csv --output totals.csv")]
pub struct DemoArgs {
    /// Invoice lines to send; without it card transactions are made up
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Where to write what the grid answered
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Leave out rows that are broken, and count them
    #[arg(long)]
    pub skip_bad: bool,
    /// Events per second; 0 is as fast as it can
    #[arg(long, default_value_t = 2000)]
    pub rate: u64,
    /// Seed of the made-up events
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many events are made up
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub events: u64,
}

/// `dev`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
While it runs, type: kill N, start N, add, load RATE, quit.

Example:
  keystead dev --load 500")]
pub struct DevArgs {
    /// Writes and reads a second to begin with
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub load: u32,
    /// Print a JSON object per look
    #[arg(long)]
    pub json: bool,
}

/// `start`. Every option can also come from a `KEYSTEAD_*` variable or from the file.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
An option beats a variable (KEYSTEAD_LISTEN and so on) beats the file.

Example, three peers on one machine:
  S=127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403
  keystead start --name n1 --listen 127.0.0.1:7401 --seeds $S &
  keystead start --name n2 --listen 127.0.0.1:7402 --seeds $S &
  keystead start --name n3 --listen 127.0.0.1:7403 --seeds $S &")]
pub struct StartArgs {
    /// The peer's name, for people [default: n and the port]
    #[arg(long)]
    pub name: Option<String>,
    /// Where clients and peers are listened for; port 0 takes a free one [default: 127.0.0.1:7401]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where others reach the peer [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where /healthz, /readyz and /metrics are served [default: nowhere]
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Addresses to find the grid by; the first three found it [default: none, a grid of one]
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub seeds: Option<Vec<String>>,
    /// The data directory [default: the platform's, with keystead/<listen port>]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Partitions of a new grid [default: 64]
    #[arg(long)]
    pub partitions: Option<u32>,
    /// Replicas per partition of a new grid [default: 3]
    #[arg(long)]
    pub replicas: Option<u32>,
    /// Where rows are kept besides RAM: sled, memory or fjall (where built in) [default: sled]
    #[arg(long)]
    pub backend: Option<crate::config::Backend>,
    /// RAM for the state, such as 256MiB; with sled, values beyond it are served from disk, with
    /// memory, writes beyond it are refused [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// The zone that the peer stands in
    #[arg(long)]
    pub zone: Option<String>,
    /// The peer's share of partitions, relative to the others' [default: 1]
    #[arg(long)]
    pub weight: Option<u32>,
    /// Allow an address that is open to the network although nothing is encrypted
    #[arg(long)]
    pub insecure: bool,
    /// Stop when standard input ends; for programs that start peers
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
    /// A TOML file with these options [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
