//! Each planted bug is found by its check, from the seed that is known to find it on.

use std::process::Command;

#[test]
fn each_planted_bug_is_caught() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos-tests")).arg("mutants").output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_bug_that_does_not_exist_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos-tests")).args(["mutants", "--bug", "none"]).output();
    let output = output.expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no bug \"none\"; there are: skip-fsync"));
}
