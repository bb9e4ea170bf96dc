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
mod dev;
mod entries;
#[cfg(test)]
mod fuzz;
mod grid;
mod jobs;
mod local;
mod maps;
mod movement;
mod output;
mod signals;
mod start;
mod task;
mod walk_args;
mod walks;
mod watch;

#[cfg(test)]
mod tests;

use crate::client::{Client, ClientConfig};
use crate::error::{Code, Error, Result};
use crate::types::{AckLevel, ReadLevel};
use args::{Ack, Cli, Command, Connection, Fresh, RebalanceCommand};
use clap::Parser;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

/// Exit status for wrong usage.
const USAGE: u8 = 2;

/// Runs the command that the arguments name; returns the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Also of a command that is not understood: what comes behind `--` is no option.
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" that go to standard output.
            if !error.use_stderr() {
                drop(error.print());
                return 0;
            }
            if json {
                let said = error.render().to_string();
                let said = said.strip_prefix("error: ").unwrap_or(&said).lines().next().unwrap_or_default();
                return failed(&Error::new(Code::InvalidConfig, said), true);
            }
            let said = match error.kind() {
                // The help, since no command is named.
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    format!("{error}\nkeystead: {}: a command is missing\n", Code::InvalidConfig)
                }
                _ => usage(&error.render().to_string()),
            };
            drop(write!(std::io::stderr(), "{said}"));
            return USAGE;
        }
    };
    let runtime = match runtime().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Error::internal(format!("no runtime could be started: {error}")), json),
    };
    match runtime.block_on(execute(cli.command, &mut std::io::stdout())) {
        Ok(()) => 0,
        Err(error) => failed(&error, json),
    }
}

/// A runtime whose workers leave one core to the log's thread, which is never idle for long under
/// writes; `TOKIO_WORKER_THREADS` says otherwise.
fn runtime() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        builder.worker_threads(cores.saturating_sub(1).max(1));
    }
    builder
}

/// What clap says of wrong usage (the option that was meant is in it), with the code in front.
fn usage(said: &str) -> String {
    let said = said.strip_prefix("error: ").unwrap_or(said);
    format!("keystead: {}: {said}", Code::InvalidConfig)
}

/// One line on standard error, a JSON object for machines; the exit status of the error's code.
fn failed(error: &Error, json: bool) -> u8 {
    let line = match json {
        true => output::error(error).to_string(),
        false => format!("keystead: {}", error.to_string().replace(['\n', '\r'], " ")),
    };
    drop(writeln!(std::io::stderr(), "{line}"));
    error.code.exit_status()
}

async fn connect(connection: &Connection) -> Result<Client> {
    connect_with(connection, ClientConfig::default()).await
}

/// A client whose calls are at these levels.
async fn connect_at(connection: &Connection, read: impl Into<ReadLevel>, ack: impl Into<AckLevel>) -> Result<Client> {
    connect_with(connection, ClientConfig { read: read.into(), ack: ack.into(), ..ClientConfig::default() }).await
}

async fn connect_with(connection: &Connection, config: ClientConfig) -> Result<Client> {
    for endpoint in &connection.endpoint {
        if crate::config::port_of("endpoint", endpoint)? == 0 {
            let what = format!("\"{endpoint}\" names port 0, which cannot be reached");
            return Err(Error::new(Code::InvalidConfig, what).at("option endpoint"));
        }
    }
    let deadline = Duration::from_secs(connection.timeout);
    let connect_deadline = config.connect_deadline.min(deadline);
    let config = ClientConfig { create_maps: true, deadline, connect_deadline, ..config };
    Client::connect(connection.endpoint.clone(), config).await
}

/// Executes a command; what it prints goes to `out`.
///
/// # Errors
/// What the grid answers; `NoSuchKey` for a key that is not there.
pub async fn execute(command: Command, out: &mut (dyn Write + Send)) -> Result<()> {
    match command {
        Command::Put(put) => {
            entries::put(&connect_at(&put.connection, Fresh::default(), put.ack).await?, &put, out).await
        }
        Command::Touch(touch) => entries::touch(&connect(&touch.connection).await?, &touch, out).await,
        Command::Get(get) => {
            entries::get(&connect_at(&get.connection, get.read, Ack::default()).await?, &get, out).await
        }
        Command::Delete(delete) => {
            entries::delete(&connect_at(&delete.connection, Fresh::default(), delete.ack).await?, &delete, out).await
        }
        Command::Incr(incr) => {
            entries::incr(&connect_at(&incr.connection, Fresh::default(), incr.ack).await?, &incr, out).await
        }
        Command::CreateMap(create) => maps::create(&connect(&create.connection).await?, &create, out).await,
        Command::Watch(args) => watch::watch(&connect(&args.connection).await?, &args, out).await,
        Command::Transact(transact) => walks::transact(&connect(&transact.connection).await?, &transact, out).await,
        Command::Scan(scan) => walks::scan(&connect(&scan.connection).await?, &scan, out).await,
        Command::Size(size) => walks::size(&connect(&size.connection).await?, &size, out).await,
        Command::Clear(clear) => walks::clear(&connect(&clear.connection).await?, &clear, out).await,
        Command::Maps(maps) => walks::maps(&connect(&maps.connection).await?, &maps, out).await,
        Command::Drop(drop) => walks::drop(&connect(&drop.connection).await?, &drop, out).await,
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
        Command::Scatter(args) => compute::scatter(&connect(&args.options.connection).await?, &args, out).await,
        Command::WordCount(args) => compute::word_count(&connect(&args.options.connection).await?, &args, out).await,
        Command::TopK(args) => compute::top_k(&connect(&args.options.connection).await?, &args, out).await,
        Command::Job(command) => jobs::job(&connect(jobs::connection(&command)).await?, &command, out).await,
        Command::Jobs(only) => jobs::jobs(&connect(&only.connection).await?, only.connection.json, out).await,
        Command::Cancel(args) => compute::cancel(&connect(&args.connection).await?, &args, out).await,
        Command::Bench(bench) => bench::bench(&connect(&bench.connection).await?, &bench, out).await,
        Command::Start(start) => start::run(*start).await,
        Command::Demo(demo) => demo::demo(&demo, out).await,
        Command::Dev(dev) => dev::dev(&dev, out).await,
    }
}
