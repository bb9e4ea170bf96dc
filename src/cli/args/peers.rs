//! Options of the commands that start peers, and of the one that measures them.

use super::Connection;
use clap::Args;
use std::path::PathBuf;

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
    /// Events per second; 0 is as fast as it can, with a pause until the joined peer leads its part
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
An option beats a variable (KEYSTEAD_LISTEN and so on) beats the file. The log goes to standard error;
RUST_LOG=warn makes it short.

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
    #[arg(long, value_parser = backend)]
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
    /// The address that connections to other peers come from, for whoever stands between them
    #[arg(long, hide = true, value_name = "IP")]
    pub connect_from: Option<std::net::IpAddr>,
    /// A TOML file with these options [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
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

/// Its error without the code: the whole line gets one.
fn backend(text: &str) -> Result<crate::config::Backend, String> {
    text.parse().map_err(|error: crate::error::Error| error.what)
}
