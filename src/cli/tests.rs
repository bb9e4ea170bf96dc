//! Parsing, output and exit statuses of the commands, against a grid in memory.

use super::args::{Cli, Command};
use super::*;
use crate::api::testing::{FakePeer, World};
use crate::error::Code;
use crate::types::{KeyCodec, ValueCodec};
use clap::CommandFactory;

fn parse(arguments: &[&str]) -> Command {
    let all = std::iter::once("keystead").chain(arguments.iter().copied());
    Cli::try_parse_from(all).unwrap_or_else(|error| panic!("{arguments:?}: {error}")).command
}

async fn run_at(address: &str, arguments: &[&str]) -> Result<String> {
    let mut all = arguments.to_vec();
    all.extend(["--endpoint", address]);
    let mut out = Vec::new();
    execute(parse(&all), &mut out).await?;
    Ok(String::from_utf8(out).expect("text"))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn the_commands_are_well_formed_and_each_help_has_an_example() {
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    let mut leaves = Vec::new();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        match sub.has_subcommands() {
            true => leaves.extend(sub.get_subcommands().filter(|sub| sub.get_name() != "help").cloned()),
            false => leaves.push(sub.clone()),
        }
    }
    for sub in &mut leaves {
        let help = sub.render_long_help().to_string();
        let named = help.contains(&format!("keystead {}", sub.get_name()))
            || help.contains(&format!("keystead job {}", sub.get_name()))
            || help.contains(&format!("keystead rebalance {}", sub.get_name()));
        assert!(help.contains("Example") && named, "{help}");
        let job = help.contains("keystead job ");
        let client_command = job || !["start", "demo", "dev"].contains(&sub.get_name());
        assert_eq!(help.contains("--endpoint"), client_command, "{help}");
        assert_eq!(help.contains("--json"), job || sub.get_name() != "start", "{help}");
    }
}

#[test]
fn wrong_usage_is_status_2_and_help_is_0() {
    let status =
        |arguments: &[&str]| run(std::iter::once("keystead").chain(arguments.iter().copied()).map(OsString::from));
    assert_eq!(status(&["put", "m"]), 2);
    assert_eq!(status(&["fly"]), 2);
    assert_eq!(status(&["bench", "--reads", "101"]), 2);
    assert_eq!(status(&["drain", "n1", "--within", "18446744073709551615"]), 2);
    assert_eq!(status(&["create-map", "m", "--ttl", "10"]), 2);
    assert_eq!(status(&["create-map", "m", "--eviction", "fifo"]), 2);
    assert_eq!(status(&["put", "--help"]), 0);
    assert_eq!(status(&["start", "--listen", "0.0.0.0:1", "--data", "/nowhere"]), 2);
}

#[test]
fn values_may_start_with_a_hyphen_and_endpoints_are_a_list() {
    let Command::Put(put) = parse(&["put", "m", "-k", "-5", "--endpoint", "a:1,b:2"]) else { panic!("put") };
    assert_eq!((put.key.as_str(), put.value.as_str()), ("-k", "-5"));
    assert_eq!(put.connection.endpoint, ["a:1", "b:2"]);
    let Command::Incr(incr) = parse(&["incr", "m", "k", "-5"]) else { panic!("incr") };
    assert_eq!(incr.delta, -5);
    let Command::Demo(demo) = parse(&["demo"]) else { panic!("demo") };
    assert_eq!((demo.rate, demo.events), (2000, 50_000));
}

#[test]
fn start_gathers_its_configuration() {
    let Command::Start(start) = parse(&[
        "start",
        "--name",
        "n1",
        "--listen",
        "127.0.0.1:7500",
        "--seeds",
        "127.0.0.1:7500,127.0.0.1:7501",
        "--data",
        "/d",
        "--partitions",
        "16",
        "--backend",
        "memory",
        "--zone",
        "z1",
        "--weight",
        "2",
        "--http",
        "127.0.0.1:7481",
    ]) else {
        panic!("start")
    };
    let variable = |name: &str| (name == "KEYSTEAD_REPLICAS").then(|| "5".to_owned());
    let config = start::configuration(*start, &variable).expect("good");
    assert_eq!((config.partitions, config.replicas, config.seeds.len()), (16, 5, 2));
    assert_eq!(config.backend, crate::config::Backend::Memory);
    assert!(!config.insecure);
}

#[tokio::test]
async fn maps_are_created_with_options() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let limited = ["create-map", "cache", "--ttl", "10m", "--max-bytes", "64MiB", "--eviction", "lru", "--json"];
    let shown = json(&run_at(&address, &limited).await.expect("created"));
    assert_eq!((&shown["ttl_ms"], &shown["max_bytes"]), (&600_000.into(), &67_108_864.into()));
    assert_eq!((&shown["eviction"], &shown["keys"]), (&"lru".into(), &"utf8".into()));
    assert_eq!(json(&run_at(&address, &limited).await.expect("there"))["id"], shown["id"]);
    let other = run_at(&address, &["create-map", "cache", "--ttl", "9m"]).await.expect_err("other options");
    assert_eq!(other.code, Code::MapExists);
    run_at(&address, &["put", "cache", "k", "v"]).await.expect("a write takes the map as it is");
    let unlimited = run_at(&address, &["create-map", "x", "--eviction", "lfu"]).await.expect_err("senseless");
    assert!(unlimited.what.contains("max_entries"), "{unlimited}");
}

#[tokio::test]
async fn members_are_removed_and_drained_and_moves_are_shown() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let at = |arguments: &'static [&'static str]| run_at(&address, arguments);
    let removed = json(&at(&["remove", "n1", "--no-wait", "--json"]).await.expect("a member"));
    assert_eq!((&removed["id"], &removed["state"]), (&"0000000000000007".into(), &"removing".into()));
    assert_eq!(at(&["drain", "n1", "--undo"]).await.expect("a member"), "n1 (0000000000000007) active\n");
    for command in ["remove", "drain"] {
        let error = run_at(&address, &[command, "n9"]).await.expect_err("no member");
        assert_eq!((error.code, error.code.exit_status()), (Code::NoSuchMember, 3));
    }
    let error = at(&["drain", "n1", "--within", "0"]).await.expect_err("it holds three replicas");
    assert!(error.code == Code::DeadlineExceeded && error.what.contains("3 replicas"), "{error}");
    let status = json(&at(&["rebalance", "status", "--json"]).await.expect("shown"));
    assert_eq!(status["moves"][0]["coming"], serde_json::json!(["n3"]));
    let text = at(&["rebalance", "status"]).await.expect("shown");
    assert!(text.contains("COMING") && text.contains("1 of 2 partitions move"), "{text}");
    let partitions = at(&["partitions"]).await.expect("shown");
    assert!(partitions.contains("+n3") && partitions.contains("moving"), "{partitions}");
}

#[tokio::test]
async fn put_get_delete_and_incr() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let at = |arguments: &'static [&'static str]| run_at(&address, arguments);
    assert_eq!(at(&["put", "orders", "42", "open"]).await.expect("creates the map"), "revision 1 (majority-fsync)\n");
    assert_eq!(at(&["get", "orders", "42"]).await.expect("there"), "open\n");
    let shown = json(&at(&["get", "orders", "42", "--json"]).await.expect("there"));
    assert_eq!((&shown["value"], &shown["codec"], &shown["revision"]), (&"open".into(), &"utf8".into(), &1.into()));
    let shown = json(&at(&["put", "orders", "42", "shut", "--json"]).await.expect("put"));
    assert_eq!((&shown["ack"], &shown["revision"]), (&"majority-fsync".into(), &2.into()));
    assert_eq!(at(&["incr", "visits", "home"]).await.expect("incr"), "1\n");
    assert_eq!(at(&["incr", "visits", "home", "41"]).await.expect("incr"), "42\n");
    assert_eq!(at(&["delete", "orders", "42"]).await.expect("delete"), "deleted (majority-fsync)\n");
    let put = ["put", "orders", "43", "open", "--ttl", "90s"];
    run_at(&address, &put).await.expect("puts");
    let shown = json(&at(&["get", "orders", "43", "--json"]).await.expect("there"));
    assert_eq!((&shown["expires_ms"], &shown["value"]), (&90_000.into(), &"open".into()));
    assert!(at(&["touch", "orders", "43", "--ttl", "0s"]).await.expect("touch").starts_with("revision "));
    let shown = json(&at(&["get", "orders", "43", "--json"]).await.expect("there"));
    assert_eq!(shown.get("expires_ms"), None);
    for missing in
        [&["touch", "orders", "42"], &["get", "orders", "42"], &["delete", "orders", "42"], &["get", "nowhere", "42"]]
    {
        let error = run_at(&address, missing).await.expect_err("not there");
        assert_eq!(error.code.exit_status(), 3, "{error}");
    }
}

#[tokio::test]
async fn an_affinity_decides_where_an_entry_lives() {
    let peer = FakePeer::new(&World::new());
    let (address, _stop) = peer.serve().await;
    let beside = |arguments: &[&'static str]| {
        let all = [arguments, &["--affinity", "customer-7"]].concat();
        let address = address.clone();
        async move { run_at(&address, &all).await.expect("done") }
    };
    beside(&["put", "m", "k", "v"]).await;
    assert_eq!(beside(&["get", "m", "k"]).await, "v\n");
    beside(&["touch", "m", "k", "--ttl", "9s"]).await;
    beside(&["delete", "m", "k"]).await;
    beside(&["incr", "m", "n"]).await;
    let seen = peer.seen.lock().expect("lock").clone();
    let of_m = seen.iter().filter(|request| request.op.map() == Some("m"));
    let affinities: Vec<_> = of_m.map(|request| request.affinity.as_deref()).collect();
    assert_eq!(affinities, [Some(&b"customer-7"[..]); 5]);
    let local = Cli::try_parse_from(["keystead", "get", "m", "k", "--local", "--affinity", "x"]);
    assert!(local.is_err(), "every peer has a copy of all of a replicated map");
}

#[tokio::test]
async fn conditions_transactions_and_whole_maps() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let at = |arguments: &'static [&'static str]| run_at(&address, arguments);
    at(&["put", "m", "{t}a", "1", "--if-absent"]).await.expect("absent");
    let refused = at(&["put", "m", "{t}a", "2", "--if-absent"]).await.expect_err("present");
    assert_eq!((refused.code, refused.code.exit_status()), (Code::ConditionFailed, 1));
    assert!(refused.what.contains("revision 1") && refused.what.contains("\"1\""), "{refused}");
    assert_eq!(at(&["put", "m", "{t}a", "2", "--if-revision", "1", "--previous"]).await.expect("matches"), "1\n");
    assert_eq!(at(&["delete", "m", "{t}a", "--if-value", "9"]).await.expect_err("other").code, Code::ConditionFailed);
    assert_eq!(at(&["delete", "m", "{t}a", "--if-value", "2", "--previous"]).await.expect("matches"), "2\n");

    at(&["transact", "m", "--check", "{t}a=absent", "--put", "{t}a=x", "--put", "{t}b=y=z"]).await.expect("commits");
    let refused = at(&["transact", "m", "--check", "{t}a=1", "--delete", "{t}b"]).await.expect_err("another revision");
    assert!(refused.code == Code::ConditionFailed && refused.what.contains("{t}a"), "{refused}");
    let refused =
        at(&["transact", "m", "--check-value", "{t}b=z", "--delete", "{t}b"]).await.expect_err("another value");
    assert!(refused.code == Code::ConditionFailed && refused.what.contains("{t}b"), "{refused}");
    at(&["transact", "m", "--check-value", "{t}b=y=z", "--put", "{t}b=y=z"]).await.expect("commits");
    let apart = at(&["transact", "m", "--put", "a=1", "--put", "b=1"]).await.expect_err("two slots");
    assert_eq!((apart.code, apart.code.exit_status()), (Code::CrossSlot, 2));

    assert_eq!(at(&["scan", "m", "--prefix", "{t}"]).await.expect("scans"), "{t}a\tx\n{t}b\ty=z\n");
    let page = at(&["scan", "m", "--limit", "1"]).await.expect("a page");
    let token = page.trim().rsplit(' ').next().expect("a token").to_owned();
    assert_eq!(run_at(&address, &["scan", "m", "--token", &token]).await.expect("the rest"), "{t}b\ty=z\n");
    assert!(Cli::try_parse_from(["keystead", "scan", "m", "--token", "zz"]).is_err());
    assert!(at(&["size", "m"]).await.expect("sizes").starts_with("2 entries"));
    let maps = json(&at(&["maps", "--json"]).await.expect("lists"));
    assert_eq!((&maps[0]["name"], &maps[0]["entries"], &maps[0]["bytes"]), (&"m".into(), &2.into(), &12.into()));
    assert_eq!(at(&["clear", "m"]).await.expect("clears"), "2 entries deleted\n");
    assert_eq!(at(&["drop", "m"]).await.expect("drops"), "dropped\n");
    assert_eq!(at(&["drop", "m"]).await.expect_err("gone").code.exit_status(), 3);
    for usage in [&["put", "m", "", "v"][..], &["get", "a b", "k"]] {
        assert_eq!(run_at(&address, usage).await.expect_err("wrong usage").code.exit_status(), 2, "{usage:?}");
    }
}

#[tokio::test]
async fn values_are_encoded_as_the_map_wants_them() {
    let world = World::new();
    for (name, codec) in
        [("j", ValueCodec::Json), ("p", ValueCodec::Msgpack), ("n", ValueCodec::I64), ("b", ValueCodec::Bytes)]
    {
        world.add_map(name, if name == "n" { KeyCodec::I64 } else { KeyCodec::Utf8 }, codec);
    }
    let (address, _stop) = FakePeer::new(&world).serve().await;
    for map in ["j", "p"] {
        run_at(&address, &["put", map, "k", "{\"a\":1}"]).await.expect("put");
        let shown = json(&run_at(&address, &["get", map, "k", "--json"]).await.expect("get"));
        assert_eq!(shown["value"]["a"], 1);
        let error = run_at(&address, &["put", map, "k", "{"]).await.expect_err("not JSON");
        assert_eq!(error.code.exit_status(), 1);
    }
    run_at(&address, &["put", "n", "-7", "-12"]).await.expect("put");
    assert_eq!(run_at(&address, &["get", "n", "-7"]).await.expect("get"), "-12\n");
    assert!(run_at(&address, &["put", "n", "seven", "1"]).await.is_err());
    run_at(&address, &["put", "b", "k", "raw"]).await.expect("put");
    assert_eq!(run_at(&address, &["get", "b", "k"]).await.expect("get"), "raw");
}

#[tokio::test]
async fn members_partitions_and_explain() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let members = json(&run_at(&address, &["members", "--json"]).await.expect("members"));
    for field in ["name", "id", "address", "zone", "state", "leaders", "replicas"] {
        assert!(members[0].get(field).is_some(), "{field} in {members}");
    }
    assert_eq!(members[0]["tasks"], serde_json::json!(["bill", "count@2", "errand", "tally"]));
    let table = run_at(&address, &["members"]).await.expect("members");
    assert!(table.contains("TASKS") && table.contains("bill,count@2 +2"), "{table}");
    let partitions = json(&run_at(&address, &["partitions", "--json"]).await.expect("partitions"));
    for field in ["id", "first_slot", "last_slot", "leader", "replicas", "term", "applied", "rows"] {
        assert!(partitions[1].get(field).is_some(), "{field} in {partitions}");
    }
    let table = run_at(&address, &["partitions"]).await.expect("partitions");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0].find("LEADER"), lines[1].find("n1"), "aligned:\n{table}");
    let explained = run_at(&address, &["explain", "a{b}c"]).await.expect("explain");
    assert!(explained.contains("affinity   b\n") && explained.contains("Because."), "{explained}");
    let explained = json(&run_at(&address, &["explain", "a{b}c", "--json"]).await.expect("explain"));
    assert_eq!(explained["slot"], u64::from(crate::types::slot_of(b"b").0));
}

#[tokio::test]
async fn tasks_take_and_give_json() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let run = |arguments: &'static [&'static str]| run_at(&address, arguments);
    assert_eq!(run(&["task", "echo", "--key", "k", "--payload", "[1,2]"]).await.expect("echo"), "[1,2]\n");
    let shown = json(&run(&["task", "echo", "--key", "k", "--payload", "7", "--json"]).await.expect("echo"));
    assert_eq!((&shown["answer"], &shown["ack"]), (&7.into(), &"majority-fsync".into()));
    let usage = run(&["task", "echo", "--key", "k", "--payload", "{"]).await.expect_err("not JSON");
    assert_eq!(usage.code.exit_status(), 2);
    let missing = run(&["task", "no", "--key", "k"]).await.expect_err("no task");
    assert_eq!(missing.code.exit_status(), 3);
}

#[tokio::test]
async fn bench_counts_what_it_did() {
    let (address, _stop) = FakePeer::new(&World::new()).serve().await;
    let arguments = ["bench", "--ops", "500", "--concurrency", "16", "--reads", "50", "--keys", "20", "--json"];
    let shown = json(&run_at(&address, &arguments).await.expect("bench"));
    assert_eq!((&shown["ops"], &shown["errors"]), (&500.into(), &0.into()));
    let number = |name: &str| shown[name].as_f64().unwrap_or_else(|| panic!("{name} in {shown}"));
    assert!(number("ops_per_second") > 0.0);
    assert!(number("p50_us") <= number("p99_us") && number("p99_us") <= number("p999_us"));
}
