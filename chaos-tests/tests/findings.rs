//! Each counterexample of the protocol's models is withstood, by the real code, with a few seeds.

use chaos_tests::scenario::{Finding, findings};
use std::collections::BTreeSet;
use std::process::Command;

fn simulate(finding: &Finding, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos-tests"));
    let output = command.args(["simulate", "--scenario", finding.name]).args(arguments).output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{} ({}):\n{printed}", finding.name, finding.finding);
}

#[test]
fn every_counterexample_is_withstood() {
    findings().iter().for_each(|finding| simulate(finding, &["--seeds", "0..4"]));
}

#[test]
fn they_replay_from_their_seeds() {
    findings().iter().step_by(5).for_each(|finding| simulate(finding, &["--seeds", "4..5", "--twice"]));
}

#[test]
fn each_has_a_name_of_its_own() {
    let all = findings();
    let names: BTreeSet<&str> = all.iter().map(|finding| finding.name).collect();
    assert_eq!(names.len(), all.len());
}
