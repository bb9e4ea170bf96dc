//! The demo from outside, as a process: every answer agrees though a peer is killed and one joins, and nothing is
//! left behind, however it ends.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a step may take; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The demo with a directory of its own for temporary files.
fn demo(temporary: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    command.arg("demo").args(args).env("TMPDIR", temporary.path()).stderr(Stdio::null());
    command
}

/// Processes that run with a file below the directory: the demo's peers.
fn peers(temporary: &TempDir) -> usize {
    let wanted = temporary.path().to_string_lossy().into_owned();
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let numbered = processes.filter(|entry| is_number(&entry.file_name().to_string_lossy()));
    let lines = numbered.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(&wanted)).count()
}

#[allow(clippy::disallowed_methods)]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("the directory").next().is_none()
}

/// A demo that would run for minutes, with its peers up.
fn long_demo(temporary: &TempDir) -> Child {
    let demo = demo(temporary, &["--events", "100000", "--rate", "200"]).stdout(Stdio::null()).spawn();
    let demo = demo.expect("the demo starts");
    wait_until("three peers", || peers(temporary) == 3);
    demo
}

#[test]
fn every_answer_agrees_though_a_peer_is_killed() {
    let temporary = tempfile::tempdir().expect("a directory");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let output = elsewhere.path().join("totals.csv");
    let path = output.to_string_lossy().into_owned();
    let mut run = demo(&temporary, &["--events", "36000", "--rate", "400", "--json", "--output", &path]);
    // What is meant for other peers changes nothing for the demo's.
    run.env("KEYSTEAD_REPLICAS", "1").env("KEYSTEAD_BACKEND", "none").env("KEYSTEAD_CONFIG", "/nowhere");
    let run = run.output().expect("the demo runs");
    let figures: serde_json::Value = serde_json::from_slice(&run.stdout).expect("one JSON object");
    assert!(run.status.success(), "{figures:#}");
    assert_eq!(figures["agrees"], true);
    assert_eq!(figures["answered"], 36000);
    assert_eq!(figures["joiner_led"], true, "{figures:#}");
    assert!(figures["answers_by_peer"]["n4"].as_u64() >= Some(1800), "{figures:#}");
    assert_eq!(figures["state_reads_over_network"], 0);
    assert!(figures["killed_led_partitions"].as_u64() > Some(0), "{figures:#}");
    let totals = std::fs::read_to_string(output).expect("the answers");
    assert_eq!(totals.lines().next(), Some("row,customer,total_pence"));
    assert_eq!(totals.lines().count(), 36001);
    assert_eq!(peers(&temporary), 0);
    assert!(is_empty(temporary.path()));
}

#[test]
fn a_demo_that_ends_before_the_joined_peer_leads_fails_and_says_why() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut run = demo(&temporary, &["--events", "2000", "--rate", "4000", "--json"]);
    let run = run.stderr(Stdio::piped()).output().expect("the demo runs");
    let figures: serde_json::Value = serde_json::from_slice(&run.stdout).expect("one JSON object");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{figures:#} {said}");
    assert_eq!((&figures["agrees"], &figures["joiner_led"]), (&true.into(), &false.into()), "{said}");
    let last = said.lines().last().unwrap_or_default();
    for word in ["KS3004", "peer n4 joined and answered", "less than 5 %", "its last words: ", "use more events"] {
        assert!(last.contains(word), "{word:?} is not in {said}");
    }
    assert_eq!(peers(&temporary), 0);
    assert!(is_empty(temporary.path()));
}

#[test]
fn a_demo_without_a_rate_waits_for_the_joined_peer() {
    let temporary = tempfile::tempdir().expect("a directory");
    let run = demo(&temporary, &["--events", "6000", "--rate", "0", "--json"]).output().expect("the demo runs");
    let figures: serde_json::Value = serde_json::from_slice(&run.stdout).expect("one JSON object");
    assert!(run.status.success(), "{figures:#}");
    assert_eq!((&figures["agrees"], &figures["joiner_led"]), (&true.into(), &true.into()), "{figures:#}");
    let (waited, seconds) = (figures["waited_for_joiner_s"].as_f64(), figures["seconds"].as_f64());
    assert!(waited > Some(0.0) && waited < seconds, "{figures:#}");
    assert!(figures["longest_gap_after_kill_ms"].as_f64() < seconds.map(|seconds| seconds * 1e3), "{figures:#}");
}

#[test]
fn a_demo_that_is_told_to_stop_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut demo = long_demo(&temporary);
    let told = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill runs");
    assert!(told.success());
    assert_eq!(demo.wait().expect("it ends").code(), Some(1));
    assert_eq!(peers(&temporary), 0);
    assert!(is_empty(temporary.path()));
}

#[test]
fn the_peers_of_a_killed_demo_end_with_it() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut demo = long_demo(&temporary);
    demo.kill().expect("it runs");
    demo.wait().expect("it ends");
    wait_until("the end of the peers", || peers(&temporary) == 0);
}
