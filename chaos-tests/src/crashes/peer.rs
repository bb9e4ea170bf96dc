//! A peer's process: a whole Keystead node with small bounds, so that segments end, checkpoints fall due
//! and logs are purged within moments. In: options, and what the suite asks on standard input. Out: answers
//! on standard output, the log on standard error, files in the data directory.

use super::control::{Ask, Held, Told};
use anyhow::Context;
use keystead::Grid;
use keystead::clock::{ThreadKind, run_on};
use keystead::config::{Backend, NodeConfig};
use keystead::error::Result;
use keystead::failpoint;
use keystead::node::{Ended, NodeSettings, Ports};
use keystead::storage::backend::{ReopeningBackend, SledBackend, SledConfig, StateBackend};
use keystead::storage::log::LogConfig;
use keystead::types::{GroupId, PartitionId};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

/// Partitions of the grid.
pub(super) const PARTITIONS: u32 = 8;

/// How long a peer may take to serve.
const READY: Duration = Duration::from_secs(240);

/// Options of a peer's process.
#[derive(Clone, Debug, clap::Args)]
pub struct PeerArgs {
    /// Its name.
    #[arg(long)]
    pub name: String,
    /// Where it listens.
    #[arg(long)]
    pub listen: String,
    /// The founders, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub seeds: Vec<String>,
    /// The data directory.
    #[arg(long)]
    pub data: PathBuf,
    /// `memory` or `sled`.
    #[arg(long)]
    pub backend: Backend,
}

/// Runs the peer until the suite is gone.
///
/// # Errors
/// What the peer ended with.
async fn serve(args: PeerArgs) -> anyhow::Result<()> {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy("openraft=off,chitchat=error,info");
    log.with_env_filter(filter).try_init().map_err(|error| anyhow::anyhow!("{error}"))?;
    failpoint::arm_from_environment()?;
    let ports = ports(args.backend);
    let threads = ports.threads.clone();
    let config = NodeConfig {
        name: args.name,
        listen: args.listen,
        seeds: args.seeds,
        data: args.data,
        partitions: PARTITIONS,
        backend: args.backend,
        ..NodeConfig::default()
    };
    let grid = Grid::builder().config(config).ports(ports).adjust(adjust).start().await?;
    let (sender, mut asked) = tokio::sync::mpsc::channel::<Ask>(1);
    threads.run(ThreadKind::Backend, Box::new(move || listen(&sender)));
    loop {
        tokio::select! {
            biased;
            ended = grid.ended() => match ended {
                Ended::Stopped => return Ok(()),
                Ended::Failed(error) => return Err(error.into()),
            },
            ask = asked.recv() => match ask {
                None => return Ok(()),
                Some(ask) => {
                    let told = answer(&grid, ask).await;
                    let line = serde_json::to_string(&told)?;
                    // The suite reads each answer before it asks again.
                    run_on(&threads, ThreadKind::Backend, move || say(&line)).await??;
                }
            }
        }
    }
}

/// Hands on what is asked; exits the process as a crash would when the suite is gone.
fn listen(sender: &tokio::sync::mpsc::Sender<Ask>) {
    for line in std::io::stdin().lock().lines() {
        let ask = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        if ask.is_none_or(|ask| sender.blocking_send(ask).is_err()) {
            break;
        }
    }
    std::process::exit(1);
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

async fn answer(grid: &Grid, ask: Ask) -> Told {
    let done = |outcome: Result<()>| outcome.map_or_else(|error| Told::Failed(error.to_string()), |()| Told::Done);
    match ask {
        Ask::Arm(point, actions) => done(failpoint::arm(&point, &actions)),
        Ask::Disarm(point) => {
            failpoint::disarm(&point);
            Told::Done
        }
        Ask::Ready => done(grid.wait_ready(READY).await),
        Ask::Replicas => {
            let groups = std::iter::once(GroupId::META).chain((0..PARTITIONS).map(|id| PartitionId(id).group()));
            Told::Replicas(groups.filter_map(|group| held(grid, group)).collect())
        }
    }
}

fn held(grid: &Grid, group: GroupId) -> Option<Held> {
    let (replica, applied, rows) = grid.node().replica_rows(group)?;
    let mut digest = Xxh3::new();
    for part in rows.iter().flat_map(|(row, value)| [row, value]) {
        digest.update(&part.len().to_le_bytes());
        digest.update(part);
    }
    let purged = grid.node().purged_to(group);
    Some(Held { group: group.0, replica, applied, purged, rows: (rows.len(), digest.digest()) })
}

/// The machine's ports; sled in small batches, so that a checkpoint has several.
fn ports(backend: Backend) -> Ports {
    let mut ports = Ports::with_backend(backend, None);
    if backend == Backend::Sled {
        let config = SledConfig { max_batch_rows: 4, cache_bytes: 4 << 20, ..SledConfig::default() };
        ports.backend = Arc::new(move |dir: &Path| -> Result<Arc<dyn StateBackend>> {
            let dir = dir.to_owned();
            let open = move || Ok(Box::new(SledBackend::open(&dir, config)?) as Box<dyn StateBackend>);
            Ok(Arc::new(ReopeningBackend::open(open)?))
        });
    }
    ports
}

fn adjust(settings: &mut NodeSettings) {
    settings.housekeeping.period = Duration::from_millis(100);
    settings.housekeeping.checkpoint_bytes = 16 << 10;
    settings.housekeeping.replay_bytes = 0;
    settings.housekeeping.keep_entries = 5;
    settings.housekeeping.max_lag_entries = 60;
    settings.housekeeping.settle = Duration::from_millis(500);
    // Snapshots come in several pieces, of which the later ones go through a file.
    settings.raft_network.snapshot_chunk_bytes = 2 << 10;
    settings.receptions.max_held_bytes = 4 << 10;
    settings.movement.settle = Duration::from_millis(200);
    // Nobody's replicas are made anew elsewhere while a peer is being started again.
    settings.movement.replace_after = Duration::from_secs(600);
    settings.movement.abandon_after = Duration::from_secs(2);
    settings.log = LogConfig {
        segment_bytes: 16 << 10,
        cache_bytes: 64 << 10,
        prepare_bytes: 4 << 10,
        slack_bytes: 64 << 10,
        move_bytes: 4 << 10,
        probe_every: Duration::from_millis(200),
        ..LogConfig::default()
    };
}

/// Runs the peer's process to its end.
///
/// # Errors
/// As [`serve`]; when no runtime can be started.
pub fn run(args: PeerArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("no runtime could be started")?.block_on(serve(args))
}
