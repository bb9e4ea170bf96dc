//! Every command with nonsense: it never panics, and its exit status is one of those documented.

use crate::common::PATIENCE;
use crate::process::keystead;
use keystead::Grid;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const COMMANDS: [&str; 9] = ["put", "get", "delete", "incr", "members", "partitions", "explain", "task", "bench"];
const OPTIONS: [&str; 14] = [
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
        Just("{}".to_owned()),
        Just("{a".to_owned()),
        Just("$meta".to_owned()),
        Just("x".repeat(200)),
    ]
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
    let config = Config { cases: 120, failure_persistence: None, ..Config::default() };
    let seeded = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let outcome = TestRunner::new_with_rng(config, seeded).run(&all, |(command, arguments)| {
        let mut line = vec![command.to_owned(), "--endpoint".to_owned(), peer.address().to_owned()];
        if command == "bench" {
            line.extend(["--ops".to_owned(), "20".to_owned()]);
        }
        line.extend(arguments);
        let said = keystead(&line);
        prop_assert!(said.status.is_some_and(|status| (0..=3).contains(&status)), "{:?}: {:?}", line, said);
        prop_assert!(!said.err.contains("panicked"), "{:?}: {:?}", line, said);
        let coded = said.status == Some(0) || said.err.starts_with("keystead: KS");
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
