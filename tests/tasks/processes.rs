//! Peers as processes: words are counted right though one is killed on the way; the commands.

use crate::common::{PATIENCE, addresses, free_ports};
use crate::scatters::{check, counted, fill_texts, texts};
use keystead::client::{Client, ClientConfig};
use keystead::clock;
use keystead::compute::word_count;
use keystead::error::Result;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A peer's process; killed with the test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be dead already: that is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(seeds: &[String], at: usize, dir: &Path) -> Peer {
    let name = format!("n{}", at + 1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    command.args(["start", "--name", &name, "--listen", &seeds[at], "--seeds", &seeds.join(",")]);
    command.args(["--partitions", "16", "--data"]).arg(dir.join(&name));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Peer(command.spawn().expect("a peer starts"))
}

async fn eventually<T, F: Future<Output = Result<T>>>(what: &str, attempt: impl Fn() -> F) -> T {
    let until = clock::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(clock::Instant::now() < until, "{what}: {error}"),
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

fn keystead(endpoint: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    command.args(arguments).args(["--endpoint", endpoint]).output().expect("runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_right_though_a_peer_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let seeds = addresses(&free_ports(3));
    let mut peers: Vec<Peer> = (0..3).map(|at| start(&seeds, at, dir.path())).collect();
    let client = eventually("connects", || Client::connect(seeds.clone(), ClientConfig::default())).await;
    eventually("the grid", || async {
        client.partitions().await.and_then(|partitions| {
            let led = partitions.len() == 16 && partitions.iter().all(|partition| partition.leader.is_some());
            led.then_some(()).ok_or_else(|| keystead::error::Error::internal("not led yet"))
        })
    })
    .await;
    let texts = texts(400);
    fill_texts(&client, &texts).await;
    let expected = counted(&texts);
    let input = word_count::Input { map: "texts".into(), top: 20, into: None };

    // Counts go on while a peer is killed; each that is answered is right.
    let counted_once = tokio::sync::Notify::new();
    let counting = async {
        let mut right = 0;
        let until = clock::Instant::now() + Duration::from_secs(4);
        while clock::Instant::now() < until {
            let output: word_count::Output = client.scatter_typed(word_count::NAME, &input).await.expect("counts");
            check(&output, &expected);
            right += 1;
            counted_once.notify_one();
        }
        right
    };
    let killing = async {
        counted_once.notified().await;
        peers[1].0.kill().expect("SIGKILL");
    };
    let (right, ()) = tokio::join!(counting, killing);
    assert!(right >= 2, "only {right} counts in all that time");

    // The same by the commands.
    let shown = keystead(&seeds[0], &["word-count", "texts", "--top", "1", "--into", "counts"]);
    assert!(shown.status.success(), "{shown:?}");
    let (word, count) = expected.iter().max_by_key(|(_, count)| **count).expect("a word");
    assert!(out(&shown).contains(word) && out(&shown).contains(&count.to_string()), "{shown:?}");
    let top = keystead(&seeds[2], &["top-k", "counts", "--k", "1", "--json"]);
    assert!(out(&top).contains(&format!("\"value\":{count}")), "{top:?}");
    let broadcast = keystead(&seeds[0], &["broadcast", "count-entries", "--payload", "{\"map\":\"texts\"}", "--json"]);
    let lines = out(&broadcast);
    let entries = lines.lines().map(|line| {
        let answer: serde_json::Value = serde_json::from_str(line).expect("JSON");
        answer["answer"]["entries"].as_u64().expect("a count")
    });
    assert_eq!(entries.sum::<u64>(), 400);
    let wrong = keystead(&seeds[0], &["scatter", "top-k", "--payload", "{\"map\":\"counts\",\"k\":\"x\"}"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(1) && said.contains("KS4005") && said.contains("field \"k\""), "{said}");
    let unknown = keystead(&seeds[0], &["job", "status", "5"]);
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
    assert!(keystead(&seeds[0], &["jobs"]).status.success());
}
