//! The simulator's command line: runs seeds, one process each, and says which fail.

use anyhow::{Context, bail};
use chaos_tests::runner::{self, Scenario, Verdict};
use chaos_tests::{mutants, processes, scenario, tally, trace};
use clap::{Parser, Subcommand};
use keystead::clock::Instant;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Runs Keystead nodes in simulation.
#[derive(Parser)]
#[command(name = "chaos-tests")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs a range of seeds. Example: simulate --seeds 0..200
    Simulate {
        /// The seeds, the last one excluded.
        #[arg(long, value_parser = parse_seeds)]
        seeds: Range<u64>,
        /// Begins no more seeds after so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// Processes at a time; default: one per core.
        #[arg(long)]
        jobs: Option<usize>,
        /// Prints the whole trace of each seed.
        #[arg(long)]
        trace: bool,
        /// Runs each seed twice and compares the traces.
        #[arg(long)]
        twice: bool,
        /// Which scenario.
        #[arg(long, default_value = "grid")]
        scenario: String,
        /// Seconds of real time after which a seed counts as hung.
        #[arg(long, default_value_t = 120)]
        hung_after: u64,
    },
    /// Lets real peers die at each failpoint. Example: crashes --point roll-before-create
    #[cfg(feature = "faults")]
    Crashes {
        /// A failpoint; all without one.
        #[arg(long)]
        point: Vec<String>,
        /// Keeps the peers' data and logs here; else they go with the run.
        #[arg(long)]
        keep: Option<std::path::PathBuf>,
    },
    /// A peer of the command crashes.
    #[cfg(feature = "faults")]
    #[command(hide = true)]
    CrashPeer(chaos_tests::crashes::PeerArgs),
    /// Runs real peers under faults. Example: processes --minutes 30
    Processes(processes::cli::ProcessesArgs),
    /// Runs as `keystead` itself.
    #[command(hide = true, name = processes::cli::AS_KEYSTEAD, disable_help_flag = true)]
    Keystead {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Runs one seed in this process and prints the verdict as JSON.
    #[command(hide = true)]
    One {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        trace: bool,
        #[arg(long)]
        scenario: String,
        /// A bug that the process has; see `mutants`.
        #[arg(long)]
        planted: Option<String>,
        /// What the peers log, to standard error; a filter such as info or keystead=debug.
        #[arg(long)]
        log: Option<String>,
    },
    /// Plants known bugs, one at a time, and sees that the named checks find them. Needs the feature `faults`.
    Mutants(mutants::Arguments),
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("expected A..B, for example 0..200")?;
    let number = |part: &str| part.parse::<u64>().map_err(|error| format!("{part:?}: {error}"));
    Ok(number(first)?..number(end)?)
}

fn named(scenario: &str) -> anyhow::Result<Scenario> {
    match scenario {
        "gossip" => Ok(scenario::gossip),
        "grid" => Ok(scenario::grid),
        "harsh" => Ok(scenario::harsh),
        "lying-disks" => Ok(scenario::grid_on_lying_disks),
        "log" => Ok(scenario::log),
        "apart" => Ok(scenario::apart),
        "late-proposals" if cfg!(not(feature = "faults")) => {
            bail!("this build can lose no proposals, which `late-proposals` needs: build it with `--features faults`")
        }
        "late-proposals" => Ok(scenario::late_proposals),
        "local-reads" => Ok(scenario::local_reads),
        "moves" => Ok(scenario::moves),
        "rotten-log" => Ok(scenario::rotten_log),
        other => match scenario::findings().into_iter().find(|finding| finding.name == other) {
            Some(finding) => Ok(finding.run),
            None => bail!(
                "there is no scenario {other:?}; there are: grid, harsh, apart, gossip, log, lying-disks, late-proposals, local-reads, moves, rotten-log, and findings"
            ),
        },
    }
}

/// A verdict as one process tells another.
#[derive(Serialize, Deserialize)]
struct Report {
    seed: u64,
    violations: Vec<String>,
    digest: u64,
    events: u64,
    lines: Vec<String>,
    counts: tally::Counts,
}

impl From<Verdict> for Report {
    fn from(verdict: Verdict) -> Self {
        Report {
            seed: verdict.seed,
            violations: verdict.violations.iter().map(ToString::to_string).collect(),
            digest: verdict.trace.digest,
            events: verdict.trace.events,
            lines: verdict.trace.lines,
            counts: verdict.counts,
        }
    }
}

/// Shows what the peers log, each line with the simulation's time and the host.
fn show_log(filter: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::builder().parse(format!("turmoil=info,{filter}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_timer(SimulatedTime);
    log.with_writer(std::io::stderr).try_init().map_err(|error| anyhow::anyhow!("{error}"))
}

struct SimulatedTime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, into: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(into, "{:>12.6}", trace::now().as_secs_f64())
    }
}

struct Options {
    scenario: String,
    trace: bool,
    twice: bool,
    hung_after: Duration,
    minutes: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Task::Processes(arguments) => processes::cli::run(&arguments),
        Task::Keystead { arguments } => {
            let program = std::iter::once(std::ffi::OsString::from(processes::cli::AS_KEYSTEAD));
            Ok(ExitCode::from(keystead::cli::run(program.chain(arguments))))
        }
        Task::One { seed, trace, scenario, planted, log } => {
            planted.map_or(Ok(()), |name| mutants::plant(&name))?;
            if let Some(filter) = log {
                show_log(&filter)?;
            }
            let keep = if trace { trace::Keep::All } else { trace::Keep::Last };
            let report = Report::from(runner::run(seed, keep, named(&scenario)?));
            println!("{}", serde_json::to_string(&report)?);
            Ok(ExitCode::SUCCESS)
        }
        Task::Mutants(arguments) => mutants::run(&arguments),
        Task::Simulate { seeds, minutes, jobs, trace, twice, scenario, hung_after } => {
            named(&scenario)?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let options = Options { scenario, trace, twice, hung_after: Duration::from_secs(hung_after), minutes };
            simulate(seeds, jobs.unwrap_or(cores).max(1), &options)
        }
        #[cfg(feature = "faults")]
        Task::Crashes { point, keep } => crashes(point, keep),
        #[cfg(feature = "faults")]
        Task::CrashPeer(peer) => chaos_tests::crashes::run_peer(peer).map(|()| ExitCode::SUCCESS),
    }
}

#[cfg(feature = "faults")]
fn crashes(points: Vec<String>, keep: Option<std::path::PathBuf>) -> anyhow::Result<ExitCode> {
    use chaos_tests::crashes;
    let temporary = tempfile::tempdir()?;
    let dir = keep.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    let options = crashes::Options { points, program: std::env::current_exe()?, dir };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let table = runtime.block_on(crashes::run(&options, |row| eprintln!("{row}")))?;
    print!("{table}");
    Ok(if table.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn simulate(seeds: Range<u64>, jobs: usize, options: &Options) -> anyhow::Result<ExitCode> {
    let all = seeds.end.saturating_sub(seeds.start);
    let waiting = Mutex::new(seeds.collect::<VecDeque<u64>>());
    let (sender, reports) = mpsc::channel();
    let (mut passed, mut failed) = (0_u64, Vec::new());
    let mut table = tally::Table::default();
    // Real time: it ends the run, and decides nothing in it.
    let until = options.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let is_over = || until.is_some_and(|until| Instant::now() >= until);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, waiting) = (sender.clone(), &waiting);
            scope.spawn(move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(seed) = next.filter(|_| !is_over()) else { return };
                    let report = run_seed(seed, options).unwrap_or_else(|error| broken(seed, &error));
                    if sender.send(report).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in reports {
            show(&report, options);
            table.seed(&report.counts, report.violations.len());
            if report.violations.is_empty() {
                passed += 1;
            } else {
                failed.push(report.seed);
            }
            let done = passed + failed.len() as u64;
            if done.is_multiple_of(50) && done < all {
                eprintln!("{done} of {all} seeds, {} failed", failed.len());
            }
        }
    });
    let ran = passed + failed.len() as u64;
    println!("{table}");
    if ran < all {
        println!("the time is over: {ran} of {all} seeds ran");
    }
    println!("{passed} passed, {} failed", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn broken(seed: u64, error: &anyhow::Error) -> Report {
    Report {
        seed,
        violations: vec![format!("runner: {error:#}")],
        digest: 0,
        events: 0,
        lines: Vec::new(),
        counts: tally::Counts::new(),
    }
}

fn run_seed(seed: u64, options: &Options) -> anyhow::Result<Report> {
    let mut report = run_process(seed, options)?;
    if options.twice {
        let again = run_process(seed, options)?;
        if (again.digest, again.events) != (report.digest, report.events) {
            report.violations.push(format!(
                "determinism: the same seed gave trace {:016x} of {} events, then {:016x} of {}",
                report.digest, report.events, again.digest, again.events
            ));
        }
    }
    Ok(report)
}

fn run_process(seed: u64, options: &Options) -> anyhow::Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["one", "--seed", &seed.to_string(), "--scenario", &options.scenario]);
    if options.trace {
        command.arg("--trace");
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let output = wait(child, options.hung_after)?;
    serde_json::from_slice(&output).context("the process gave no verdict")
}

/// Waits for the process, which is ended when it takes too long.
fn wait(child: Child, at_most: Duration) -> anyhow::Result<Vec<u8>> {
    let id = child.id();
    let (sender, ended) = mpsc::channel();
    let waiter = std::thread::Builder::new().spawn(move || drop(sender.send(child.wait_with_output())))?;
    let Ok(output) = ended.recv_timeout(at_most) else {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        let _ = waiter.join();
        bail!("hung for {} s of real time", at_most.as_secs());
    };
    let output = output?;
    if !output.status.success() {
        bail!("the process ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn show(report: &Report, options: &Options) {
    if report.violations.is_empty() && !options.trace {
        return;
    }
    report.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {}: {} events, trace {:016x}", report.seed, report.events, report.digest);
    for violation in &report.violations {
        println!("seed {} FAILED: {violation}", report.seed);
    }
    if !report.violations.is_empty() {
        let seeds = format!("{}..{}", report.seed, report.seed + 1);
        let features = if cfg!(feature = "faults") { " --features faults" } else { "" };
        let scenario = &options.scenario;
        println!(
            "replay: cargo run -p chaos-tests --release{features} -- simulate --scenario {scenario} --seeds {seeds} --trace"
        );
    }
}
