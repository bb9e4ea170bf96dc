//! The loops: closed (a caller sends its next request when it has the answer to the last) and open
//! (requests have times at which they should begin; latency counts from those, so that a system that
//! falls behind cannot hide it).
//!
//! In: a target, which keys, how many. Out: a rate and a histogram of latencies in microseconds.

use crate::target::Target;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use keystead::clock::{self, Instant};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Latencies above this count as this, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Requests that an open loop may have in flight; what comes later waits, and its wait counts.
const OPEN_CALLERS: usize = 2_048;
/// A prime: multiplying by it visits every key once before any twice.
const STRIDE: u64 = 2_654_435_761;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each key once, in an order without pattern.
    Puts,
    /// Keys drawn at random.
    Gets,
}

/// The keys and values of a load.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many keys there are.
    pub keys: u64,
    /// Bytes of a value.
    pub value_size: usize,
    /// Makes the rounds differ.
    pub salt: u64,
}

/// What a loop gave.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests answered per second.
    pub per_second: f64,
    /// Microseconds.
    pub latencies: Histogram<u64>,
}

impl Measured {
    /// A quantile of the latency, in milliseconds.
    pub fn ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Shape {
    fn key(&self, kind: Kind, at: u64) -> String {
        let number = match kind {
            Kind::Puts => at.wrapping_mul(STRIDE).wrapping_add(self.salt) % self.keys,
            Kind::Gets => mixed(at ^ (self.salt << 40)) % self.keys,
        };
        format!("key-{number:010}")
    }

    fn value(&self, at: u64) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.value_size + 8);
        for word in 0..self.value_size.div_ceil(8) as u64 {
            value.extend_from_slice(&mixed(at.wrapping_mul(31).wrapping_add(word)).to_le_bytes());
        }
        value.truncate(self.value_size);
        value
    }
}

async fn ask(target: &Target, shape: &Shape, kind: Kind, at: u64) -> Result<()> {
    let key = shape.key(kind, at);
    match kind {
        Kind::Puts => target.put(key, shape.value(at)).await,
        Kind::Gets => {
            let found = target.get(key).await?.context("a key that was written is not there")?;
            anyhow::ensure!(found == shape.value_size, "a value has {found} bytes");
            Ok(())
        }
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST_US, 3)?)
}

fn record(latencies: &mut Histogram<u64>, since: Instant) {
    latencies.saturating_record((since.elapsed().as_micros() as u64).max(1));
}

/// `count` requests by `callers` callers.
///
/// # Errors
/// The first that any request gave: a figure with failed requests in it would mean nothing.
pub async fn closed(target: &Target, shape: Shape, kind: Kind, count: u64, callers: usize) -> Result<Measured> {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let caller = || {
        let (target, next) = (target.clone(), next.clone());
        clock::spawn(async move {
            let mut latencies = histogram()?;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return Ok(latencies);
                }
                let begun = Instant::now();
                ask(&target, &shape, kind, at).await?;
                record(&mut latencies, begun);
            }
        })
    };
    gather((0..callers).map(|_| caller()).collect(), start, count).await
}

/// Requests that should begin `rate` times a second, for `seconds`.
///
/// # Errors
/// As [`closed`].
pub async fn open(target: &Target, shape: Shape, kind: Kind, rate: f64, seconds: u64) -> Result<Measured> {
    let count = (rate * seconds as f64) as u64;
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + Duration::from_millis(100);
    let caller = || {
        let (target, next) = (target.clone(), next.clone());
        clock::spawn(async move {
            let mut latencies = histogram()?;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return Ok(latencies);
                }
                let begin = start + Duration::from_secs_f64(at as f64 / rate);
                clock::sleep(begin.saturating_duration_since(Instant::now())).await;
                ask(&target, &shape, kind, at).await?;
                record(&mut latencies, begin);
            }
        })
    };
    gather((0..OPEN_CALLERS.min(count as usize)).map(|_| caller()).collect(), start, count).await
}

async fn gather(
    callers: Vec<clock::JoinHandle<Result<Histogram<u64>>>>,
    start: Instant,
    count: u64,
) -> Result<Measured> {
    let mut latencies = histogram()?;
    for caller in callers {
        latencies.add(caller.await.context("a caller ended")??)?;
    }
    let per_second = count as f64 / start.elapsed().as_secs_f64().max(1e-9);
    Ok(Measured { per_second, latencies })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_puts_of_a_round_write_every_key_once() {
        let shape = Shape { keys: 1000, value_size: 100, salt: 7 };
        let keys: BTreeSet<String> = (0..1000).map(|at| shape.key(Kind::Puts, at)).collect();
        assert_eq!(keys.len(), 1000);
        assert_ne!(shape.key(Kind::Puts, 1), "key-0000000001");
        assert!((0..1000).all(|at| keys.contains(&shape.key(Kind::Gets, at))));
    }

    #[test]
    fn values_have_their_size_and_differ() {
        let shape = Shape { keys: 1000, value_size: 100, salt: 7 };
        assert_eq!(shape.value(1).len(), 100);
        assert_ne!(shape.value(1), shape.value(2));
    }
}
