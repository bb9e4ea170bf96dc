//! A peer's process as the suite holds it: started, asked, stopped, and looked at after its death.

use super::control::{Ask, Told};
use anyhow::{Context, bail};
use keystead::clock;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
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
    /// Whether the last life ended without having been killed.
    by_itself: bool,
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
            by_itself: false,
            restarts: 0,
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// Starts it, with failpoints armed from the first step on.
    pub(super) fn start(&mut self, program: &Path, armed: Option<(&str, &str)>) -> anyhow::Result<()> {
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
        self.by_itself = false;
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

    /// Whether this life has ended by itself, which is then noted.
    pub(super) fn has_ended(&mut self) -> bool {
        match &mut self.life {
            None => true,
            Some(life) => match life.child.try_wait() {
                Ok(None) => false,
                Ok(Some(_)) | Err(_) => {
                    self.life = None;
                    self.by_itself = true;
                    true
                }
            },
        }
    }

    /// Kills it as kill -9 does, and waits for its end.
    pub(super) async fn kill(&mut self) {
        if self.has_ended() {
            return;
        }
        if let Some(mut life) = self.life.take() {
            // It may have died this very moment.
            let _ = life.child.kill().await;
        }
    }

    /// Whether it is dead, and neither was killed nor died at one of these points.
    pub(super) fn died_elsewhere(&mut self, points: &[&str]) -> bool {
        self.has_ended() && self.by_itself && !points.iter().any(|point| self.died_at(point))
    }

    fn words(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.log())?;
            file.seek(SeekFrom::Start(self.log_from.saturating_sub(1)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
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

    /// Whether the last life ended at this point.
    pub(super) fn died_at(&self, point: &str) -> bool {
        self.has_said(&format!("failpoint {point}: the process ends here"))
    }
}
