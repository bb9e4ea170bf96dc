//! Three peers and a joiner as processes of their own, with a temporary directory. In: this program's own
//! file. Out: addresses to talk to, and the means to kill. Whatever happens to the demo, the
//! processes and the directory go with it: when this is dropped they are killed and removed, and
//! if the demo itself is killed the peers see their standard input end and stop.

use super::endpoint;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Peers of the demo.
pub(super) const PEERS: usize = 3;
/// Ports are looked for in this range: below those that systems hand out for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How long an HTTP question may take.
const ASK: Duration = Duration::from_millis(500);
/// Pause between two questions whether a peer is ready.
const POLL: Duration = Duration::from_millis(50);
/// How long the peers may take until they are ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Lines of a peer's log that an error shows.
const LOG_LINES: usize = 3;

/// One peer's process.
pub(super) struct Peer {
    /// Its name.
    pub(super) name: String,
    /// Where clients reach it.
    pub(super) address: String,
    http: String,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

/// The processes and their directory.
pub(super) struct Peers {
    peers: Vec<Peer>,
    /// The one that comes later.
    joiner: OnceLock<Peer>,
    /// Where it will listen, for peers and for HTTP.
    joiner_ports: (u16, u16),
    directory: Option<TempDir>,
}

impl Peers {
    /// Starts the processes; see [`Peers::wait_ready`].
    ///
    /// # Errors
    /// `Internal` when a port, the directory or a process cannot be had.
    pub(super) fn start() -> Result<Peers> {
        let directory =
            tempfile::Builder::new().prefix("keystead-demo-").tempdir().map_err(cannot("temporary directory"))?;
        let program = std::env::current_exe().map_err(cannot("this program's file"))?;
        let ports = free_ports(2 * (PEERS + 1))?;
        let (listen, http) = ports.split_at(PEERS + 1);
        let seeds: Vec<String> = listen.iter().take(PEERS).map(|port| loopback(*port)).collect();
        let joiner_ports = (listen[PEERS], http[PEERS]);
        let mut started = Peers { peers: Vec::new(), joiner: OnceLock::new(), joiner_ports, directory: None };
        for (at, (listen, http)) in listen.iter().zip(http).take(PEERS).enumerate() {
            let name = format!("n{}", at + 1);
            let peer = spawn(&program, directory.path(), name, loopback(*listen), loopback(*http), &seeds)?;
            started.peers.push(peer);
        }
        started.directory = Some(directory);
        Ok(started)
    }

    /// Starts one more peer, which joins the grid; gives its name.
    ///
    /// # Errors
    /// `Internal` when the process cannot be had.
    pub(super) fn join(&self) -> Result<String> {
        let program = std::env::current_exe().map_err(cannot("this program's file"))?;
        let directory = self.directory.as_ref().ok_or_else(|| Error::internal("the demo's directory is gone"))?;
        let (listen, http) = self.joiner_ports;
        let name = format!("n{}", PEERS + 1);
        let peer =
            spawn(&program, directory.path(), name.clone(), loopback(listen), loopback(http), &self.addresses())?;
        drop(self.joiner.set(peer));
        Ok(name)
    }

    fn all(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().chain(self.joiner.get())
    }

    /// The last words of a peer's log.
    pub(super) fn last_words(&self, name: &str) -> String {
        self.all().find(|peer| peer.name == name).map_or_else(String::new, |peer| last_lines(&peer.log))
    }

    /// The first peers' addresses.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.peers.iter().map(|peer| peer.address.clone()).collect()
    }

    /// Waits until every peer says that it is ready.
    ///
    /// # Errors
    /// `NotReady` with the peer's own reason, or with its last words if it has ended.
    pub(super) async fn wait_ready(&self) -> Result<()> {
        let give_up = Instant::now() + READY_WITHIN;
        for peer in &self.peers {
            loop {
                let why = match endpoint::get(&peer.http, "/readyz", ASK).await {
                    Ok((200, _)) => break,
                    Ok((_, body)) => body.trim().to_owned(),
                    Err(error) => error.what,
                };
                let ended = peer.has_ended();
                if ended || Instant::now() >= give_up {
                    let what = if ended { "the peer has ended".to_owned() } else { format!("not ready: {why}") };
                    let last = last_lines(&peer.log);
                    return Err(Error::new(Code::NotReady, format!("{what}; its last words: {last}"))
                        .at(format!("peer {}", peer.name))
                        .remedy("run the demo again; `keystead start` by hand shows the whole log"));
                }
                clock::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Kills the peer of this name with SIGKILL; whether there was one.
    pub(super) fn kill(&self, name: &str) -> bool {
        self.all().find(|peer| peer.name == name).is_some_and(Peer::kill)
    }

    /// The sum of a counter over one peer's metrics; `None` if it is not there.
    pub(super) async fn counters(&self, name: &str, counters: [&str; 2]) -> [Option<u64>; 2] {
        let Some(peer) = self.all().find(|peer| peer.name == name) else { return [None; 2] };
        match endpoint::get(&peer.http, "/metrics", ASK).await {
            Ok((200, metrics)) => counters.map(|counter| endpoint::counter(&metrics, counter)),
            _ => [None; 2],
        }
    }

    /// Names of the peers whose processes run.
    pub(super) fn alive(&self) -> Vec<String> {
        self.all().filter(|peer| !peer.has_ended()).map(|peer| peer.name.clone()).collect()
    }

    /// Kills what still runs and removes the directory.
    pub(super) fn stop(&mut self) {
        for peer in self.all() {
            peer.kill();
        }
        if let Some(directory) = self.directory.take() {
            let path = directory.path().to_owned();
            if let Err(error) = directory.close() {
                tracing::warn!(%error, path = %path.display(), "the temporary directory could not be removed");
            }
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Peer {
    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) -> bool {
        let Some(mut child) = self.child().take() else { return false };
        // The process may have ended by itself; it must be waited for all the same.
        let killed = child.kill().is_ok();
        drop(child.wait());
        killed
    }

    fn has_ended(&self) -> bool {
        self.child().as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

fn spawn(
    program: &Path,
    directory: &Path,
    name: String,
    listen: String,
    http: String,
    seeds: &[String],
) -> Result<Peer> {
    let log = directory.join(format!("{name}.log"));
    let file = File::create(&log).map_err(cannot("log file"))?;
    let errors = file.try_clone().map_err(cannot("log file"))?;
    let child = Command::new(program)
        .args(["start", "--exit-with-parent", "--name", &name, "--listen", &listen, "--http", &http])
        .args(["--seeds", &seeds.join(",")])
        .arg("--data")
        .arg(directory.join(&name))
        .env("RUST_LOG", "warn")
        // A variable that is meant for another peer must not change these.
        .env_remove("KEYSTEAD_CONFIG")
        .stdin(Stdio::piped())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .map_err(cannot("peer process"))?;
    Ok(Peer { name, address: listen, http, log, child: Mutex::new(Some(child)) })
}

fn cannot(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::new(Code::Internal, format!("the demo's {what} cannot be had: {error}")).remedy("run it again")
}

fn loopback(port: u16) -> String {
    format!("{}:{port}", Ipv4Addr::LOCALHOST)
}

/// Ports that nobody uses for TCP or UDP at the moment, all different.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    // Two demos that start together begin to look at different places.
    let width = u32::from(PORTS.end - PORTS.start);
    let start = std::process::id().wrapping_mul(61) % width;
    let ports = (0..width).map(|step| PORTS.start + ((start + step) % width) as u16);
    let free: Vec<u16> = ports.filter(|port| is_free(*port)).take(count).collect();
    if free.len() == count { Ok(free) } else { Err(cannot("port")(ErrorKind::AddrInUse.into())) }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() { "none".to_owned() } else { lines[lines.len().saturating_sub(LOG_LINES)..].join(" / ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_avoid_what_is_taken() {
        let first = free_ports(3).expect("free");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first[0])).expect("it was free");
        let second = free_ports(6).expect("free");
        drop(taken);
        assert!(!second.contains(&first[0]));
        let unique: std::collections::BTreeSet<u16> = second.iter().copied().collect();
        assert_eq!(unique.len(), 6);
    }

    fn sleeper(directory: &Path, name: &str) -> Peer {
        let child = Command::new("sleep").arg("600").stdin(Stdio::piped()).spawn().expect("sleep starts");
        let log = directory.join(format!("{name}.log"));
        Peer { name: name.to_owned(), address: String::new(), http: String::new(), log, child: Mutex::new(Some(child)) }
    }

    #[test]
    fn dropping_kills_the_processes_and_removes_the_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let peers = Peers {
            peers: vec![sleeper(&path, "n1"), sleeper(&path, "n2")],
            joiner: OnceLock::from(sleeper(&path, "n4")),
            joiner_ports: (0, 0),
            directory: Some(directory),
        };
        let pids: Vec<u32> = peers.all().filter_map(|peer| peer.child().as_ref().map(Child::id)).collect();
        assert_eq!(peers.alive(), ["n1", "n2", "n4"]);
        assert!(peers.kill("n2") && !peers.kill("n2") && !peers.kill("n9"));
        assert_eq!(peers.alive(), ["n1", "n4"]);
        drop(peers);
        assert!(!path.exists());
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} lives");
        }
    }

    #[test]
    fn an_error_shows_the_end_of_the_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("n1.log");
        assert_eq!(last_lines(&log), "none");
        std::fs::write(&log, "one\ntwo\n\nthree\nfour\n").expect("written");
        assert_eq!(last_lines(&log), "two / three / four");
    }
}
