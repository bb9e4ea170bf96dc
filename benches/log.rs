//! The shared log against the least that durable group commit can cost: writers put 256 bytes into
//! a queue, one thread writes all that waits and syncs. Both sides have the same writers (tasks),
//! the same payloads and the same disk, and take turns.
//!
//! `cargo bench --bench log` (`KEYSTEAD_BENCH_DIR` names a directory on the disk to be measured).

use bytes::Bytes;
use keystead::clock::{self, Instant, SystemRandom, SystemThreads, ThreadKind, Threads};
use keystead::storage::disk::StdDisk;
use keystead::storage::log::{GroupLog, LogConfig, SharedLog};
use keystead::types::GroupId;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

const GROUPS: u32 = 64;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1500);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Payloads that do not compress.
fn payload() -> Bytes {
    use keystead::clock::Random;
    (0..PAYLOAD / 8).flat_map(|_| SystemRandom.next_u64().to_le_bytes()).collect()
}

/// What is measured: something that takes 256 bytes and says when they are durable.
trait Side: Send + Sync + 'static {
    fn write(&self, writer: usize, payload: Bytes) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// Our log. Each group's writers take turns at appending, not at waiting.
struct Ours {
    log: SharedLog,
    groups: Vec<(GroupLog, tokio::sync::Mutex<u64>)>,
}

impl Side for Ours {
    async fn write(&self, writer: usize, payload: Bytes) -> Result<(), BoxError> {
        let (group, next) = &self.groups[writer % self.groups.len()];
        let (sender, receiver) = oneshot::channel();
        {
            let mut next = next.lock().await;
            group.append(vec![(*next, payload)], move |result| drop(sender.send(result))).await?;
            *next += 1;
        }
        receiver.await??;
        Ok(())
    }
}

#[derive(Default)]
struct RawQueue {
    waiting: Vec<(Bytes, oneshot::Sender<()>)>,
    closed: bool,
}

/// The raw loop.
struct Raw(Arc<(Mutex<RawQueue>, Condvar)>);

impl Side for Raw {
    async fn write(&self, _: usize, payload: Bytes) -> Result<(), BoxError> {
        let (sender, receiver) = oneshot::channel();
        self.0.0.lock().map_err(|_| "poisoned")?.waiting.push((payload, sender));
        self.0.1.notify_one();
        Ok(receiver.await?)
    }
}

fn raw_loop(queue: &(Mutex<RawQueue>, Condvar), mut file: File) -> Result<(), BoxError> {
    let mut buffer = Vec::new();
    loop {
        let batch = {
            let queue_state = queue.0.lock().map_err(|_| "poisoned")?;
            let mut queue_state = queue
                .1
                .wait_while(queue_state, |state| state.waiting.is_empty() && !state.closed)
                .map_err(|_| "poisoned")?;
            if queue_state.waiting.is_empty() {
                return Ok(());
            }
            std::mem::take(&mut queue_state.waiting)
        };
        buffer.clear();
        for (payload, _) in &batch {
            buffer.extend_from_slice(payload);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        for (_, sender) in batch {
            // A writer that no longer waits wants no answer.
            let _ = sender.send(());
        }
    }
}

/// Durable writes a second with so many writers.
async fn measure<S: Side>(side: Arc<S>, writers: usize) -> Result<f64, BoxError> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (side, payload) = (side.clone(), payload());
            clock::spawn(async move {
                let mut count = 0u64;
                while start.elapsed() < ROUND {
                    side.write(writer, payload.clone()).await?;
                    count += 1;
                }
                Ok::<u64, BoxError>(count)
            })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

async fn ours(dir: &Path, writers: usize) -> Result<(f64, f64), BoxError> {
    let (log, _) = SharedLog::open(Arc::new(StdDisk), Arc::new(SystemThreads), dir, LogConfig::default())?;
    let mut groups = Vec::new();
    for group in 0..GROUPS {
        groups.push((log.register(GroupId(group), 1).await?, tokio::sync::Mutex::new(0)));
    }
    let side = Arc::new(Ours { log, groups });
    let rate = measure(side.clone(), writers).await?;
    let stats = side.log.stats();
    side.log.shutdown().await;
    Ok((rate, stats.entries as f64 / stats.batches.max(1) as f64))
}

async fn raw(dir: &Path, writers: usize) -> Result<f64, BoxError> {
    let file = File::create_new(dir.join("raw"))?;
    let queue: Arc<(Mutex<RawQueue>, Condvar)> = Arc::default();
    let (loop_queue, (ended, end)) = (queue.clone(), oneshot::channel());
    SystemThreads.run(ThreadKind::Log, Box::new(move || drop(ended.send(raw_loop(&loop_queue, file)))));
    let rate = measure(Arc::new(Raw(queue.clone())), writers).await?;
    queue.0.lock().map_err(|_| "poisoned")?.closed = true;
    queue.1.notify_one();
    end.await??;
    Ok(rate)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn run() -> Result<(), BoxError> {
    let base = std::env::var_os("KEYSTEAD_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    println!(
        "{PAYLOAD} B on {GROUPS} groups, {ROUNDS} rounds of {ROUND:?} a side, medians; ratio of each round's pair"
    );
    println!("| writers | ours, writes/s | raw, writes/s | ours/raw | worst..best | entries a sync |");
    println!("|---|---|---|---|---|---|");
    for writers in [1, 16, 64, 256] {
        let (mut our_rates, mut raw_rates, mut ratios, mut sizes) = (vec![], vec![], vec![], vec![]);
        for round in 0..ROUNDS {
            let dir = tempfile::tempdir_in(&base)?;
            // The side that goes first changes, lest one always find the disk tired.
            let early = if round % 2 == 0 { Some(raw(dir.path(), writers).await?) } else { None };
            let (our_rate, size) = ours(&dir.path().join("log"), writers).await?;
            let raw_rate = match early {
                Some(rate) => rate,
                None => raw(dir.path(), writers).await?,
            };
            our_rates.push(our_rate);
            raw_rates.push(raw_rate);
            ratios.push(our_rate / raw_rate);
            sizes.push(size);
        }
        let (worst, best) = ratios.iter().fold((f64::MAX, 0f64), |(low, high), r| (low.min(*r), high.max(*r)));
        let (ours, raw, size) = (median(our_rates), median(raw_rates), median(sizes));
        println!("| {writers} | {ours:.0} | {raw:.0} | {:.2} | {worst:.2}..{best:.2} | {size:.1} |", median(ratios));
    }
    Ok(())
}

fn main() -> Result<(), BoxError> {
    // `cargo test --benches` only wants to see that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}
