//! The simulator tested on a toy with planted bugs: a primary that copies its writes to a backup.
//! A correct toy passes every seed; each bug is found from some seed; a seed replays itself.

mod client;
mod server;

use chaos_tests::checks::{self, Violation};
use chaos_tests::dice::Dice;
use chaos_tests::history::History;
use chaos_tests::nemesis::{Kinds, Plan, Profile};
use chaos_tests::runner::{self, Scenario};
use chaos_tests::simulation::Simulation;
use chaos_tests::trace::Keep;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// What is wrong with the toy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    Nothing,
    /// The primary answers before its disk has the write.
    AnswersBeforeSync,
    /// Reads are served by the backup, writes answered before it has them.
    ReadsFromBackup,
    /// The primary does not remember which requests it has executed.
    ForgetsRequests,
}

const QUIET_FROM: Duration = Duration::from_secs(8);
const AT_MOST: Duration = Duration::from_secs(20);

fn toy(seed: u64, bug: Bug) -> Vec<Violation> {
    let mut simulation = Simulation::new(seed, AT_MOST);
    for name in ["primary", "backup"] {
        simulation.machine(name, move |life| server::serve(life, bug));
    }
    let history = History::default();
    let finals = Rc::new(RefCell::new(checks::Finals::new()));
    for number in 0..3 {
        let (history, finals) = (history.clone(), finals.clone());
        simulation.client(&format!("client{number}"), move |life| async move {
            client::work(&life, seed, number, bug, &history).await;
            if number == 0 {
                finals.replace(client::read_all(&life, &history).await);
            }
        });
    }
    let profile = Profile {
        nodes: 2,
        calm_until: Duration::from_millis(200),
        quiet_from: QUIET_FROM,
        pause_max: Duration::from_millis(900),
        fault_max: Duration::from_millis(1500),
        kinds: Kinds::plain(),
    };
    let plan = Plan::draw(&mut Dice::new(seed, "nemesis"), &profile);
    let mut violations: Vec<Violation> =
        simulation.run(plan).err().map(|what| Violation { check: "all finish", what }).into_iter().collect();
    let operations = history.operations();
    violations.extend(checks::linearizable(&operations));
    violations.extend(checks::kept(&operations, &finals.borrow()));
    violations.extend(checks::once_in_counters(&operations, &finals.borrow()));
    violations
}

/// The checks that failed in these seeds, with the first seed of each.
fn found(seeds: u64, scenario: Scenario) -> std::collections::BTreeMap<&'static str, u64> {
    let mut found = std::collections::BTreeMap::new();
    for seed in 0..seeds {
        for violation in runner::run(seed, Keep::Last, scenario).violations {
            found.entry(violation.check).or_insert(seed);
        }
    }
    found
}

#[test]
fn a_correct_toy_passes() {
    for seed in 0..30 {
        let verdict = runner::run(seed, Keep::Last, |seed| toy(seed, Bug::Nothing));
        assert!(verdict.passed(), "seed {seed}: {:?}\n{}", verdict.violations, verdict.trace.lines.join("\n"));
    }
}

#[test]
fn an_answer_before_the_sync_is_found_as_a_lost_write() {
    let found = found(30, |seed| toy(seed, Bug::AnswersBeforeSync));
    assert!(found.contains_key("linearizability") && found.contains_key("no acknowledged write lost"), "{found:?}");
}

#[test]
fn a_read_from_a_lagging_backup_is_found_as_stale() {
    let found = found(30, |seed| toy(seed, Bug::ReadsFromBackup));
    assert!(found.contains_key("linearizability"), "{found:?}");
}

#[test]
fn a_retry_that_runs_twice_is_found() {
    let found = found(30, |seed| toy(seed, Bug::ForgetsRequests));
    assert!(found.contains_key("each request once"), "{found:?}");
}

/// The variable that asks [`one_run`] for a seed.
const SEED: &str = "TOY_SEED";

/// Prints one run, if a parent asks for it: a seed replays in a process of its own only, since
/// tokio's and futures' own generators count across the whole process.
#[test]
fn one_run() {
    let Some(seed) = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()) else { return };
    let run = runner::run(seed, Keep::All, |seed| toy(seed, Bug::AnswersBeforeSync));
    assert!(run.trace.events > 500, "a run in which nothing happens proves nothing");
    println!("{:?}", run.violations);
    println!("{:?}", run.trace.lines);
}

#[test]
fn a_seed_replays_itself() {
    let own = std::env::current_exe().expect("the test's own program");
    for seed in 0..5 {
        let run = || {
            let mut command = std::process::Command::new(&own);
            command.args(["one_run", "--exact", "--nocapture"]).env(SEED, seed.to_string());
            let output = command.output().expect("it runs");
            assert!(output.status.success(), "{output:?}");
            // The runner's own lines name the time that it took.
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect::<Vec<_>>()
        };
        let (first, second) = (run(), run());
        assert_eq!(first.len(), 2, "the violations and the trace: {first:?}");
        assert_eq!(first, second, "seed {seed}");
    }
}
