//! Keystead beside etcd and Redis, on one machine and in turn.
//!
//! In: the programs `etcd` and `redis-server` on the path, or the options that leave one out. Out: a
//! table of medians and of the ratios of each round, and the same as JSON. Every system is driven by
//! the same loops with the same keys, values, connections and requests in flight, runs alone while it
//! is measured, and keeps its data in a temporary directory that is removed. Judges nothing.

mod cli;
mod load;
mod phases;
mod report;
mod servers;
mod target;

use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// The peers' allocator, as in the binary that users start.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As this program's first argument: be a Keystead peer instead, with the rest as arguments.
const AS_PEER: &str = "as-keystead";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == AS_PEER) {
        let peer = std::iter::once(OsString::from("keystead")).chain(arguments);
        return ExitCode::from(keystead::cli::run(peer));
    }
    let options = cli::Options::parse();
    // Whichever system it drives, the load leaves a core to what is measured.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = cores.saturating_sub(1).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let measured = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(phases::run(&options)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
