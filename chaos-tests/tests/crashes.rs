//! Real peers that die at some of their steps, and one whose disk is full. The whole suite is the command
//! `crashes`.

use std::process::Command;

#[test]
fn peers_that_die_at_a_step_lose_nothing_that_was_acknowledged() {
    let points = ["log-half-written", "roll-before-sync-dir", "sled-before-meta", "install-before-swap", "log-full"];
    let named = points.iter().flat_map(|point| ["--point", point]);
    let output =
        Command::new(env!("CARGO_BIN_EXE_chaos-tests")).arg("crashes").args(named).output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    for point in points {
        assert!(printed.contains(point), "{told}");
    }
}

#[test]
fn a_point_that_is_not_there_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos-tests"));
    let output = command.args(["crashes", "--point", "nowhere"]).output().expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no failpoint"), "it says so");
}
