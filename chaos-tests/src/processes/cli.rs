//! `chaos-tests processes`: rounds until the time is over, then the table.

use super::clients;
use super::fleet::Fleet;
use super::namespace;
use super::nemesis::Nemesis;
use super::pulse::Pulse;
use super::report::{self, Report};
use super::round::{Outcomes, Run};
use super::workload;
use anyhow::Context;
use clap::Args;
use keystead::clock::{self, Instant};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long the first peers may take to found the grid.
const FOUND_WITHIN: Duration = Duration::from_secs(90);
/// Clients, each with sessions of its own.
const CLIENTS: u32 = 8;

/// `processes`.
#[derive(Clone, Debug, Args)]
pub struct ProcessesArgs {
    /// Rounds begin for so long; at least one does.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Peers that found the grid; three to five.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(3..=5))]
    peers: u32,
    /// Decides what is done; default: another each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Partitions of the grid.
    #[arg(long, default_value_t = 8)]
    partitions: u32,
    /// Prints the table as JSON.
    #[arg(long)]
    json: bool,
    /// The program whose `start` is run; default: this one, which hands over to the same code.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Uses the kernel's own faults too (tc netem in a network namespace), where that is permitted.
    #[arg(long)]
    netem: bool,
    /// Says that this is the namespace.
    #[arg(long, hide = true)]
    in_namespace: bool,
    /// Keeps the peers' directory also when everything holds.
    #[arg(long)]
    keep: bool,
}

/// The hidden subcommand with which this program is `keystead`.
pub const AS_KEYSTEAD: &str = "keystead";

/// Runs the rounds.
///
/// # Errors
/// What keeps them from being run, which is no verdict on the grid.
pub fn run(arguments: &ProcessesArgs) -> anyhow::Result<ExitCode> {
    if arguments.netem && !arguments.in_namespace {
        match namespace::permitted() {
            Ok(()) => return Err(namespace::enter(&["--in-namespace"])),
            Err(why) => eprintln!("without netem, which cannot be had here: {why}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = std::env::temp_dir().join(format!("keystead-processes-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let report = runtime.block_on(rounds(arguments, &dir));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let holds = report.as_ref().is_ok_and(|report| report.findings.is_empty());
    if holds && !arguments.keep {
        // What is left of it is in nobody's way.
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        eprintln!("what the peers said is in {0}/n*.log, what was done to them in {0}/timeline.txt,", dir.display());
        eprintln!("what clients were told in {}/round-*.txt; data directories stand beside them", dir.display());
    }
    let report = report?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn rounds(arguments: &ProcessesArgs, dir: &Path) -> anyhow::Result<Report> {
    let seed = arguments.seed.unwrap_or_else(|| keystead::clock::Random::next_u64(&keystead::clock::SystemRandom));
    eprintln!("seed {seed}, {} peers, {} partitions", arguments.peers, arguments.partitions);
    let (path, before) = match &arguments.program {
        Some(path) => (path.clone(), Vec::new()),
        None => (std::env::current_exe()?, vec![AS_KEYSTEAD.to_owned()]),
    };
    let fleet = Fleet::new(seed, dir.to_owned(), path, before, arguments.partitions)?;
    let fleet = Arc::new(tokio::sync::Mutex::new(fleet));
    let pulse = Pulse::start();
    // Another program may have no failpoints.
    let faults = cfg!(feature = "faults") && arguments.program.is_none();
    let (nemesis, settled) = (Nemesis::new(seed, arguments.in_namespace, faults), BTreeMap::new());
    let mut run = Run { seed, fleet: fleet.clone(), nemesis, pulse, clients: CLIENTS, settled };
    let report = all_rounds(arguments, dir, &mut run).await;
    drop(run);
    // Whoever still has a part of it is a task that ends with the runtime; the peers end here.
    if let Some(fleet) = Arc::into_inner(fleet) {
        fleet.into_inner().end().await;
    }
    report
}

async fn all_rounds(arguments: &ProcessesArgs, dir: &Path, run: &mut Run) -> anyhow::Result<Report> {
    let begun = Instant::now();
    found(run, arguments.peers).await?;
    let mut report = Report::default();
    loop {
        let round = report.rounds + 1;
        let before: u64 = report.faults.values().sum();
        let outcomes = run.round(round).await?;
        report.add(&outcomes, workload::keys(round).len());
        {
            let timeline = &run.fleet.lock().await.timeline;
            (report.faults, report.spared) = (timeline.faults(), timeline.spared());
        }
        report.minutes = begun.elapsed().as_secs_f64() / 60.0;
        eprintln!("{}", report::line(round, &outcomes, report.faults.values().sum::<u64>() - before));
        if !outcomes.violations.is_empty() {
            tell(run, dir, round, &outcomes).await?;
            return Ok(report);
        }
        if begun.elapsed().as_secs_f64() >= arguments.minutes * 60.0 {
            return Ok(report);
        }
    }
}

/// Starts the first peers, and waits until they serve.
async fn found(run: &Run, peers: u32) -> anyhow::Result<()> {
    run.fleet.lock().await.found(peers).await?;
    let lacks = || async {
        let mut fleet = run.fleet.lock().await;
        if let Err(error) = fleet.look().await {
            return Some(format!("{error:#}"));
        }
        for peer in fleet.peers() {
            if let Some(what) = peer.not_ready().await {
                return Some(what);
            }
        }
        None
    };
    let found = run.pulse.until(FOUND_WITHIN, lacks).await;
    found.map_err(|what| anyhow::anyhow!("the grid was not founded: {what}"))?;
    let client = run.judge().await?;
    let lacks = || async { clients::create_map(&client).await.err().map(|error| error.to_string()) };
    let created = run.pulse.until(FOUND_WITHIN, lacks).await;
    created.map(drop).map_err(|what| anyhow::anyhow!("there is no map: {what}"))
}

/// Says what is broken, and leaves everything where it can be looked at.
async fn tell(run: &Run, dir: &Path, round: u32, outcomes: &Outcomes) -> anyhow::Result<()> {
    report::write_history(&dir.join(format!("round-{round}.txt")), &outcomes.operations)?;
    for violation in &outcomes.violations {
        println!("round {round} FAILED: {violation}");
        run.fleet.lock().await.timeline.note(violation);
    }
    // The logs' last lines are written.
    clock::sleep(Duration::from_millis(500)).await;
    Ok(())
}
