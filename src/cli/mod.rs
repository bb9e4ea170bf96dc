//! The command line `keystead`.
//!
//! In: arguments, variables, a grid reached through the client. Out: text or JSON on standard
//! output, one line on standard error when something fails, and an exit status: 0 done, 1 failed,
//! 2 usage, 3 not found. Never talks to a grid but through [`crate::client`]; `start` hands over
//! to the node.

pub mod args;
mod bench;
mod compute;
mod demo;
mod entries;
mod grid;
mod maps;
mod movement;
mod output;
mod signals;
mod start;
mod task;

#[cfg(test)]
mod tests;

use crate::client::{Client, ClientConfig};
use crate::error::{Error, Result};
use args::{Cli, Command, Connection, RebalanceCommand};
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;

/// Exit status for wrong usage.
const USAGE: u8 = 2;

/// Runs the command that the arguments name; returns the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" that go to standard output.
            let status = if error.use_stderr() { USAGE } else { 0 };
            drop(error.print());
            return status;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Error::internal(format!("no runtime could be started: {error}"))),
    };
    match runtime.block_on(execute(cli.command, &mut std::io::stdout())) {
        Ok(()) => 0,
        Err(error) => failed(&error),
    }
}

/// One line on standard error; the exit status of the error's code.
fn failed(error: &Error) -> u8 {
    let line = error.to_string().replace(['\n', '\r'], " ");
    drop(writeln!(std::io::stderr(), "keystead: {line}"));
    error.code.exit_status()
}

async fn connect(connection: &Connection) -> Result<Client> {
    for endpoint in &connection.endpoint {
        crate::config::port_of("endpoint", endpoint)?;
    }
    let config = ClientConfig { create_maps: true, ..ClientConfig::default() };
    Client::connect(connection.endpoint.clone(), config).await
}

/// Executes a command; what it prints goes to `out`.
///
/// # Errors
/// What the grid answers; `NoSuchKey` for a key that is not there.
pub async fn execute(command: Command, out: &mut (dyn Write + Send)) -> Result<()> {
    match command {
        Command::Put(put) => entries::put(&connect(&put.connection).await?, &put, out).await,
        Command::Get(get) => entries::get(&connect(&get.connection).await?, &get, out).await,
        Command::Delete(delete) => entries::delete(&connect(&delete.connection).await?, &delete, out).await,
        Command::Incr(incr) => entries::incr(&connect(&incr.connection).await?, &incr, out).await,
        Command::CreateMap(create) => maps::create(&connect(&create.connection).await?, &create, out).await,
        Command::Members(only) => grid::members(&connect(&only.connection).await?, only.connection.json, out).await,
        Command::Partitions(only) => {
            grid::partitions(&connect(&only.connection).await?, only.connection.json, out).await
        }
        Command::Remove(remove) => movement::remove(&connect(&remove.connection).await?, &remove, out).await,
        Command::Drain(drain) => movement::drain(&connect(&drain.connection).await?, &drain, out).await,
        Command::Rebalance(RebalanceCommand::Status(only)) => {
            movement::status(&connect(&only.connection).await?, only.connection.json, out).await
        }
        Command::Explain(explain) => grid::explain(&connect(&explain.connection).await?, &explain, out).await,
        Command::Task(task) => task::task(&connect(&task.connection).await?, &task, out).await,
        Command::Broadcast(args) => compute::broadcast(&connect(&args.connection).await?, &args, out).await,
        Command::Cancel(args) => compute::cancel(&connect(&args.connection).await?, &args, out).await,
        Command::Bench(bench) => bench::bench(&connect(&bench.connection).await?, &bench, out).await,
        Command::Start(start) => start::run(*start).await,
        Command::Demo(demo) => demo::demo(&demo, out).await,
    }
}
