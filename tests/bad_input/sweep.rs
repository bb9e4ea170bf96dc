//! Every command with nonsense: it never panics, and its exit status is one of those documented.

use crate::common::PATIENCE;
use crate::process::keystead;
use keystead::Grid;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Every command that asks a grid, with what bounds it where it would go on for long.
const COMMANDS: [&[&str]; 30] = [
    &["put"],
    &["get"],
    &["touch"],
    &["delete"],
    &["incr"],
    &["transact"],
    &["scan"],
    &["size"],
    &["clear"],
    &["maps"],
    &["drop"],
    &["create-map"],
    &["watch", "--count", "0"],
    &["members"],
    &["partitions"],
    &["remove"],
    &["drain"],
    &["rebalance", "status"],
    &["explain"],
    &["task"],
    &["broadcast"],
    &["scatter"],
    &["word-count"],
    &["top-k"],
    &["job", "start"],
    &["job", "status"],
    &["job", "cancel"],
    &["jobs"],
    &["cancel"],
    &["bench", "--ops", "20"],
];
/// Those that start peers: they are not to start any.
const STARTERS: [&str; 3] = ["start", "demo", "dev"];
const OPTIONS: [&str; 24] = [
    "--json",
    "--timeout",
    "--read",
    "--ack",
    "--key",
    "--payload",
    "--ops",
    "--concurrency",
    "--value-size",
    "--reads",
    "--keys",
    "--within",
    "--no-wait",
    "--ttl",
    "--prefix",
    "--limit",
    "--token",
    "--check",
    "--top",
    "--id",
    "--max-bytes",
    "--help",
    "--no-such-option",
    "--",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{0,3}",
        "[^\u{0}]{0,12}",
        Just("-1".to_owned()),
        Just("9999999999999999999999".to_owned()),
        Just(u64::MAX.to_string()),
        Just(format!("{}d", u64::MAX)),
        Just("{}".to_owned()),
        Just("{a".to_owned()),
        Just("$meta".to_owned()),
        Just("x".repeat(200)),
    ]
}

fn is_line(said: &str) -> bool {
    said.starts_with("keystead: KS")
}

fn is_object(said: &str) -> bool {
    let said: serde_json::Result<serde_json::Value> = serde_json::from_str(said);
    said.is_ok_and(|said| said["error"]["code"].as_str().is_some_and(|code| code.starts_with("KS")))
}

#[test]
fn no_nonsense_makes_a_command_panic() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let peer = runtime.block_on(async {
        let peer = Grid::builder().listen("127.0.0.1:0").partitions(2).memory().start().await.expect("starts");
        peer.wait_ready(PATIENCE).await.expect("serves");
        peer
    });
    let arguments = proptest::collection::vec(
        prop_oneof![proptest::sample::select(&OPTIONS[..]).prop_map(str::to_owned), word()],
        0..6,
    );
    let all = (proptest::sample::select(&COMMANDS[..]), arguments);
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let seeded = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let outcome = TestRunner::new_with_rng(config, seeded).run(&all, |(command, arguments)| {
        let mut line: Vec<String> = command.iter().map(|word| word.to_string()).collect();
        line.extend(["--endpoint".to_owned(), peer.address().to_owned()]);
        line.extend(arguments);
        let said = keystead(&line);
        prop_assert!(said.status.is_some_and(|status| (0..=3).contains(&status)), "{:?}: {:?}", line, said);
        prop_assert!(!said.err.contains("panicked"), "{:?}: {:?}", line, said);
        let for_machines = line.iter().take_while(|word| *word != "--").any(|word| word == "--json");
        let coded = said.status == Some(0) || if for_machines { is_object(&said.err) } else { is_line(&said.err) };
        prop_assert!(coded, "{:?}: {:?}", line, said);
        Ok(())
    });
    outcome.expect("no nonsense does harm");
    runtime.block_on(peer.shutdown());
}

#[test]
fn what_starts_peers_refuses_nonsense_before_it_starts_any() {
    for nonsense in ["", "-1", "x", "9999999999999999999999", "\u{7}", "--listen"] {
        for option in ["--listen", "--http", "--seeds", "--partitions", "--replicas", "--weight", "--backend"] {
            if option == "--seeds" && nonsense.is_empty() {
                continue;
            }
            let said = keystead(["start", "--data", "/proc/nowhere", option, nonsense]);
            said.says(2, &["keystead: KS"]);
        }
        for option in ["--input", "--rate", "--events", "--seed"] {
            let said = keystead(["demo", option, nonsense]);
            said.says(2, &["keystead: KS"]);
        }
    }
}

#[test]
fn the_sweep_names_every_command() {
    let said = keystead(["--help"]);
    let listed = said.out.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let commands = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).map(str::to_owned);
    let all = listed.lines().filter_map(commands).filter_map(|line| line.split(' ').next().map(str::to_owned));
    let swept: std::collections::BTreeSet<&str> =
        COMMANDS.iter().map(|command| command[0]).chain(STARTERS).chain(["help"]).collect();
    let all: Vec<String> = all.collect();
    assert_eq!(all.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), swept);
}

#[test]
fn times_that_no_clock_can_hold_are_wrong_usage() {
    for (command, option) in [
        (&["remove", "n2"][..], "--within"),
        (&["drain", "n2"], "--within"),
        (&["broadcast", "count-entries"], "--within"),
        (&["scatter", "word-count"], "--within"),
        (&["job", "start", "x", "--key", "k"], "--time"),
        (&["get", "m", "k"], "--timeout"),
        (&["touch", "m", "k"], "--ttl"),
    ] {
        for value in [u64::MAX.to_string(), format!("{}s", u64::MAX), "99999999999999999999".to_owned()] {
            let line: Vec<&str> =
                command.iter().copied().chain([option, &value, "--endpoint", "127.0.0.1:1"]).collect();
            let said = keystead(&line);
            said.says(2, &["keystead: KS1007", option]);
        }
    }
}
