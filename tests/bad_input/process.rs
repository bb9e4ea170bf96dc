//! The program as a process: one that runs and ends, and peers that go on.
#![allow(clippy::disallowed_methods)]

use crate::common::PATIENCE;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a process said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Asserts the exit status and that every word was said on standard error.
    #[track_caller]
    pub fn says(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:?}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

/// Runs `keystead` with these arguments until it ends.
pub fn keystead<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    command.args(arguments).stdin(Stdio::null()).env_remove("KEYSTEAD_ENDPOINT");
    let output = command.output().expect("keystead runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// A peer's process, killed with the test.
pub struct Peer {
    child: Child,
    pub address: String,
    pub http: String,
    log: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be dead already: that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a peer is started.
pub struct Start<'a> {
    pub address: &'a str,
    pub seeds: &'a [String],
    pub data: &'a Path,
    pub more: &'a [&'a str],
    /// The largest file that the peer may write, in KiB: its disk is full beyond.
    pub file_kib: Option<u64>,
}

impl<'a> Start<'a> {
    pub fn new(address: &'a str, seeds: &'a [String], data: &'a Path) -> Self {
        Start { address, seeds, data, more: &[], file_kib: None }
    }

    fn command(&self, http: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_keystead");
        let mut command = match self.file_kib {
            None => Command::new(program),
            // The signal for a file that would grow too large must not end the peer; the soft limit
            // alone is set, so that it can be raised again.
            Some(kib) => {
                let mut shell = Command::new("sh");
                let blocks = kib * 2;
                shell.args(["-c", &format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\""), program]);
                shell
            }
        };
        command.args(["start", "--listen", self.address, "--http", http, "--partitions", "4", "--data"]).arg(self.data);
        if !self.seeds.is_empty() {
            command.args(["--seeds", &self.seeds.join(",")]);
        }
        command.args(self.more).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts it, and does not wait.
    pub fn spawn(&self) -> Peer {
        let http = crate::common::addresses(&crate::common::free_ports(1)).remove(0);
        let log = self.data.with_extension("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let child = self.command(&http).stderr(file).spawn().expect("a peer starts");
        Peer { child, address: self.address.to_owned(), http, log }
    }

    /// Starts it and waits for its end.
    pub fn ends(&self) -> Said {
        let http = crate::common::addresses(&crate::common::free_ports(1)).remove(0);
        let output = self.command(&http).output().expect("a peer starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Peer {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.child.kill().expect("it ran");
        self.child.wait().expect("it ends");
    }

    /// Everything that it said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn wait_ready(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.readyz().starts_with("HTTP/1.0 200") {
            assert!(Instant::now() < until, "{} is not ready: {} {}", self.address, self.readyz(), self.log());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// What `/readyz` says.
    pub fn readyz(&self) -> String {
        self.http_get("/readyz").unwrap_or_default()
    }

    pub fn http_get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.http)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Its resident set, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident set");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    }
}

#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Three peers below `dir`, ready.
pub fn three(dir: &Path, more: &[&str]) -> (Vec<String>, Vec<Peer>) {
    let seeds = crate::common::addresses(&crate::common::free_ports(3));
    let start = |at: usize| {
        let data = dir.join(format!("n{}", at + 1));
        Start { more, ..Start::new(&seeds[at], &seeds, &data) }.spawn()
    };
    let peers: Vec<Peer> = (0..3).map(start).collect();
    peers.iter().for_each(Peer::wait_ready);
    (seeds, peers)
}

/// A command against the first of these peers.
pub fn at(peer: &str, arguments: &[&str]) -> Said {
    let mut all = arguments.to_vec();
    all.extend(["--endpoint", peer]);
    keystead(all)
}
