//! Peers on this machine as processes of their own, with a temporary directory: what the demo and
//! `dev` run. In: this program's own file. Out: addresses to talk to, and the means to add, kill and
//! start again. Whatever happens to the command, the processes and the directory go with it: when
//! this is dropped they are killed and removed, and if the command itself is killed the peers see
//! their standard input end and stop.

pub(super) mod endpoint;
mod parent;

pub(super) use parent::exit_with_parent;

use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tempfile::TempDir;

/// Peers that found the grid.
pub(super) const FOUNDERS: usize = 3;
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
    /// Its name: `n` and its number.
    pub(super) name: String,
    /// Where clients reach it.
    pub(super) address: String,
    http: String,
    child: Mutex<Option<Child>>,
}

/// The processes and their directory.
pub(super) struct Peers {
    program: PathBuf,
    seeds: Vec<String>,
    peers: RwLock<Vec<Arc<Peer>>>,
    directory: Mutex<Option<TempDir>>,
}

impl Peers {
    /// Starts the founders; see [`Peers::wait_ready`].
    ///
    /// # Errors
    /// `Internal` when a port, the directory or a process cannot be had.
    pub(super) fn start() -> Result<Peers> {
        let directory =
            tempfile::Builder::new().prefix("keystead-peers-").tempdir().map_err(cannot("temporary directory"))?;
        let program = std::env::current_exe().map_err(cannot("own program file"))?;
        let ports = free_ports(2 * FOUNDERS, &[])?;
        let (listen, http) = ports.split_at(FOUNDERS);
        let seeds: Vec<String> = listen.iter().map(|port| loopback(*port)).collect();
        let started = Peers { program, seeds, peers: RwLock::default(), directory: Mutex::new(Some(directory)) };
        for (listen, http) in listen.iter().zip(http) {
            started.spawn_next(*listen, *http)?;
        }
        Ok(started)
    }

    /// Starts one more peer, which joins the grid; its name.
    ///
    /// # Errors
    /// As [`Peers::start`].
    pub(super) fn add(&self) -> Result<String> {
        let used: Vec<String> = self.all().iter().flat_map(|peer| [peer.address.clone(), peer.http.clone()]).collect();
        let ports = free_ports(2, &used)?;
        self.spawn_next(ports[0], ports[1])
    }

    fn spawn_next(&self, listen: u16, http: u16) -> Result<String> {
        let name = format!("n{}", self.all().len() + 1);
        let peer =
            Peer { name: name.clone(), address: loopback(listen), http: loopback(http), child: Mutex::new(None) };
        self.run(&peer)?;
        self.peers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(peer));
        Ok(name)
    }

    fn path(&self) -> Result<PathBuf> {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let path = directory.as_ref().map(|directory| directory.path().to_owned());
        path.ok_or_else(|| cannot("temporary directory")(ErrorKind::NotFound.into()))
    }

    /// Starts a peer's process.
    fn run(&self, peer: &Peer) -> Result<()> {
        let directory = self.path()?;
        let log = File::options().create(true).append(true).open(log_of(&directory, &peer.name));
        let log = log.map_err(cannot("log file"))?;
        let errors = log.try_clone().map_err(cannot("log file"))?;
        let mut command = Command::new(&self.program);
        // A variable that is meant for another peer must not change these: each stands for an option.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYSTEAD_")) {
            command.env_remove(name);
        }
        let child = command
            .args(["start", "--exit-with-parent", "--name", &peer.name, "--listen", &peer.address])
            .args(["--http", &peer.http, "--seeds", &self.seeds.join(",")])
            .arg("--data")
            .arg(directory.join(&peer.name))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(cannot("peer process"))?;
        *peer.child() = Some(child);
        Ok(())
    }

    /// Starts a peer again that has been killed or has ended, with its data; whether there was one.
    ///
    /// # Errors
    /// As [`Peers::start`].
    pub(super) fn start_again(&self, name: &str) -> Result<bool> {
        let Some(peer) = self.find(name).filter(|peer| peer.has_ended()) else { return Ok(false) };
        self.run(&peer)?;
        Ok(true)
    }

    /// All peers, in the order in which they were first started.
    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, name: &str) -> Option<Arc<Peer>> {
        self.all().into_iter().find(|peer| peer.name == name)
    }

    /// The peers' addresses.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.all().iter().map(|peer| peer.address.clone()).collect()
    }

    /// Waits until every peer says that it is ready.
    ///
    /// # Errors
    /// `NotReady` with the peer's own reason, or with its last words if it has ended.
    pub(super) async fn wait_ready(&self) -> Result<()> {
        let give_up = Instant::now() + READY_WITHIN;
        for peer in self.all() {
            loop {
                let why = match endpoint::get(&peer.http, "/readyz", ASK).await {
                    Ok((200, _)) => break,
                    Ok((_, body)) => body.trim().to_owned(),
                    Err(error) => error.what,
                };
                let ended = peer.has_ended();
                if ended || Instant::now() >= give_up {
                    let what = if ended { "the peer has ended".to_owned() } else { format!("not ready: {why}") };
                    let last = self.path().map(|path| last_lines(&log_of(&path, &peer.name))).unwrap_or_default();
                    return Err(Error::new(Code::NotReady, format!("{what}; its last words: {last}"))
                        .at(format!("peer {}", peer.name))
                        .remedy("run it again; `keystead start` by hand shows the whole log"));
                }
                clock::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// The last words of a peer's log.
    pub(super) fn last_words(&self, name: &str) -> String {
        self.path().map(|path| last_lines(&log_of(&path, name))).unwrap_or_default()
    }

    /// Kills the peer of this name with SIGKILL; whether there was one.
    pub(super) fn kill(&self, name: &str) -> bool {
        self.find(name).is_some_and(|peer| peer.kill())
    }

    /// The sum of a counter over one peer's metrics; `None` if it is not there.
    pub(super) async fn counters(&self, name: &str, counters: [&str; 2]) -> [Option<u64>; 2] {
        let Some(peer) = self.find(name) else { return [None; 2] };
        match endpoint::get(&peer.http, "/metrics", ASK).await {
            Ok((200, metrics)) => counters.map(|counter| endpoint::counter(&metrics, counter)),
            _ => [None; 2],
        }
    }

    /// Names of the peers whose processes run.
    pub(super) fn alive(&self) -> Vec<String> {
        self.all().iter().filter(|peer| !peer.has_ended()).map(|peer| peer.name.clone()).collect()
    }

    /// Kills what still runs and removes the directory.
    pub(super) fn stop(&self) {
        for peer in self.all() {
            peer.kill();
        }
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(directory) = directory {
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

    /// Where it answers HTTP.
    pub(super) fn http(&self) -> &str {
        &self.http
    }

    /// Kills it with SIGKILL; whether it ran.
    fn kill(&self) -> bool {
        let Some(mut child) = self.child().take() else { return false };
        // The process may have ended by itself; it must be waited for all the same.
        let killed = child.kill().is_ok();
        drop(child.wait());
        killed
    }

    /// Whether its process runs no more.
    pub(super) fn has_ended(&self) -> bool {
        self.child().as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

fn log_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

fn cannot(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::new(Code::Internal, format!("the {what} cannot be had: {error}")).remedy("run it again")
}

fn loopback(port: u16) -> String {
    format!("{}:{port}", Ipv4Addr::LOCALHOST)
}

/// Ports that nobody uses for TCP or UDP at the moment, all different and not among `used`.
fn free_ports(count: usize, used: &[String]) -> Result<Vec<u16>> {
    // Two commands that start together begin to look at different places.
    let width = u32::from(PORTS.end - PORTS.start);
    let start = std::process::id().wrapping_mul(61) % width;
    let ports = (0..width).map(|step| PORTS.start + ((start + step) % width) as u16);
    let free: Vec<u16> = ports.filter(|port| !used.contains(&loopback(*port)) && is_free(*port)).take(count).collect();
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
        let first = free_ports(3, &[]).expect("free");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first[0])).expect("it was free");
        let second = free_ports(6, &[loopback(first[1])]).expect("free");
        drop(taken);
        assert!(!second.contains(&first[0]) && !second.contains(&first[1]));
        let unique: std::collections::BTreeSet<u16> = second.iter().copied().collect();
        assert_eq!(unique.len(), 6);
    }

    fn sleeper(name: &str) -> Arc<Peer> {
        let child = Command::new("sleep").arg("600").stdin(Stdio::piped()).spawn().expect("sleep starts");
        let (address, http) = Default::default();
        Arc::new(Peer { name: name.to_owned(), address, http, child: Mutex::new(Some(child)) })
    }

    #[test]
    fn dropping_kills_the_processes_and_removes_the_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let peers = Peers {
            program: PathBuf::from("true"),
            seeds: Vec::new(),
            peers: RwLock::new(vec![sleeper("n1"), sleeper("n2")]),
            directory: Mutex::new(Some(directory)),
        };
        let pids: Vec<u32> = peers.all().iter().filter_map(|peer| peer.child().as_ref().map(Child::id)).collect();
        assert_eq!(peers.alive(), ["n1", "n2"]);
        assert!(!peers.start_again("n2").expect("asked"), "it runs");
        assert!(peers.kill("n2") && !peers.kill("n2") && !peers.kill("n9"));
        assert_eq!(peers.alive(), ["n1"]);
        assert!(peers.start_again("n2").expect("started") && !peers.start_again("n9").expect("asked"));
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
