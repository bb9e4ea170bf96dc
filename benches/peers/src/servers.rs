//! Starts a system's servers as processes of their own, on free ports of the loopback address and in
//! a temporary directory, and stops them: when this is dropped, processes and directory are gone.

use crate::AS_PEER;
use crate::cli::{EtcdTo, Options};
use crate::target::{Etcd, GridTarget, Redis, System, Target, etcd_leader};
use anyhow::{Context, Result};
use keystead::clock::{self, Instant};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Servers of each system.
pub const SERVERS: usize = 3;
/// How long a system may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two tries.
const POLL: Duration = Duration::from_millis(100);
/// Ticks of the kernel's CPU accounting in a second, on every Linux there is.
const TICKS: f64 = 100.0;

/// A system's servers.
pub struct Servers {
    system: System,
    addresses: Vec<String>,
    children: Vec<Child>,
    _directory: TempDir,
}

fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free for both TCP and UDP")
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

impl Servers {
    /// Starts the servers; they may not answer yet.
    ///
    /// # Errors
    /// When a program is missing or cannot be started.
    pub fn start(system: System, options: &Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bench-peers-").tempdir()?;
        let ports = (0..2 * SERVERS).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let (serve, second) = ports.split_at(SERVERS);
        let addresses: Vec<String> = serve.iter().map(|port| loopback(*port)).collect();
        let mut servers = Servers { system, addresses, children: Vec::new(), _directory: directory };
        for at in 0..SERVERS {
            let data = servers._directory.path().join(format!("n{at}"));
            std::fs::create_dir_all(&data)?;
            let mut command = match system {
                System::Keystead => servers.keystead(at, &data, options)?,
                System::Etcd => servers.etcd(at, &data, second),
                System::Redis => servers.redis(at, &data, serve),
            };
            let log = std::fs::File::create(servers._directory.path().join(format!("n{at}.log")))?;
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            let program = command.get_program().to_string_lossy().into_owned();
            let child = command
                .spawn()
                .with_context(|| format!("{program} cannot be started; install it, or leave it out with --systems"))?;
            servers.children.push(child);
        }
        Ok(servers)
    }

    fn keystead(&self, at: usize, data: &Path, options: &Options) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([AS_PEER, "start", "--name", &format!("n{at}"), "--listen", &self.addresses[at]])
            .args(["--seeds", &self.addresses.join(","), "--partitions", &options.partitions.to_string()])
            .arg("--data")
            .arg(data)
            .env("RUST_LOG", "warn");
        // Each of them stands for an option: the grid is to be the one that the report describes.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYSTEAD_")) {
            command.env_remove(name);
        }
        Ok(command)
    }

    fn etcd(&self, at: usize, data: &Path, peer_ports: &[u16]) -> Command {
        let url = |address: &str| format!("http://{address}");
        let cluster: Vec<String> =
            peer_ports.iter().enumerate().map(|(at, port)| format!("n{at}=http://127.0.0.1:{port}")).collect();
        let (client, peer) = (url(&self.addresses[at]), url(&loopback(peer_ports[at])));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("n{at}"), "--log-level", "error", "--initial-cluster-state", "new"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--quota-backend-bytes", "8589934592"])
            .arg("--data-dir")
            .arg(data);
        command
    }

    fn redis(&self, at: usize, data: &Path, ports: &[u16]) -> Command {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &ports[at].to_string(), "--save", "", "--protected-mode", "no"])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"])
            .args(["--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(data);
        if at > 0 {
            command.args(["--replicaof", "127.0.0.1", &ports[0].to_string()]);
        }
        command
    }

    /// Connects as soon as the system answers.
    ///
    /// # Errors
    /// When it does not in time, with the end of its first server's log.
    pub async fn connect(&self, options: &Options) -> Result<Target> {
        let give_up = Instant::now() + READY_WITHIN;
        loop {
            let error = match self.try_connect(options).await {
                Ok(target) => return Ok(target),
                Err(error) => error,
            };
            if Instant::now() >= give_up {
                let log = std::fs::read_to_string(self._directory.path().join("n0.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("nothing").to_owned();
                return Err(error.context(format!("{} does not answer; its last words: {last}", self.system)));
            }
            clock::sleep(POLL).await;
        }
    }

    async fn try_connect(&self, options: &Options) -> Result<Target> {
        let probe = "probe".to_owned();
        let target = match self.system {
            System::Keystead => Target::Grid(GridTarget::connect(self.addresses.clone()).await?),
            System::Etcd => {
                let leader = etcd_leader(&self.addresses).await?;
                let asked = if options.etcd_to == EtcdTo::Leader { vec![leader] } else { self.addresses.clone() };
                Target::Etcd(Etcd::connect(&asked, options.connections).await?)
            }
            System::Redis => {
                let redis = Redis::connect(&self.addresses[0], options.connections).await?;
                let replicas = redis.replicas().await?;
                anyhow::ensure!(replicas == SERVERS - 1, "{replicas} replicas are connected");
                Target::Redis(redis)
            }
        };
        target.put(probe, vec![0]).await?;
        Ok(target)
    }

    /// Seconds of CPU that the servers have used, user and system; `None` where the kernel does not
    /// say.
    pub fn cpu_seconds(&self) -> Option<f64> {
        self.children.iter().map(|child| cpu_seconds(&format!("/proc/{}/stat", child.id()))).sum()
    }
}

/// Seconds of CPU that this process has used.
pub fn own_cpu_seconds() -> Option<f64> {
    cpu_seconds("/proc/self/stat")
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let text = std::fs::read_to_string(stat).ok()?;
    // The second field, the program's name, stands in parentheses and may hold spaces.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself; it must be waited for all the same.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
