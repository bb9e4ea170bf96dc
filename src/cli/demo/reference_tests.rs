//! The computation beside the grid against the reference program, on the real input. Both lie
//! beside the project, not in it: without them there is nothing to compare and the test says so.

use super::{expected, output, retail};
use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_computation_equals_the_reference_program() {
    let shared = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let (input, program) = (shared.join("data/retail.csv"), shared.join("reference/rolling_total.py"));
    if !input.exists() || !program.exists() {
        eprintln!("skipped: ../shared has no data/retail.csv or no reference/rolling_total.py");
        return;
    }
    let reference = match Command::new("python3").arg(&program).arg(&input).output() {
        Ok(run) if run.status.success() => run.stdout,
        Ok(run) => panic!("the reference program failed: {}", String::from_utf8_lossy(&run.stderr)),
        Err(error) => {
            eprintln!("skipped: python3 cannot be run: {error}");
            return;
        }
    };
    let events = retail::read_file(&input, false).expect("the real input is readable").events;
    assert_eq!(events.len(), 28_000);
    let ours = output::to_bytes(&events, &expected::totals(&events));
    assert!(ours == reference, "the outputs differ");
}
