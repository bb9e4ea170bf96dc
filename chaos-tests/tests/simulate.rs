//! The binary runs seeds in processes of their own, and says how many passed.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chaos-tests")).arg("simulate").args(arguments).output().expect("it starts")
}

fn assert_passes(arguments: &[&str], seeds: u32) {
    let output = simulate(arguments);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.ends_with(&format!("{seeds} passed, 0 failed\n")), "{printed}");
}

#[test]
fn twenty_grids_keep_their_promises() {
    assert_passes(&["--seeds", "0..20"], 20);
}

#[test]
fn a_grid_replays_from_its_seed() {
    assert_passes(&["--seeds", "20..23", "--twice"], 3);
}

#[test]
fn gossip_and_log_pass_and_replay_from_their_seeds() {
    for scenario in ["gossip", "log"] {
        assert_passes(&["--scenario", scenario, "--seeds", "0..8", "--twice"], 8);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let digest = |seeds: &str| {
        let output = simulate(&["--scenario", "gossip", "--seeds", seeds, "--trace"]);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        printed.lines().find_map(|line| line.split_once("trace ").map(|(_, digest)| digest.to_owned())).expect("told")
    };
    assert_eq!(digest("1..2"), digest("1..2"));
    assert_ne!(digest("1..2"), digest("2..3"));
}

#[test]
fn disks_that_lie_are_found_out() {
    let output = simulate(&["--scenario", "lying-disks", "--seeds", "0..6"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("FAILED") && printed.contains("replay: cargo run -p chaos-tests --release"), "{printed}");
}

#[test]
#[cfg(not(feature = "faults"))]
fn bugs_cannot_be_planted_in_a_build_without_them() {
    let refused = [
        &["mutants"][..],
        &["one", "--seed", "1", "--scenario", "log", "--planted", "cut-tail"],
        &["simulate", "--scenario", "late-proposals", "--seeds", "0..1"],
    ];
    for arguments in refused {
        let output = Command::new(env!("CARGO_BIN_EXE_chaos-tests")).args(arguments).output().expect("it starts");
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("--features faults"));
    }
}

#[test]
fn rot_in_the_log_never_goes_unseen() {
    assert_passes(&["--scenario", "rotten-log", "--seeds", "0..20"], 20);
}

#[test]
fn a_wrong_range_is_refused() {
    let output = simulate(&["--seeds", "20"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected A..B"));
}

#[test]
fn a_table_says_what_was_done() {
    let output = simulate(&["--scenario", "gossip", "--seeds", "0..6"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    for row in ["| seeds ", "| simulated hours ", "| faults ", "| operations ", "| findings "] {
        assert!(printed.lines().any(|line| line.starts_with(row)), "{row} is missing in\n{printed}");
    }
}

#[test]
fn no_seed_begins_when_the_time_is_over() {
    let output = simulate(&["--scenario", "gossip", "--seeds", "0..6", "--minutes", "0"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("the time is over: 0 of 6 seeds ran"), "{printed}");
}
