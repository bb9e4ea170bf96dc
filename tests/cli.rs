//! The commands as processes against a peer in this one: `watch`, `get --local`, jobs, cancelling,
//! `scan`, and what wrong usage is told.
#![allow(missing_docs)]

mod common;

use common::PATIENCE;
use keystead::Grid;
use keystead::clock;
use keystead::compute::{Cursor, JobContext, PartitionScan, ResultMap, Scatter, TaskError};
use keystead::grid::GridBuilder;
use keystead::types::{KeyCodec, Value, ValueCodec};
use serde_json::Value as Json;
use std::process::{Output, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Notify;

async fn peer(partitions: u32) -> Grid {
    started(Grid::builder().partitions(partitions)).await
}

async fn started(peer: GridBuilder) -> Grid {
    let peer = peer.name("n1").listen("127.0.0.1:0").memory().start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    peer
}

fn command(peer: &Grid, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    command.args(arguments).env("KEYSTEAD_ENDPOINT", peer.address()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end; a test that waits for ever fails here.
async fn run(peer: &Grid, arguments: &[&str]) -> Output {
    let output = clock::timeout(PATIENCE, command(peer, arguments).output()).await;
    output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).expect("runs")
}

/// What a command that succeeds prints.
async fn out(peer: &Grid, arguments: &[&str]) -> String {
    let output = run(peer, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Exit status and words of a command that fails.
async fn refused(peer: &Grid, arguments: &[&str]) -> (i32, String) {
    let output = run(peer, arguments).await;
    (output.status.code().expect("a status"), String::from_utf8(output.stderr).expect("text"))
}

fn json(line: &str) -> Json {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = clock::timeout(PATIENCE, lines.next_line()).await.expect("a line in time");
    line.expect("reads").expect("goes on")
}

/// A watch that runs, and has said by its first token that it has begun.
async fn begun(peer: &Grid, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command(peer, arguments).stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
    assert!(next_line(&mut lines).await.starts_with("token "));
    (child, lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_prints_what_is_there_and_every_change_and_goes_on_by_its_token() {
    let peer = peer(1).await;
    let client = peer.client().await.expect("connects");
    client.create_map("m", KeyCodec::Utf8, ValueCodec::Utf8, 0).await.expect("creates");
    client.put("m", "a", Value::utf8("1")).await.expect("puts");
    assert_eq!(out(&peer, &["watch", "m", "--snapshot", "--count", "1"]).await, "entry a 1\n");

    // While it runs: each change as it comes, and behind each the token to go on from.
    let (mut child, mut lines) = begun(&peer, &["watch", "m", "--tokens"]).await;
    client.put("m", "a", Value::utf8("2")).await.expect("puts");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line: &String| !line.starts_with("token ") || seen.len() < 2) {
        let line = next_line(&mut lines).await;
        if !(seen.is_empty() && line.starts_with("token ")) {
            seen.push(line);
        }
    }
    assert_eq!(seen[0], "put a 2");
    let token = seen[1].strip_prefix("token ").expect("a token").to_owned();
    child.kill().await.expect("ends");

    // What happened meanwhile, from the token on.
    client.delete("m", "a").await.expect("deletes");
    client.put("m", "b", Value::utf8("3")).await.expect("puts");
    let text = out(&peer, &["watch", "m", "--from", &token, "--count", "2"]).await;
    assert_eq!(text, "removed a (deleted)\nput b 3\n");
    let lines = out(&peer, &["watch", "m", "--from", &token, "--count", "2", "--json", "--tokens"]).await;
    let lines: Vec<Json> = lines.lines().map(json).filter(|line| line["event"] != "token").collect();
    assert_eq!((&lines[0]["event"], &lines[0]["cause"]), (&"removed".into(), &"deleted".into()));
    assert_eq!((&lines[1]["value"], &lines[1]["codec"], &lines[1]["key"]), (&"3".into(), &"utf8".into(), &"b".into()));
    assert!(lines[1]["revision"].as_u64() > lines[0]["revision"].as_u64() && lines[1]["time_ms"].as_u64() > Some(0));

    // One key, or those with a prefix, and nothing else.
    for keys in [["--key", "b2"], ["--prefix", "b2"]] {
        let (_child, mut lines) = begun(&peer, &["watch", "m", "--tokens", keys[0], keys[1]]).await;
        client.put("m", "b", Value::utf8("x")).await.expect("puts");
        client.put("m", "b2", Value::utf8("y")).await.expect("puts");
        let mut line = next_line(&mut lines).await;
        while line.starts_with("token ") {
            line = next_line(&mut lines).await;
        }
        assert_eq!(line, "put b2 y", "{keys:?}");
    }
    let (status, said) = refused(&peer, &["watch", "m", "--from", "00"]).await;
    assert!(status == 1 && said.contains("KS7002"), "{status}: {said}");
    let (status, said) = refused(&peer, &["watch", "nowhere"]).await;
    assert!(status == 3 && said.contains("KS2001"), "{status}: {said}");
    assert_eq!(refused(&peer, &["watch", "m", "--key", "a", "--prefix", "b"]).await.0, 2);
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_local_reads_the_peers_own_copy_of_a_replicated_map() {
    let peer = peer(4).await;
    out(&peer, &["create-map", "rates", "--replicated"]).await;
    let revision = json(&out(&peer, &["put", "rates", "EUR", "1.08", "--json"]).await)["revision"].to_string();
    let shown = out(&peer, &["get", "rates", "EUR", "--local", "--at-least", &revision]).await;
    assert_eq!(shown, "1.08\n");
    let shown = json(&out(&peer, &["get", "rates", "EUR", "--local", "--json"]).await);
    assert_eq!((&shown["value"], &shown["codec"], &shown["map"]), (&"1.08".into(), &"utf8".into(), &"rates".into()));
    assert_eq!((shown["revision"].to_string(), shown["copy_revision"].to_string()), (revision.clone(), revision));

    // A copy that is not as new as it must be says of which revision it is.
    let late = ["get", "rates", "EUR", "--local", "--at-least", "999999", "--timeout", "1"];
    let (status, said) = refused(&peer, &late).await;
    assert!(status == 1 && said.contains("KS3007") && said.contains("not of 999999"), "{status}: {said}");
    let (status, said) = refused(&peer, &["get", "rates", "USD", "--local"]).await;
    assert!(status == 3 && said.contains("KS2003"), "{status}: {said}");
    out(&peer, &["put", "orders", "42", "open"]).await;
    let (status, said) = refused(&peer, &["get", "orders", "42", "--local"]).await;
    assert!(status == 1 && said.contains("KS7004"), "{status}: {said}");
    let (status, said) = refused(&peer, &["get", "rates", "EUR", "--at-least", "1"]).await;
    assert!(status == 2 && said.contains("--local"), "{status}: {said}");
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_for_people() {
    let peer = peer(4).await;
    // Without a command the help, and at its end what is wrong.
    for nothing in [&[][..], &["rebalance"], &["job"]] {
        let (status, said) = refused(&peer, nothing).await;
        assert!(status == 2 && said.contains("Usage: keystead"), "{status}: {said}");
        assert!(said.ends_with("keystead: KS1007: a command is missing\n"), "{said}");
    }
    out(&peer, &["create-map", "n", "--keys", "i64", "--values", "i64"]).await;
    let (status, said) = refused(&peer, &["create-map", "n"]).await;
    assert!(status == 1 && said.contains("has i64 keys and i64 values") && said.contains("utf8 keys"), "{said}");
    let (status, said) = refused(&peer, &["scan", "n", "--token", "00"]).await;
    assert!(status == 2 && said.matches("KS").count() == 1, "one code: {said}");
    out(&peer, &["put", "m", "k", "v"]).await;
    let deleted = json(&out(&peer, &["delete", "m", "k", "--json"]).await);
    assert_eq!((&deleted["existed"], &deleted["revision"]), (&true.into(), &2.into()));

    // What failed alike on all partitions is said once, and once more at the end.
    let output = run(&peer, &["broadcast", "nope"]).await;
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(printed.starts_with("0-3    KS2002: ") && printed.lines().count() == 1, "{printed}");
    assert!(output.status.code() == Some(1) && said.contains("4 of 4 partitions"), "{said}");
    assert_eq!(said.matches("register the task").count(), 1, "{said}");
    peer.shutdown().await;
}

async fn double(_: JobContext, number: i64) -> Result<i64, TaskError> {
    match number {
        0 => Err(TaskError::new("nothing", "there is nothing to double")),
        number => Ok(2 * number),
    }
}

/// Goes on until it is asked to end.
async fn hang(job: JobContext, (): ()) -> Result<(), TaskError> {
    job.progress(0.5, "half of it");
    job.ending().await;
    Ok(job.check()?)
}

/// Reads the map again and again, for ever; says when it has begun.
struct Endless(Arc<Notify>);

impl Scatter for Endless {
    type Input = String;
    type Part = ();
    type Output = ();

    fn map(&self, partition: &mut PartitionScan<'_>, map: &String) -> Result<(), TaskError> {
        loop {
            partition.page(map, &mut Cursor::default(), 10)?;
            self.0.notify_one();
        }
    }

    fn combine(&self, _: &String, (): &mut (), (): ()) {}

    fn reduce(&self, _: &String, _: Option<()>, _: &mut Vec<ResultMap>) -> Result<(), TaskError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_started_waited_for_and_cancelled() {
    let peer = started(Grid::builder().partitions(2).job("double", double).job("hang", hang)).await;
    assert_eq!(out(&peer, &["job", "start", "double", "--key", "k", "--payload", "21", "--wait"]).await, "42\n");
    let wait = ["job", "start", "double", "--key", "k", "--payload", "4", "--wait", "--json"];
    let shown = json(&out(&peer, &wait).await);
    assert_eq!((&shown["state"], &shown["answer"], &shown["progress"]), (&"done".into(), &8.into(), &1.0.into()));
    assert_eq!((&shown["name"], &shown["key"], &shown["attempt"]), (&"double".into(), &"k".into(), &1.into()));
    let failing = ["job", "start", "double", "--key", "k", "--payload", "0", "--wait"];
    let (status, said) = refused(&peer, &failing).await;
    assert!(status == 1 && said.contains("KS4001") && said.contains("nothing to double"), "{status}: {said}");
    let in_json = [&failing[..], &["--json"]].concat();
    let output = run(&peer, &in_json).await;
    let shown = json(&String::from_utf8(output.stdout).expect("text"));
    assert!(output.status.code() == Some(1) && shown["state"] == "failed", "{shown}");

    // One that is not waited for: its id, how it stands, its end.
    let id = out(&peer, &["job", "start", "hang", "--key", "k"]).await.trim().to_owned();
    let status = async || json(&out(&peer, &["job", "status", &id, "--json"]).await);
    let until = clock::Instant::now() + PATIENCE;
    let mut shown = status().await;
    while shown["progress"] != 0.5 {
        assert!(clock::Instant::now() < until, "{shown}");
        shown = status().await;
    }
    assert_eq!(
        (&shown["state"], &shown["text"], &shown["id"]),
        (&"running".into(), &"half of it".into(), &id.as_str().into())
    );
    let table = out(&peer, &["job", "cancel", &id]).await;
    assert!(table.contains(&id) && (table.contains("ending") || table.contains("cancelled")), "{table}");
    while shown["state"] != "cancelled" {
        assert!(clock::Instant::now() < until, "{shown}");
        shown = status().await;
    }
    let again = json(&out(&peer, &["job", "cancel", &id, "--json"]).await);
    assert_eq!(again["state"], "cancelled", "once it has ended it stays as it is");
    let jobs = json(&out(&peer, &["jobs", "--json"]).await);
    let states: Vec<&Json> = jobs.as_array().expect("a list").iter().map(|job| &job["state"]).collect();
    assert_eq!(states, ["done", "done", "failed", "failed", "cancelled"]);
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_cancelled_by_its_id() {
    let begun = Arc::new(Notify::new());
    let peer = started(Grid::builder().partitions(1).scatter("endless", Endless(begun.clone()))).await;
    out(&peer, &["put", "m", "k", "v"]).await;
    let scatter = ["scatter", "endless", "--payload", "\"m\"", "--id", "4711"];
    let child = command(&peer, &scatter).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    clock::timeout(PATIENCE, begun.notified()).await.expect("begins");
    assert_eq!(out(&peer, &["cancel", "4711"]).await, "1 peers know\n");
    let ended = clock::timeout(PATIENCE, child.wait_with_output()).await.expect("ends").expect("is waited for");
    let said = String::from_utf8(ended.stderr).expect("text");
    assert!(ended.status.code() == Some(1) && said.contains("KS4008"), "{said}");
    let shown = json(&out(&peer, &["cancel", "4712", "--json"]).await);
    assert_eq!((&shown["id"], &shown["told"], &shown["unreachable"]), (&4712.into(), &1.into(), &0.into()));
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_objects_for_machines_and_a_scan_keeps_an_entry_on_its_line() {
    let peer = peer(1).await;
    out(&peer, &["put", "m", "a\tb", "two\nlines \\ \u{e9}"]).await;
    assert_eq!(out(&peer, &["scan", "m"]).await, "a\\tb\ttwo\\nlines \\\\ \u{e9}\n");

    let (status, said) = refused(&peer, &["get", "m", "missing", "--json"]).await;
    let error = json(&said)["error"].clone();
    assert_eq!((status, &error["exit_status"], &error["code"]), (3, &3.into(), &"KS2003".into()), "{said}");
    assert!(error["what"].as_str().is_some_and(|what| !what.is_empty()), "{said}");
    // Also what is no command at all.
    let (status, said) = refused(&peer, &["get", "m", "k", "--jsn", "--json"]).await;
    assert_eq!((status, &json(&said)["error"]["code"]), (2, &"KS1007".into()), "{said}");
    // A key may look like the option.
    let (status, said) = refused(&peer, &["get", "m", "--", "--json"]).await;
    assert!(status == 3 && said.starts_with("keystead: KS2003"), "{said}");
    peer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_print_an_object_a_line() {
    let peer = peer(2).await;
    for (key, value) in [("{t}a", "1"), ("{t}b", "2"), ("other", "3")] {
        out(&peer, &["put", "m", key, value]).await;
    }
    let lines = out(&peer, &["scan", "m", "--prefix", "{t}", "--json"]).await;
    let found: Vec<Json> = lines.lines().map(json).collect();
    let shown = |entry: &Json| (entry["key"].clone(), entry["value"].clone(), entry["codec"].clone());
    let expected = |key: &str, value: &str| -> (Json, Json, Json) { (key.into(), value.into(), "utf8".into()) };
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), [expected("{t}a", "1"), expected("{t}b", "2")]);
    assert!(found.iter().all(|entry| entry["revision"].as_u64() > Some(0)), "{lines}");

    // A page, and the rest by its token.
    let page = out(&peer, &["scan", "m", "--prefix", "{t}", "--limit", "1", "--json"]).await;
    let page: Vec<Json> = page.lines().map(json).collect();
    assert_eq!((page.len(), &page[0]["key"]), (2, &"{t}a".into()));
    let token = page[1]["next_token"].as_str().expect("a token");
    let rest = out(&peer, &["scan", "m", "--prefix", "{t}", "--token", token, "--json"]).await;
    assert_eq!(json(rest.trim())["key"], "{t}b");
    assert_eq!(out(&peer, &["scan", "m", "--prefix", "none", "--json"]).await, "");
    peer.shutdown().await;
}
