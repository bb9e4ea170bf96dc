//! `start`: gathers the configuration and runs a peer until it is told to stop.

use super::args::StartArgs;
use super::demo::exit_with_parent;
use crate::clock::SystemThreads;
use crate::config::{NodeConfig, Options};
use crate::error::{Code, Error, Result};

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
    let with_parent = args.exit_with_parent;
    let config = configuration(args, &|name| std::env::var(name).ok())?;
    log_to_stderr();
    if with_parent {
        exit_with_parent(&SystemThreads);
    }
    node_is_not_wired_in_yet(config).await
}

/// The log goes to standard error; `RUST_LOG` says how much of it, `info` by default.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn,chitchat=warn"));
    // A library user may have set a subscriber: then theirs stays.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
}

/// Stands where the node will be called.
async fn node_is_not_wired_in_yet(config: NodeConfig) -> Result<()> {
    Err(Error::new(Code::NotReady, "this build has no node").at(config.name))
}
