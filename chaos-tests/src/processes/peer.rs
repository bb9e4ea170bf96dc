//! One peer as a process of its own.
//!
//! In: where it stands and what it is started with. Out: the process, which can be killed, stopped and
//! started again, and what became of it. All processes of a run are one process group, led by a
//! [`Reaper`], which ends them if this program ends in any way, also those that are stopped.

use crate::alarms;
use anyhow::Context;
use keystead::clock;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a signal may take to be sent.
const SIGNAL_WITHIN: Duration = Duration::from_secs(20);

/// Ends the group when this program has ended.
pub struct Reaper {
    child: Child,
    group: i32,
}

impl Reaper {
    /// Starts it. It waits for the end of its standard input, which nobody else holds.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> anyhow::Result<Reaper> {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' INT TERM HUP; cat > /dev/null; kill -KILL 0"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).kill_on_drop(false).spawn().context("no shell can be started")?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).context("the shell has ended")?;
        Ok(Reaper { child, group })
    }

    /// Ends the whole group, and waits for it.
    pub async fn end(mut self) {
        drop(self.child.stdin.take());
        // It ends itself last.
        let _ = clock::timeout(SIGNAL_WITHIN, self.child.wait()).await;
    }
}

/// What does not change between a peer's lives.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// The last byte of its loopback address.
    pub place: u8,
    /// What others are told as its address.
    pub front: SocketAddr,
    /// Where it finds the grid.
    pub seeds: Vec<String>,
    /// Its data.
    pub data: PathBuf,
    /// What it says on standard error, over all its lives.
    pub log: PathBuf,
}

/// A peer, running or not.
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// Where it serves `/readyz`.
    http: Option<SocketAddr>,
    child: Option<Child>,
    /// Whether it is stopped by a signal.
    pub stopped: bool,
    /// It was told to go, or is no member any more: it may end by itself.
    pub leaving: bool,
    /// It was told to end, to be started again.
    ending: bool,
    /// How often it was started.
    pub lives: u32,
    /// How much of its log has been looked at.
    heard: u64,
}

/// How peers are started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// What comes before `start`.
    pub before: Vec<String>,
    /// The configuration file.
    pub config: PathBuf,
    /// Partitions of the grid.
    pub partitions: u32,
}

impl Peer {
    /// A peer that does not run yet.
    pub fn new(identity: Identity) -> Peer {
        Peer { identity, http: None, child: None, stopped: false, leaving: false, ending: false, lives: 0, heard: 0 }
    }

    /// Starts it, to listen and to serve HTTP at these addresses, with these failpoints armed.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(
        &mut self,
        program: &Program,
        listen: SocketAddr,
        http: SocketAddr,
        reaper: &Reaper,
        failpoints: Option<&str>,
    ) -> anyhow::Result<()> {
        let Identity { name, front, seeds, data, log, .. } = &self.identity;
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&program.path);
        command.args(&program.before).args(["start", "--name", name, "--seeds", &seeds.join(",")]);
        command.args(["--listen", &listen.to_string(), "--advertise", &front.to_string()]);
        command.args(["--http", &http.to_string(), "--connect-from", &listen.ip().to_string()]);
        command.args(["--partitions", &program.partitions.to_string(), "--config"]).arg(&program.config);
        command.arg("--data").arg(data).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.env_remove("FAILPOINTS").envs(failpoints.map(|armed| ("FAILPOINTS", armed)));
        command.process_group(reaper.group).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.path.display()))?;
        (self.child, self.http) = (Some(child), Some(http));
        (self.stopped, self.ending) = (false, false);
        self.lives += 1;
        Ok(())
    }

    /// Whether there is a process.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Kills it without warning; whether it ran. Until [`Peer::kill`] it counts as one that was told to end.
    pub fn strike(&mut self) -> bool {
        self.ending = self.child.as_mut().is_some_and(|child| child.start_kill().is_ok());
        self.ending
    }

    /// Kills it without warning, and waits for its end.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
        self.stopped = false;
    }

    /// How it ended, if it did so by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    /// Tells it to end in order.
    pub async fn end_in_order(&mut self) {
        self.ending = self.signal("-TERM").await;
    }

    /// Whether it was told to end, and so may do it.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Stops it where it is: the machine goes on, this process does not.
    pub async fn stop(&mut self) {
        self.stopped = self.signal("-STOP").await;
    }

    /// Lets it go on.
    pub async fn go_on(&mut self) {
        if self.stopped {
            self.stopped = !self.signal("-CONT").await;
        }
    }

    async fn signal(&self, signal: &str) -> bool {
        let Some(id) = self.child.as_ref().and_then(Child::id) else { return false };
        let mut command = Command::new("kill");
        let sent = command.args([signal, &id.to_string()]).kill_on_drop(true).status();
        matches!(clock::timeout(SIGNAL_WITHIN, sent).await, Ok(Ok(status)) if status.success())
    }

    /// What it said since it was heard last that no peer may ever say.
    pub fn alarms(&mut self) -> Vec<String> {
        alarms::alarms(&alarms::text_behind(&self.identity.log, &mut self.heard))
    }

    /// How long its log is now.
    pub fn said(&self) -> u64 {
        std::fs::metadata(&self.identity.log).map_or(0, |log| log.len())
    }

    /// Whether it has said this behind such a place of its log.
    pub fn has_said(&self, text: &str, mut behind: u64) -> bool {
        alarms::text_behind(&self.identity.log, &mut behind).contains(text)
    }

    /// Whether it says that it serves; what it says else.
    pub async fn not_ready(&self) -> Option<String> {
        let Some(http) = self.http.filter(|_| self.child.is_some()) else {
            return Some(format!("{} does not run", self.identity.name));
        };
        let answer = clock::timeout(Duration::from_secs(2), ask(http, "/readyz")).await;
        match answer {
            Ok(Ok(answer)) if answer.contains(" 200 ") => None,
            Ok(Ok(answer)) => Some(format!("{}: {}", self.identity.name, answer.replace(['\r', '\n'], " "))),
            Ok(Err(error)) => Some(format!("{}: {error}", self.identity.name)),
            Err(clock::Elapsed) => Some(format!("{} does not answer /readyz", self.identity.name)),
        }
    }
}

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The end of a peer's log.
pub fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}
