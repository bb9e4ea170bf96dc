//! Checks the checkers: each planted bug must be found by the check that is named for it, and the
//! unchanged code must pass the very seeds that found it.
//!
//! In: bugs and a range of seeds. Out: a table of bug, scenario, check, first seed, seeds needed.
//! Each seed runs in a process of its own (`one --planted NAME`), so that a bug never leaks from
//! one run into the next. Needs the feature `faults`; without it a bug cannot be chosen.

use anyhow::{Context, bail};
use clap::Args;
use keystead::planted::Bug;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// Seconds of real time after which a run counts as hung. A bug may well make it so: that is no
/// violation of a named check.
const HUNG_AFTER: Duration = Duration::from_secs(300);

/// What `mutants` is asked.
#[derive(Args, Debug)]
pub struct Arguments {
    /// One bug; default: all.
    #[arg(long)]
    bug: Option<String>,
    /// Seeds to try, the last one excluded; default: from the seed that is known to find the bug.
    #[arg(long, value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// Processes at a time; default: one per core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints the table as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("expected A..B, for example 0..1000")?;
    let number = |part: &str| part.parse::<u64>().map_err(|error| format!("{part:?}: {error}"));
    Ok(number(first)?..number(end)?)
}

/// Where a bug is looked for, and what must find it.
struct Mutant {
    bug: Bug,
    scenario: &'static str,
    /// One of these checks must report it; other violations do not count.
    checks: &'static [&'static str],
    /// The first seed of 0.. that finds it.
    known: u64,
}

const LOST: &[&str] = &["no acknowledged write lost", "linearizability", "each request once"];

const TWICE: &[&str] = &["each request once", "linearizability"];

const MEMORY: &[&str] = &["no word of a replica that lost its memory"];

/// All planted bugs, some of them twice: a test of its own part finds a bug at once, and whole peers must
/// find it as well.
const MUTANTS: &[Mutant] = &[
    Mutant { bug: Bug::SkipFsync, scenario: "grid", checks: LOST, known: 1 },
    Mutant { bug: Bug::SkipFencing, scenario: "late-proposals", checks: LOST, known: 0 },
    Mutant { bug: Bug::SkipBatchNumber, scenario: "late-proposals", checks: LOST, known: 6 },
    Mutant { bug: Bug::ApplyTwice, scenario: "grid", checks: TWICE, known: 0 },
    Mutant { bug: Bug::ForgetSessions, scenario: "grid", checks: TWICE, known: 6 },
    Mutant { bug: Bug::StaleRead, scenario: "a3-deposed-leader-reads", checks: &["finding"], known: 0 },
    Mutant { bug: Bug::StaleRead, scenario: "apart", checks: &["linearizability"], known: 1 },
    Mutant { bug: Bug::OldReplicaId, scenario: "rotten-log", checks: &["log"], known: 0 },
    Mutant { bug: Bug::OldReplicaId, scenario: "harsh", checks: MEMORY, known: 31 },
    Mutant { bug: Bug::CutTail, scenario: "rotten-log", checks: &["log"], known: 0 },
    Mutant { bug: Bug::CutTail, scenario: "harsh", checks: MEMORY, known: 31 },
    Mutant { bug: Bug::IgnoreChecksum, scenario: "rotten-log", checks: &["log"], known: 0 },
    Mutant { bug: Bug::ServeEarly, scenario: "local-reads", checks: &["local reads agree"], known: 0 },
    Mutant { bug: Bug::PromoteEarly, scenario: "moves", checks: &["live copies"], known: 23 },
    Mutant { bug: Bug::AppliedTooLow, scenario: "local-reads", checks: &["a peer goes on"], known: 5 },
];

/// How many seeds from the known one on are tried when none are named: the first should do.
const FROM_KNOWN: u64 = 25;

/// Gives this process a bug.
///
/// # Errors
/// For a name that is none, and in a build that cannot have bugs.
pub fn plant(name: &str) -> anyhow::Result<()> {
    let bug = named(name)?;
    choose(bug)
}

fn named(name: &str) -> anyhow::Result<Bug> {
    let all: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    Bug::named(name).with_context(|| format!("there is no bug {name:?}; there are: {}", all.join(", ")))
}

#[cfg(feature = "faults")]
fn choose(bug: Bug) -> anyhow::Result<()> {
    keystead::planted::choose(bug);
    Ok(())
}

#[cfg(not(feature = "faults"))]
fn choose(_: Bug) -> anyhow::Result<()> {
    bail!("this build can have no planted bugs: build it with `--features faults`")
}

/// What a run's process says, as far as it matters here.
#[derive(Deserialize)]
struct Report {
    violations: Vec<String>,
}

/// What came of a bug.
#[derive(Serialize)]
struct Row {
    bug: &'static str,
    scenario: &'static str,
    /// The check that reported it; empty if none did.
    check: String,
    first_seed: Option<u64>,
    seeds_needed: u64,
    seconds: f64,
    /// What the unchanged code was reported for on the same seeds.
    unchanged: Vec<String>,
    /// Violations by other checks, of the seeds before.
    others: BTreeMap<String, u64>,
}

impl Row {
    fn passed(&self) -> bool {
        self.first_seed.is_some() && self.unchanged.is_empty()
    }
}

/// Runs the subcommand.
///
/// # Errors
/// When no process can be started, or the build can have no bugs.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if cfg!(not(feature = "faults")) {
        bail!("`mutants` needs planted bugs: run `cargo run -p chaos-tests --release --features faults -- mutants`");
    }
    let wanted = arguments.bug.as_deref().map(named).transpose()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores).max(1);
    let mut clean = Clean::default();
    let mut rows = Vec::new();
    for mutant in MUTANTS.iter().filter(|mutant| wanted.is_none_or(|bug| bug == mutant.bug)) {
        let seeds = arguments.seeds.clone().unwrap_or(mutant.known..mutant.known + FROM_KNOWN);
        let row = judge(mutant, seeds, jobs, &mut clean)?;
        if !arguments.json {
            eprintln!("{}: {}", row.bug, row.first_seed.map_or("not caught".to_owned(), |seed| format!("seed {seed}")));
        }
        rows.push(row);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        show(&rows);
    }
    Ok(if rows.iter().all(Row::passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(rows: &[Row]) {
    println!("| bug | scenario | check | first seed | seeds needed | seconds |\n|---|---|---|---|---|---|");
    for row in rows {
        let first = row.first_seed.map_or("not caught".to_owned(), |seed| seed.to_string());
        let Row { bug, scenario, check, seeds_needed, seconds, .. } = row;
        println!("| {bug} | {scenario} | {check} | {first} | {seeds_needed} | {seconds:.1} |");
    }
    for row in rows {
        for what in &row.unchanged {
            println!("{}: the unchanged code is reported as well: {what}", row.bug);
        }
        if row.first_seed.is_none() {
            println!("{}: not caught; other checks reported {:?}", row.bug, row.others);
        }
    }
}

/// What the unchanged code was reported for, by scenario and seed: several bugs share them.
type Clean = BTreeMap<(&'static str, u64), Vec<String>>;

fn judge(mutant: &Mutant, seeds: Range<u64>, jobs: usize, clean: &mut Clean) -> anyhow::Result<Row> {
    let begun = keystead::clock::Instant::now();
    let name = mutant.bug.name();
    let is_named = |violation: &String| check_of(violation).is_some_and(|check| mutant.checks.contains(&check));
    let tried = each(seeds.clone(), jobs, Some(name), mutant.scenario, |found| found.iter().any(is_named))?;
    let caught = tried.iter().find_map(|(seed, found)| Some((*seed, found.iter().find(|what| is_named(what))?)));
    let mut others = BTreeMap::new();
    for what in tried.values().flatten().filter(|what| !is_named(what)) {
        *others.entry(check_of(what).unwrap_or(what).to_owned()).or_default() += 1;
    }
    let last = caught.map_or(seeds.end, |(seed, _)| seed + 1);
    let mut unchanged = Vec::new();
    if caught.is_some() {
        let missing: Vec<u64> =
            (seeds.start..last).filter(|seed| !clean.contains_key(&(mutant.scenario, *seed))).collect();
        for (seed, found) in each(missing, jobs, None, mutant.scenario, |_| false)? {
            clean.insert((mutant.scenario, seed), found);
        }
        let of_seed = |seed| clean.get(&(mutant.scenario, seed)).into_iter().flatten().map(move |what| (seed, what));
        unchanged = (seeds.start..last).flat_map(of_seed).map(|(seed, what)| format!("seed {seed}: {what}")).collect();
    }
    Ok(Row {
        bug: name,
        scenario: mutant.scenario,
        check: caught.and_then(|(_, what)| check_of(what)).unwrap_or_default().to_owned(),
        first_seed: caught.map(|(seed, _)| seed),
        seeds_needed: last - seeds.start,
        seconds: begun.elapsed().as_secs_f64(),
        unchanged,
        others,
    })
}

/// The check that a violation's text begins with.
fn check_of(violation: &str) -> Option<&str> {
    violation.split_once(": ").map(|(check, _)| check)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs seeds, in order, until one of them is the last that matters; gives what each was reported
/// for. All before the last have run.
fn each(
    seeds: impl IntoIterator<Item = u64>,
    jobs: usize,
    bug: Option<&str>,
    scenario: &str,
    is_last: impl Fn(&[String]) -> bool + Sync,
) -> anyhow::Result<BTreeMap<u64, Vec<String>>> {
    let waiting: Mutex<Vec<u64>> = Mutex::new(seeds.into_iter().collect());
    lock(&waiting).sort_unstable_by(|a, b| b.cmp(a));
    let (found, failed) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
    let last = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(seed) = lock(&waiting).pop() else { return };
                    if seed > last.load(Ordering::Relaxed) || lock(&failed).is_some() {
                        return;
                    }
                    match run_one(seed, bug, scenario) {
                        Ok(violations) => {
                            if is_last(&violations) {
                                last.fetch_min(seed, Ordering::Relaxed);
                            }
                            lock(&found).insert(seed, violations);
                        }
                        Err(error) => *lock(&failed) = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.retain(|seed, _| *seed <= last.load(Ordering::Relaxed));
    Ok(found)
}

/// One seed in a process of its own; a process that does not end well is a violation, too.
fn run_one(seed: u64, bug: Option<&str>, scenario: &str) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["one", "--seed", &seed.to_string(), "--scenario", scenario]);
    command.args(bug.iter().flat_map(|bug| ["--planted", bug]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    Ok(wait(child).map_or_else(|error| vec![format!("runner: {error:#}")], |report| report.violations))
}

fn wait(child: Child) -> anyhow::Result<Report> {
    let id = child.id();
    let (sender, ended) = mpsc::channel();
    let waiter = std::thread::Builder::new().spawn(move || drop(sender.send(child.wait_with_output())))?;
    let Ok(output) = ended.recv_timeout(HUNG_AFTER) else {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        let _ = waiter.join();
        bail!("hung for {} s of real time", HUNG_AFTER.as_secs());
    };
    let output = output?;
    if !output.status.success() {
        bail!("the process ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("the process gave no verdict")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_bug_is_looked_for_and_nowhere_twice() {
        let mut looked_for: Vec<Bug> = MUTANTS.iter().map(|mutant| mutant.bug).collect();
        looked_for.dedup();
        assert_eq!(looked_for, Bug::ALL);
        let places: BTreeSet<(&str, &str)> =
            MUTANTS.iter().map(|mutant| (mutant.bug.name(), mutant.scenario)).collect();
        assert_eq!(places.len(), MUTANTS.len());
    }

    #[test]
    fn a_violation_names_its_check() {
        assert_eq!(check_of("linearizability: key r0: no order"), Some("linearizability"));
        assert_eq!(check_of("nothing"), None);
    }
}
