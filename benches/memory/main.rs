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
//! Sizes: `--entries N --value-size BYTES --memory-limit SIZE --partitions N --operations N`; the last
//! are random reads, writes and deletions of `large`, each read compared. `fjall` needs
//! `--features fjall`. `--dir DIR` names a directory on the disk to be measured, `--json` prints
//! the figures as JSON. `KEYSTEAD_BENCH_PROGRAM` names another program to measure than the one built
//! with the benchmark. The run fails if an acknowledged entry does not come back as it was
//! written, and `large` if a peer's resident set is ever over twice the limit; sled's is printed.

mod history;
mod peer;

use history::{History, key};
use keystead::client::{Client, ClientConfig};
use keystead::clock;
use keystead::types::{KeyCodec, ValueCodec};
use peer::{Peer, disk_bytes, free_ports};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Done<T> = Result<T, BoxError>;

const MAP: &str = "bench";
/// Entries of one request.
const LOT: u64 = 256;
/// Requests under way.
const AT_ONCE: u64 = 8;
const MIB: u64 = 1 << 20;
/// How often everything is written once more, to see what checkpoints take on disk.
const REWRITES: usize = 5;
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
    operations: u64,
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
        operations: 100_000,
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
            "--operations" => options.operations = value.parse()?,
            "--dir" => options.dir = Some(value.into()),
            _ => return Err(format!("there is no option {option}").into()),
        }
    }
    Ok(options)
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
    let sampler = Sampler::start(peers.iter().map(Peer::id).collect());
    let client = connect(&peers).await?;
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Bytes, 0).await?;
    let mut figures = BTreeMap::new();
    let payload = options.entries * (key(0).len() + options.value_size) as u64;
    figures.insert("payload_bytes", payload as f64);
    let history = History::new(client, options.entries, options.value_size);
    figures.insert("load_seconds", history.load().await?);
    figures.insert("rss_empty_bytes", empty as f64);
    figures.insert("rss_loaded_bytes", largest(&peers, "VmRSS") as f64);
    figures.insert("check_seconds", history.check().await?);
    if options.what == "large" {
        figures.insert("mixed_seconds", history.mix(options.operations).await?);
        figures.insert("check_mixed_seconds", history.check().await?);
    }
    figures.insert("rss_checked_bytes", largest(&peers, "VmRSS") as f64);
    figures.insert("rss_most_bytes", sampler.most().into_iter().max().unwrap_or(0) as f64);
    figures.insert("rss_high_water_bytes", largest(&peers, "VmHWM") as f64);
    drop(sampler);
    let disk = |below: &str| disk_bytes(&peers[0].data.join(below)) as f64;
    figures.insert("disk_state_bytes", disk("state"));
    figures.insert("disk_log_bytes", disk("log"));
    if options.what == "entries" {
        // Again and again, until the logs are long enough for checkpoints, and are cut behind them.
        for _ in 0..REWRITES {
            history.load().await?;
        }
        figures.insert("rss_rewritten_bytes", largest(&peers, "VmRSS") as f64);
        figures.insert("disk_state_rewritten_bytes", disk("state"));
        figures.insert("disk_log_rewritten_bytes", disk("log"));
    }
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
        let history = history.through(connect(&peers).await?);
        figures.insert("check_again_seconds", history.check().await?);
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
    if let (Some(over), Some(limit)) = (over_twice(options, figures), limit(options)) {
        let verdict = match over > 0.0 {
            true => format!("OVER twice the limit by {over:.0} MiB"),
            false => "under twice the limit".to_owned(),
        };
        let most = highest(figures) / limit;
        writeln!(out, "{:<22} {most:>10.2} times the limit: {verdict}", "rss at its highest")?;
    }
    Ok(())
}

fn limit(options: &Options) -> Option<f64> {
    let limit = keystead::config::parse_size(options.memory_limit.as_deref()?).ok()?;
    Some(limit as f64)
}

fn highest(figures: &BTreeMap<&'static str, f64>) -> f64 {
    let figure = |name| figures.get(name).copied().unwrap_or(0.0);
    figure("rss_high_water_bytes").max(figure("rss_high_water_again_bytes"))
}

/// MiB of the resident set at its highest beyond twice the limit; negative where it stayed below.
fn over_twice(options: &Options, figures: &BTreeMap<&'static str, f64>) -> Option<f64> {
    Some((highest(figures) - 2.0 * limit(options)?) / MIB as f64)
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
    let figures = figures?;
    print(&options, &figures)?;
    // What sled takes beside the limit is known, and documented.
    let must_hold = options.what == "large" && options.backend != "sled";
    match over_twice(&options, &figures).filter(|over| must_hold && *over > 0.0) {
        Some(over) => Err(format!("the resident set was {over:.0} MiB over twice the memory limit").into()),
        None => Ok(()),
    }
}
