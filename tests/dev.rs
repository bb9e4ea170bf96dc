//! `keystead dev` as a process: what is typed is done, and the looks show it.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods)]

use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a step may take; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(90);

/// The grid for development; it ends with the test.
struct Dev {
    child: Child,
    looks: Lines<BufReader<ChildStdout>>,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    fn start(temporary: &std::path::Path) -> Dev {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
        command.args(["dev", "--json", "--load", "50"]).env("TMPDIR", temporary);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let looks = BufReader::new(child.stdout.take().expect("its output")).lines();
        Dev { child, looks }
    }

    fn type_in(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().expect("its input"), "{line}").expect("takes it");
    }

    /// Looks until one shows it.
    fn until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        let mut last = Value::Null;
        while begin.elapsed() < PATIENCE {
            let line = self.looks.next().unwrap_or_else(|| panic!("it ended before {what}; last: {last}"));
            last = serde_json::from_str(&line.expect("a line")).expect("JSON");
            if holds(&last) {
                return;
            }
        }
        panic!("{what} did not come; last: {last}");
    }
}

/// A peer's state and how many partitions it leads.
fn peer(look: &Value, name: &str) -> Option<(String, u64)> {
    let peer = look["peers"].as_array()?.iter().find(|peer| peer["name"] == name)?;
    Some((peer["state"].as_str()?.to_owned(), peer["leaders"].as_u64()?))
}

fn serves(look: &Value, name: &str) -> bool {
    peer(look, name).is_some_and(|(state, leaders)| state == "serving" && leaders > 0)
}

#[test]
fn a_peer_that_is_killed_and_one_that_is_added_are_shown() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut dev = Dev::start(temporary.path());
    dev.until("three leaders", |look| ["n1", "n2", "n3"].iter().all(|name| serves(look, name)));
    dev.type_in("kill 2");
    let led_by = |look: &Value, name: &str| {
        look["leaders"].as_array().is_some_and(|leaders| leaders.iter().any(|leader| leader == name))
    };
    dev.until("the dead peer's successors", |look| {
        peer(look, "n2").is_some_and(|(state, _)| state == "dead") && look["leaderless"] == 0 && !led_by(look, "n2")
    });
    dev.type_in("nonsense");
    dev.type_in("add");
    dev.until("a move", |look| look["moving"].as_u64() > Some(0) || serves(look, "n4"));
    dev.until("a fourth leader", |look| serves(look, "n4"));
    dev.type_in("start 2");
    dev.until("four leaders, all at rest", |look| {
        ["n1", "n2", "n3", "n4"].iter().all(|name| serves(look, name))
            && look["moving"] == 0
            && look["under_replicated"] == 0
    });
    dev.type_in("quit");
    assert!(dev.child.wait().expect("ends").success());
    assert!(std::fs::read_dir(temporary.path()).expect("the directory").next().is_none(), "it left something behind");
}
