//! `start`: gathers the configuration and runs a peer until it is told to stop.

use super::args::StartArgs;
use super::local::exit_with_parent;
use super::signals::Signals;
use crate::clock::{self, Instant, SystemThreads};
use crate::config::{NodeConfig, Options};
use crate::error::Result;
use crate::grid::Grid;
use crate::net::TcpFrom;
use crate::node::{Ended, GridService, Ports};
use std::io::IsTerminal;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The configuration that the arguments, the variables and the file give together.
pub(super) fn configuration(args: StartArgs, variable: &dyn Fn(&str) -> Option<String>) -> Result<NodeConfig> {
    let options = Options {
        name: args.name,
        listen: args.listen,
        advertise: args.advertise,
        http: args.http,
        seeds: args.seeds.map(|seeds| seeds.into_iter().filter(|seed| !seed.is_empty()).collect()),
        data: args.data,
        partitions: args.partitions,
        replicas: args.replicas,
        backend: args.backend,
        memory_limit: args.memory_limit,
        zone: args.zone,
        weight: args.weight,
        // Only its presence says something.
        insecure: args.insecure.then_some(true),
        limits: None,
    };
    NodeConfig::from_options(options.gather(args.config, variable)?)
}

/// Runs a peer.
pub(super) async fn run(args: StartArgs) -> Result<()> {
    let (with_parent, from) = (args.exit_with_parent, args.connect_from);
    let config = configuration(args, &|name| std::env::var(name).ok())?;
    log_to_stderr();
    #[cfg(feature = "failpoints")]
    crate::failpoint::arm_from_environment()?;
    if with_parent {
        exit_with_parent(&SystemThreads);
    }
    serve(config, from).await
}

/// The log goes to standard error; `RUST_LOG` says how much of it, `info` by default.
fn log_to_stderr() {
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty());
    // Of two directives for a target the later counts: whoever asks for openraft's words gets them.
    let filter = format!("openraft=off,chitchat=error,{}", asked.as_deref().unwrap_or("info"));
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(filter);
    // A library user may have set a subscriber: then theirs stays.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
    );
}

/// How long a peer that starts says nothing before it says what it waits for.
const REPORT_AFTER: Duration = Duration::from_secs(10);

/// How often a peer that has started looks whether partitions lack replicas.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Starts the peer and runs it until a signal, or until it fails.
async fn serve(config: NodeConfig, from: Option<IpAddr>) -> Result<()> {
    let mut ports = Ports::with_backend(config.backend, config.memory_limit);
    if let Some(from) = from {
        ports.network = Arc::new(TcpFrom(from));
    }
    let grid = Grid::builder().config(config.clone()).ports(ports).start().await?;
    let http = grid.http_address().map_or_else(String::new, |http| format!(", http://{http}"));
    let address = match &config.advertise {
        Some(advertised) => format!("{}, reached at {advertised}", config.listen),
        None => grid.address().to_owned(),
    };
    println!("{} listens on {address}{http}, data in {}", config.name, config.data.display());
    let mut stop = Signals::new()?;
    tokio::select! {
        biased;
        _ = stop.wait() => {}
        ended = grid.ended() => return failed(ended),
        () = report_ready(&grid, &config.name) => {
            tokio::select! {
                biased;
                _ = stop.wait() => {}
                ended = grid.ended() => return failed(ended),
            }
        }
    }
    println!("{} hands its leaderships over and stops", config.name);
    grid.shutdown().await;
    Ok(())
}

async fn report_ready(grid: &Grid, name: &str) {
    while let Err(error) = grid.wait_ready(REPORT_AFTER).await {
        tracing::info!("{name} does not serve yet: {}", error.what);
    }
    println!("{name} is ready");
    // A peer that has just started does not know of all the others yet.
    let until = Instant::now() + REPORT_AFTER;
    loop {
        let partitions = grid.node().partitions().await.unwrap_or_default();
        let short = partitions.iter().filter(|partition| partition.under_replicated > 0).count();
        if !partitions.is_empty() && short == 0 {
            return;
        }
        if Instant::now() >= until {
            let of = partitions.len();
            println!(
                "{name}: {short} of {of} partitions lack replicas: peers are missing or away; see `keystead members`"
            );
            return;
        }
        clock::sleep(REPORT_EVERY).await;
    }
}

fn failed(ended: Ended) -> Result<()> {
    match ended {
        Ended::Failed(error) => Err(error),
        Ended::Stopped => Ok(()),
    }
}
