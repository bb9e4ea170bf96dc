//! What a state costs in RAM and on disk, how fast a peer with it starts again, and what a memory
//! limit keeps. Peers are processes of their own; every figure is the operating system's (VmRSS,
//! VmHWM, file sizes), none is our own account.
//!
//! ```text
//! cargo bench --bench memory -- entries [--backend memory|sled|fjall]     RAM and disk per payload byte
//! cargo bench --bench memory -- recovery [--backend ...] [--replicas 1|3] SIGKILL to /readyz
//! cargo bench --bench memory -- large [--backend ...] [--replicas 1|3]    state of four times the limit
//! ```
//!
//! Sizes: `--entries N --value-size BYTES --memory-limit SIZE --partitions N`. `fjall` needs
//! `--features fjall`. `--dir DIR` names a directory on the disk to be measured, `--json` prints
//! the figures as JSON. `KEYSTEAD_BENCH_PROGRAM` names another program to measure than the one built
//! with the benchmark. The run fails if an acknowledged entry does not come back as it was
//! written.

use keystead::client::{Client, ClientConfig};
use keystead::clock::{self, Instant};
use keystead::types::{KeyCodec, Value, ValueCodec};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Done<T> = Result<T, BoxError>;

const MAP: &str = "bench";
/// Entries of one request.
const LOT: u64 = 256;
/// Requests under way.
const AT_ONCE: u64 = 8;
const MIB: u64 = 1 << 20;
/// A request may take so long: this measures memory, and a machine that does other things as well must
/// not end it.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Options {
    what: String,
    backend: String,
    replicas: u32,
    partitions: u32,
    entries: u64,
    value_size: usize,
    memory_limit: Option<String>,
    dir: Option<PathBuf>,
    json: bool,
}

fn options() -> Done<Options> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let what = args.next().unwrap_or_else(|| "entries".to_owned());
    let (entries, value_size, limit) = match what.as_str() {
        "entries" | "recovery" => (1_000_000, 100, None),
        "large" => (MIB, 1024, Some("256MiB".to_owned())),
        other => return Err(format!("{other:?} is none of entries, recovery, large").into()),
    };
    let mut options = Options {
        what,
        backend: "sled".to_owned(),
        replicas: 1,
        partitions: 64,
        entries,
        value_size,
        memory_limit: limit,
        dir: None,
        json: false,
    };
    while let Some(option) = args.next() {
        if option == "--json" {
            options.json = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--backend" => options.backend = value,
            "--replicas" => options.replicas = value.parse()?,
            "--partitions" => options.partitions = value.parse()?,
            "--entries" => options.entries = value.parse()?,
            "--value-size" => options.value_size = value.parse()?,
            "--memory-limit" => options.memory_limit = Some(value),
            "--dir" => options.dir = Some(value.into()),
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    Ok(options)
}

/// A peer as a process.
struct Peer {
    child: Child,
    address: String,
    http: String,
    data: PathBuf,
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
fn free_ports(count: usize) -> Done<Vec<u16>> {
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
    fn start(options: &Options, dir: &Path, at: usize, seeds: &[String], http: u16) -> Done<Peer> {
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
    fn restart(&mut self, dir: &Path) -> Done<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let begun = Instant::now();
        self.child = spawn(&self.command, &dir.join("restarted.log"))?;
        self.wait_ready()?;
        Ok(begun.elapsed())
    }

    fn wait_ready(&mut self) -> Done<()> {
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

    /// A figure of /proc/PID/status, in bytes.
    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// A metric of ours.
    fn metric(&self, name: &str) -> Option<u64> {
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
fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn key(number: u64) -> String {
    format!("key-{number:012}")
}

/// The value of a key's n-th write: nothing in it repeats, so that nothing compresses it.
fn value(number: u64, version: u64, size: usize) -> Value {
    let words = (0..size.div_ceil(8) as u64).map(|at| mix(mix(number ^ (version << 48)).wrapping_add(at)));
    let mut data: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    data.truncate(size);
    Value::bytes(data)
}

/// Runs `work` for every lot of entries, several at once.
async fn in_lots<F>(entries: u64, work: impl Fn(std::ops::Range<u64>) -> F + Send + Sync + 'static) -> Done<()>
where
    F: Future<Output = Done<()>> + Send + 'static,
{
    let (next, work) = (Arc::new(AtomicU64::new(0)), Arc::new(work));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (next, work) = (next.clone(), work.clone());
            clock::spawn(async move {
                loop {
                    let first = next.fetch_add(LOT, Relaxed);
                    if first >= entries {
                        return Done::Ok(());
                    }
                    work(first..(first + LOT).min(entries)).await?;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

/// The version that the history's last acknowledged write gave a key: each tenth is overwritten.
fn last_version(number: u64) -> u64 {
    u64::from(number % 10 == 3)
}

async fn load(client: &Client, options: &Options) -> Done<f64> {
    let begun = Instant::now();
    for version in [0, 1] {
        let (client, size) = (client.clone(), options.value_size);
        in_lots(options.entries, move |lot| {
            let client = client.clone();
            async move {
                let entries: Vec<_> = lot
                    .filter(|number| version == 0 || last_version(*number) == 1)
                    .map(|number| (key(number), value(number, version, size)))
                    .collect();
                client.put_many(MAP, entries).await?;
                Ok(())
            }
        })
        .await?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Reads every entry and compares it with the last acknowledged write.
async fn check(client: &Client, options: &Options) -> Done<f64> {
    let begun = Instant::now();
    let (client, size) = (client.clone(), options.value_size);
    in_lots(options.entries, move |lot| {
        let client = client.clone();
        async move {
            let keys: Vec<String> = lot.clone().map(key).collect();
            let found = client.get_many(MAP, &keys).await?;
            for (number, found) in lot.zip(found) {
                let wanted = value(number, last_version(number), size);
                if found.map(|stored| stored.value) != Some(wanted) {
                    return Err(format!("{} is not what was acknowledged", key(number)).into());
                }
            }
            Ok(())
        }
    })
    .await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Samples the peers' resident sets until it is dropped; gives the largest of each.
struct Sampler(Arc<std::sync::Mutex<Vec<u64>>>, clock::JoinHandle<()>);

impl Sampler {
    fn start(pids: Vec<u32>) -> Self {
        let most = Arc::new(std::sync::Mutex::new(vec![0; pids.len()]));
        let seen = most.clone();
        let sampling = clock::spawn(async move {
            loop {
                for (at, pid) in pids.iter().enumerate() {
                    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
                    let pages =
                        statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
                    if let Ok(mut seen) = seen.lock() {
                        seen[at] = seen[at].max(pages * 4096);
                    }
                }
                clock::sleep(Duration::from_millis(50)).await;
            }
        });
        Sampler(most, sampling)
    }

    fn most(&self) -> Vec<u64> {
        self.0.lock().map(|most| most.clone()).unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.1.abort();
    }
}

async fn connect(peers: &[Peer]) -> Done<Client> {
    let config = ClientConfig { deadline: DEADLINE, ..ClientConfig::default() };
    Ok(Client::connect(peers.iter().map(|peer| peer.address.clone()).collect(), config).await?)
}

fn largest(peers: &[Peer], name: &str) -> u64 {
    peers.iter().map(|peer| peer.memory(name)).max().unwrap_or(0)
}

async fn run(options: &Options, dir: &Path) -> Done<BTreeMap<&'static str, f64>> {
    let count = if options.replicas == 1 { 1 } else { 3 };
    let ports = free_ports(2 * count)?;
    let seeds: Vec<String> = ports[..count].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut peers = Vec::new();
    for at in 0..count {
        peers.push(Peer::start(options, dir, at, &seeds, ports[count + at])?);
    }
    for peer in &mut peers {
        peer.wait_ready()?;
    }
    let empty = largest(&peers, "VmRSS");
    let sampler = Sampler::start(peers.iter().map(|peer| peer.child.id()).collect());
    let client = connect(&peers).await?;
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Bytes, 0).await?;
    let mut figures = BTreeMap::new();
    let payload = options.entries * (key(0).len() + options.value_size) as u64;
    figures.insert("payload_bytes", payload as f64);
    figures.insert("load_seconds", load(&client, options).await?);
    figures.insert("rss_empty_bytes", empty as f64);
    figures.insert("rss_loaded_bytes", largest(&peers, "VmRSS") as f64);
    figures.insert("check_seconds", check(&client, options).await?);
    figures.insert("rss_checked_bytes", largest(&peers, "VmRSS") as f64);
    figures.insert("rss_most_bytes", sampler.most().into_iter().max().unwrap_or(0) as f64);
    figures.insert("rss_high_water_bytes", largest(&peers, "VmHWM") as f64);
    drop(sampler);
    let disk = |below: &str| disk_bytes(&peers[0].data.join(below)) as f64;
    figures.insert("disk_state_bytes", disk("state"));
    figures.insert("disk_log_bytes", disk("log"));
    for (figure, metric) in [
        ("own_account_bytes", "keystead_memory_used_bytes"),
        ("cold_rows", "keystead_rows_cold"),
        ("cold_reads", "keystead_memory_cold_reads_total"),
        ("cold_reads_unforeseen", "keystead_memory_cold_reads_unforeseen_total"),
        ("stalls", "keystead_memory_stalls_total"),
    ] {
        figures.insert(figure, peers[0].metric(metric).unwrap_or(0) as f64);
    }
    if options.what != "entries" {
        for peer in &mut peers {
            let took = peer.restart(dir)?.as_secs_f64();
            let slowest = figures.entry("recovery_seconds").or_insert(0.0);
            *slowest = slowest.max(took);
            if options.what == "recovery" {
                break;
            }
        }
        for peer in &mut peers {
            peer.wait_ready()?;
        }
        figures.insert("rss_recovered_bytes", largest(&peers, "VmRSS") as f64);
        let client = connect(&peers).await?;
        figures.insert("check_again_seconds", check(&client, options).await?);
        figures.insert("rss_high_water_again_bytes", largest(&peers, "VmHWM") as f64);
    }
    Ok(figures)
}

fn print(options: &Options, figures: &BTreeMap<&'static str, f64>) -> Done<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        let line = json!({ "options": format!("{options:?}"), "figures": figures });
        return Ok(writeln!(out, "{line}")?);
    }
    writeln!(
        out,
        "{} with {}, {} replicas: {} entries of {} bytes, memory limit {}",
        options.what,
        options.backend,
        options.replicas,
        options.entries,
        options.value_size,
        options.memory_limit.as_deref().unwrap_or("none")
    )?;
    let payload = figures.get("payload_bytes").copied().unwrap_or(1.0);
    for (name, figure) in figures {
        match name.strip_suffix("_bytes") {
            Some(name) => {
                let (mib, share) = (figure / MIB as f64, figure / payload);
                writeln!(out, "{name:<22} {mib:>10.1} MiB {share:>8.2} per payload byte")?;
            }
            None => writeln!(out, "{name:<22} {figure:>10.2}")?,
        }
    }
    if let Some(limit) = options.memory_limit.as_deref().and_then(|limit| keystead::config::parse_size(limit).ok()) {
        let most = figures.get("rss_high_water_bytes").copied().unwrap_or(0.0);
        let most = most.max(figures.get("rss_high_water_again_bytes").copied().unwrap_or(0.0));
        let over = (most - 2.0 * limit as f64) / MIB as f64;
        let verdict = if over > 0.0 {
            format!("OVER twice the limit by {over:.0} MiB")
        } else {
            "under twice the limit".to_owned()
        };
        writeln!(out, "{:<22} {:>10.2} times the limit: {verdict}", "rss at its highest", most / limit as f64)?;
    }
    Ok(())
}

fn main() -> Done<()> {
    let options = options()?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(run(&options, dir.path()));
    if figures.is_err() {
        for name in ["n1", "n2", "n3"] {
            let log = fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            last.iter().rev().for_each(|line| eprintln!("{name}: {line}"));
        }
    }
    print(&options, &figures?)
}
