//! The binary runs seeds, each twice in processes of their own, and says how many passed.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chaos-tests")).arg("simulate").args(arguments).output().expect("it starts")
}

#[test]
fn twenty_seeds_pass_and_replay_themselves() {
    let output = simulate(&["--seeds", "0..20", "--twice"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.ends_with("20 passed, 0 failed\n"), "{printed}");
}

#[test]
fn a_wrong_range_is_refused() {
    let output = simulate(&["--seeds", "20"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected A..B"));
}
