//! A peer's process as the suite holds it: started, asked, stopped, and looked at after its death. In:
//! what is done to it. Out: its answers, each death that nobody gave it, counted when it happens, and
//! what its log says.

use super::control::{Ask, Told};
use crate::alarms;
use anyhow::{Context, bail};
use keystead::clock;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The longest time for an answer, on a machine that has hardly any time for the peer.
const PATIENCE: Duration = Duration::from_secs(300);

/// A life of a peer.
struct Life {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// The signal of kill -9.
const KILLED: i32 = 9;

/// The end of a life that nobody ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    /// The failpoint at which it came.
    pub(super) point: Option<String>,
    /// How the process ended, and its last words.
    pub(super) how: String,
}

/// A peer, alive or dead.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) backend: &'static str,
    seeds: String,
    dir: PathBuf,
    life: Option<Life>,
    /// Where the log of this life begins.
    log_from: u64,
    /// Where the log of this round begins.
    round_from: u64,
    /// Deaths of this round.
    deaths: Vec<Death>,
    /// How often it was started after the first time.
    pub(super) restarts: u32,
}

impl Process {
    pub(super) fn new(name: &str, listen: &str, backend: &'static str, seeds: &[String], dir: &Path) -> Process {
        Process {
            name: name.to_owned(),
            listen: listen.to_owned(),
            backend,
            seeds: seeds.join(","),
            dir: dir.to_owned(),
            life: None,
            log_from: 0,
            round_from: 0,
            deaths: Vec::new(),
            restarts: 0,
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// Starts it, with failpoints armed from the first step on.
    pub(super) fn start(&mut self, program: &Path, armed: Option<(&str, &str)>) -> anyhow::Result<()> {
        // A death that nobody has looked for yet is noted here.
        if !self.has_ended() {
            bail!("{} runs already", self.name);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        self.restarts += u32::from(self.log_from > 0);
        self.log_from = log.metadata()?.len().max(1);
        let mut command = Command::new(program);
        command.args(["crash-peer", "--name", &self.name, "--listen", &self.listen, "--seeds", &self.seeds]);
        command.args(["--backend", self.backend, "--data"]).arg(self.dir.join(&self.name));
        command.env_remove("FAILPOINTS").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        if let Some((point, actions)) = armed {
            command.env("FAILPOINTS", format!("{point}={actions}"));
        }
        let mut child = command.spawn().context("a peer's process cannot be started")?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        self.life = Some(Life { child, input, output });
        Ok(())
    }

    /// Asks the peer; an error when it is dead, or dies over it.
    pub(super) async fn ask(&mut self, ask: &Ask) -> anyhow::Result<Told> {
        let name = self.name.clone();
        let Some(life) = &mut self.life else { bail!("{name} does not run") };
        let line = format!("{}\n", serde_json::to_string(ask)?);
        let asked = async {
            life.input.write_all(line.as_bytes()).await?;
            life.output.next_line().await
        };
        match clock::timeout(PATIENCE, asked).await {
            Err(clock::Elapsed) => bail!("{name} does not answer {ask:?}"),
            Ok(Err(error)) => bail!("{name} has ended: {error}"),
            Ok(Ok(None)) => bail!("{name} has ended: {}", self.last_words()),
            Ok(Ok(Some(line))) => match serde_json::from_str(&line)? {
                Told::Failed(why) => bail!("{name}: {why}"),
                told => Ok(told),
            },
        }
    }

    /// Whether it is dead. A death that nobody gave it is noted.
    pub(super) fn has_ended(&mut self) -> bool {
        let Some(life) = &mut self.life else { return true };
        match life.child.try_wait() {
            Ok(None) => false,
            ended => {
                self.life = None;
                self.note_death(ended.ok().flatten());
                true
            }
        }
    }

    /// Kills it as kill -9 does, and waits for its end.
    pub(super) async fn kill(&mut self) {
        if self.has_ended() {
            return;
        }
        if let Some(mut life) = self.life.take() {
            let _ = life.child.start_kill();
            // It may have died by itself this very moment.
            let status = life.child.wait().await.ok();
            if status.is_some_and(|status| status.signal() != Some(KILLED)) {
                self.note_death(status);
            }
        }
    }

    fn note_death(&mut self, status: Option<ExitStatus>) {
        let point = point_of_death(&self.words());
        let status = status.map_or_else(|| "nobody knows how".to_owned(), |status| status.to_string());
        self.deaths.push(Death { point, how: format!("{status}: {}", self.last_words()) });
    }

    /// The log of this life, or of the last one.
    fn words(&self) -> String {
        alarms::text_behind(&self.log(), &mut self.log_from.saturating_sub(1))
    }

    /// Whether the log of this life, or the last one, has this text.
    pub(super) fn has_said(&self, text: &str) -> bool {
        self.words().contains(text)
    }

    /// The last lines of its log.
    pub(super) fn last_words(&self) -> String {
        let words = self.words();
        let mut lines: Vec<&str> = words.lines().rev().take(4).collect();
        lines.reverse();
        lines.join(" | ")
    }

    /// Ends the round for this peer: its deaths, and what its log says of the round.
    pub(super) fn end_round(&mut self) -> (Vec<Death>, String) {
        // A death that nobody has looked for yet belongs to it.
        self.has_ended();
        let said = alarms::text_behind(&self.log(), &mut self.round_from);
        (std::mem::take(&mut self.deaths), said)
    }
}

/// The failpoint at which the process ended that said this.
fn point_of_death(words: &str) -> Option<String> {
    let point =
        |line: &str| line.strip_prefix("failpoint ")?.strip_suffix(": the process ends here").map(str::to_owned);
    words.lines().rev().find_map(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer whose program is a shell's words: it dies at once, as they say.
    fn dying(dir: &Path, words: &str) -> (Process, PathBuf) {
        let program = dir.join("peer");
        // Written by another process: what this one has open to write, a child of another test may hold.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#;
        let mut shell = std::process::Command::new("sh");
        assert!(shell.args(["-c", write]).arg(&program).arg(words).status().expect("a shell").success());
        (Process::new("n1", "127.0.0.1:1", "memory", &[], dir), program)
    }

    async fn dead(peer: &mut Process) {
        while !peer.has_ended() {
            clock::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_death_is_counted_though_the_peer_is_started_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let words = "echo 'failpoint roll-before-create: the process ends here' >&2; kill -ABRT $$";
        let (mut peer, program) = dying(dir.path(), words);
        for _ in 0..2 {
            peer.start(&program, None).expect("started");
            dead(&mut peer).await;
        }
        let (deaths, said) = peer.end_round();
        let points: Vec<Option<&str>> = deaths.iter().map(|death| death.point.as_deref()).collect();
        assert_eq!(points, [Some("roll-before-create"); 2]);
        assert_eq!(said.lines().count(), 2, "{said}");
        assert_eq!(peer.end_round(), (Vec::new(), String::new()), "each belongs to one round");
    }

    #[tokio::test]
    async fn who_is_killed_died_of_nothing_and_who_ends_elsewhere_says_how() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut peer, program) = dying(dir.path(), "exec sleep 600");
        peer.start(&program, None).expect("started");
        assert!(peer.start(&program, None).is_err(), "it runs already");
        peer.kill().await;
        assert_eq!(peer.end_round().0, []);
        let (mut peer, program) = dying(dir.path(), "echo 'no more' >&2; exit 3");
        peer.start(&program, None).expect("started");
        dead(&mut peer).await;
        peer.kill().await;
        let (deaths, _) = peer.end_round();
        assert!(deaths.len() == 1 && deaths[0].point.is_none(), "{deaths:?}");
        assert!(deaths[0].how.contains("3") && deaths[0].how.ends_with("no more"), "{deaths:?}");
    }
}
