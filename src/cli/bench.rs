//! `bench`: a closed loop over the client's streams.
//!
//! In: how many operations, how many at once, of which kind. Out: throughput and latencies as the
//! caller sees them. With reads, the keys are written first, outside the measurement.

use super::args::BenchArgs;
use super::output;
use crate::client::Client;
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::types::{KeyCodec, Value, ValueCodec};
use hdrhistogram::Histogram;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The map that is written and read.
const MAP: &str = "bench";
/// Entries written at once before the measurement.
const PRELOAD: u64 = 1000;
/// Latencies above this count as this, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// A stream of numbers that looks random and is the same each time (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

struct Progress {
    taken: AtomicU64,
    done: AtomicU64,
}

struct Outcome {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<Error>,
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|error| Error::internal(error.to_string()))
}

fn key(number: u64) -> String {
    format!("key-{number:08}")
}

fn value(size: u32, numbers: &mut Numbers) -> Value {
    let mut data = Vec::with_capacity(size as usize + 8);
    while data.len() < size as usize {
        data.extend_from_slice(&numbers.next().to_le_bytes());
    }
    data.truncate(size as usize);
    Value::bytes(data)
}

async fn worker(client: Client, args: BenchArgs, progress: Arc<Progress>, seed: u64) -> Result<Outcome> {
    let mut numbers = Numbers(seed);
    let mut outcome = Outcome { latencies: histogram()?, errors: 0, first_error: None };
    while progress.taken.fetch_add(1, Ordering::Relaxed) < args.ops {
        let key = key(numbers.next() % args.keys);
        let reads = numbers.next() % 100 < u64::from(args.reads);
        let start = Instant::now();
        let result = if reads {
            client.get(MAP, key).await.map(drop)
        } else {
            client.put(MAP, key, value(args.value_size, &mut numbers)).await.map(drop)
        };
        let us = start.elapsed().as_micros().min(u128::from(LONGEST_US)) as u64;
        match result {
            Ok(()) => outcome.latencies.saturating_record(us.max(1)),
            Err(error) => {
                outcome.errors += 1;
                outcome.first_error.get_or_insert(error);
            }
        }
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(outcome)
}

async fn preload(client: &Client, args: &BenchArgs) -> Result<()> {
    let mut numbers = Numbers(0);
    for first in (0..args.keys).step_by(PRELOAD as usize) {
        let last = (first + PRELOAD).min(args.keys);
        let entries: Vec<(String, Value)> =
            (first..last).map(|at| (key(at), value(args.value_size, &mut numbers))).collect();
        client.put_many(MAP, entries).await?;
    }
    Ok(())
}

async fn show_progress(progress: Arc<Progress>, ops: u64) {
    let mut before = 0;
    loop {
        clock::sleep(Duration::from_secs(1)).await;
        let done = progress.done.load(Ordering::Relaxed);
        drop(write!(std::io::stderr(), "\r{done} of {ops} operations, {} per second   ", done - before));
        before = done;
    }
}

pub(super) async fn bench(client: &Client, args: &BenchArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Bytes, 0).await?;
    if args.reads > 0 {
        preload(client, args).await?;
    }
    let progress = Arc::new(Progress { taken: AtomicU64::new(0), done: AtomicU64::new(0) });
    let on_terminal = std::io::stderr().is_terminal();
    let shown = on_terminal.then(|| clock::spawn(show_progress(progress.clone(), args.ops)));
    let start = Instant::now();
    let spawn =
        |seed: u32| clock::spawn(worker(client.clone(), args.clone(), progress.clone(), (1 << 32) + u64::from(seed)));
    let workers: Vec<_> = (0..args.concurrency).map(spawn).collect();
    let mut all = Outcome { latencies: histogram()?, errors: 0, first_error: None };
    for worker in workers {
        let one = worker.await.map_err(|error| Error::internal(format!("a worker ended: {error}")))??;
        all.latencies.add(&one.latencies).map_err(|error| Error::internal(error.to_string()))?;
        all.errors += one.errors;
        all.first_error = all.first_error.or(one.first_error);
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(shown) = shown {
        shown.abort();
        drop(writeln!(std::io::stderr()));
    }
    report(args, &all, seconds, out)?;
    match all.first_error {
        Some(first) => {
            let what = format!("{} of {} operations failed; the first: {}", all.errors, args.ops, first.what);
            Err(Error { what, ..first })
        }
        None => Ok(()),
    }
}

fn report(args: &BenchArgs, all: &Outcome, seconds: f64, out: &mut (dyn Write + Send)) -> Result<()> {
    let done = all.latencies.len();
    let per_second = done as f64 / seconds.max(1e-9);
    let quantile = |q: f64| if done == 0 { 0 } else { all.latencies.value_at_quantile(q) };
    let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
    if args.connection.json {
        let fields = json!({
            "ops": done,
            "ops_per_second": per_second.round(),
            "p50_us": p50,
            "p99_us": p99,
            "p999_us": p999,
            "errors": all.errors,
            "seconds": seconds,
            "concurrency": args.concurrency,
            "value_size": args.value_size,
            "reads": args.reads,
            "keys": args.keys,
        });
        return output::json(out, &fields);
    }
    let lines = [
        ("ops", done.to_string()),
        ("ops_per_second", format!("{per_second:.0}")),
        ("p50_us", p50.to_string()),
        ("p99_us", p99.to_string()),
        ("p999_us", p999.to_string()),
        ("errors", all.errors.to_string()),
    ];
    for (name, number) in lines {
        output::line(out, &format!("{name:<15} {number:>12}"))?;
    }
    Ok(())
}
