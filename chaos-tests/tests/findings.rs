//! Each counterexample of the protocol's models is withstood, by the real code, with a few seeds.

use chaos_tests::scenario::{Finding, findings};
use std::collections::BTreeSet;
use std::process::Command;

/// What was found wrong, if anything.
fn simulate(finding: &Finding, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos-tests"));
    let output = command.args(["simulate", "--scenario", finding.name]).args(arguments).output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    (!output.status.success()).then(|| format!("{} ({}):\n{printed}", finding.name, finding.finding))
}

#[test]
fn every_counterexample_is_withstood() {
    let failed: Vec<String> = findings().iter().filter_map(|finding| simulate(finding, &["--seeds", "0..4"])).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn they_replay_from_their_seeds() {
    for finding in findings().iter().step_by(5) {
        assert_eq!(simulate(finding, &["--seeds", "4..5", "--twice"]), None);
    }
}

#[test]
fn each_has_a_name_of_its_own() {
    let all = findings();
    let names: BTreeSet<&str> = all.iter().map(|finding| finding.name).collect();
    assert_eq!(names.len(), all.len());
}
