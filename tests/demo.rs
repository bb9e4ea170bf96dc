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
    let run = demo(&temporary, &["--events", "36000", "--rate", "400", "--json", "--output", &path]).output();
    let run = run.expect("the demo runs");
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
