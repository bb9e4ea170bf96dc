//! Peers as processes of their own: started, killed, and asked what they take.

use crate::{Done, Options};
use keystead::clock::Instant;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A peer as a process.
pub struct Peer {
    child: Child,
    /// Where clients reach it.
    pub address: String,
    http: String,
    /// Its data directory.
    pub data: PathBuf,
    command: Vec<String>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &[String], log: &Path) -> Done<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    let program = std::env::var_os("KEYSTEAD_BENCH_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_keystead").into());
    let mut process = Command::new(program);
    process.args(command).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    Ok(process.spawn()?)
}

/// Free loopback ports, TCP and UDP.
pub fn free_ports(count: usize) -> Done<Vec<u16>> {
    let mut kept = Vec::new();
    while kept.len() < count {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            kept.push((tcp, udp, port));
        }
    }
    Ok(kept.into_iter().map(|(_, _, port)| port).collect())
}

impl Peer {
    /// Starts one; `at` is its number.
    pub fn start(options: &Options, dir: &Path, at: usize, seeds: &[String], http: u16) -> Done<Peer> {
        let (name, data) = (format!("n{}", at + 1), dir.join(format!("n{}", at + 1)));
        let http = format!("127.0.0.1:{http}");
        let mut command: Vec<String> =
            ["start", "--exit-with-parent", "--name", &name, "--listen", &seeds[at]].map(str::to_owned).to_vec();
        let partitions = options.partitions.to_string();
        let replicas = options.replicas.to_string();
        for (option, value) in [
            ("--http", http.as_str()),
            ("--data", &data.display().to_string()),
            ("--partitions", &partitions),
            ("--replicas", &replicas),
            ("--backend", &options.backend),
        ] {
            command.extend([option.to_owned(), value.to_owned()]);
        }
        if seeds.len() > 1 {
            command.extend(["--seeds".to_owned(), seeds.join(",")]);
        }
        if let Some(limit) = &options.memory_limit {
            command.extend(["--memory-limit".to_owned(), limit.clone()]);
        }
        let child = spawn(&command, &dir.join(format!("{name}.log")))?;
        Ok(Peer { child, address: seeds[at].clone(), http, data, command })
    }

    /// SIGKILL, and a new process on the same data; how long until it serves.
    pub fn restart(&mut self, dir: &Path) -> Done<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let begun = Instant::now();
        self.child = spawn(&self.command, &dir.join("restarted.log"))?;
        self.wait_ready()?;
        Ok(begun.elapsed())
    }

    /// Waits until it serves.
    pub fn wait_ready(&mut self) -> Done<()> {
        let begun = Instant::now();
        loop {
            if self.is_ready().unwrap_or(false) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the peer has ended: {status}").into());
            }
            if begun.elapsed() > Duration::from_secs(300) {
                return Err("the peer is not ready after 300 s".into());
            }
            pause(5);
        }
    }

    fn is_ready(&self) -> Done<bool> {
        let mut stream = TcpStream::connect(&self.http)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nhost: keystead\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_whitespace().nth(1) == Some("200"))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A figure of /proc/PID/status, in bytes.
    pub fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// A metric of ours.
    pub fn metric(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(&self.http).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: keystead\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

#[allow(clippy::disallowed_methods)] // A program that measures other processes.
fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Bytes of the files below a directory.
pub fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
