//! The history that a state has to keep, and the comparison with it: every key is written by one
//! worker at a time, so that a read may show nothing but the key's last acknowledged write.

use crate::{AT_ONCE, Done, LOT, MAP};
use keystead::client::Client;
use keystead::clock::{self, Instant};
use keystead::types::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Workers of the mixed part.
const WORKERS: u64 = 64;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

pub fn key(number: u64) -> String {
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

/// What the last acknowledged write left of every key.
#[derive(Clone)]
pub struct History {
    client: Client,
    size: usize,
    /// By key: twice the number of its last write, and one more if that was a deletion.
    last: Arc<Vec<AtomicU64>>,
}

impl History {
    /// Of so many keys, none of which has been written.
    pub fn new(client: Client, entries: u64, size: usize) -> Self {
        History { client, size, last: Arc::new((0..entries).map(|_| AtomicU64::new(1)).collect()) }
    }

    /// The same history, seen through another client.
    pub fn through(&self, client: Client) -> Self {
        History { client, ..self.clone() }
    }

    fn entries(&self) -> u64 {
        self.last.len() as u64
    }

    fn expected(&self, number: u64) -> Option<Value> {
        let last = self.last[number as usize].load(Relaxed);
        last.is_multiple_of(2).then(|| value(number, last / 2, self.size))
    }

    /// Writes every key, and each tenth once more; gives the seconds.
    pub async fn load(&self) -> Done<f64> {
        let begun = Instant::now();
        for again in [false, true] {
            let all = self.clone();
            in_lots(self.entries(), move |lot| {
                let all = all.clone();
                async move {
                    let numbers: Vec<u64> = lot.filter(|number| !again || number % 10 == 3).collect();
                    let version = u64::from(again);
                    let entry = |number: &u64| (key(*number), value(*number, version, all.size));
                    all.client.put_many(MAP, numbers.iter().map(entry).collect::<Vec<_>>()).await?;
                    numbers.iter().for_each(|number| all.last[*number as usize].store(2 * version, Relaxed));
                    Ok(())
                }
            })
            .await?;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Reads every key and compares it; gives the seconds.
    pub async fn check(&self) -> Done<f64> {
        let begun = Instant::now();
        let all = self.clone();
        in_lots(self.entries(), move |lot| {
            let all = all.clone();
            async move {
                let keys: Vec<String> = lot.clone().map(key).collect();
                let found = all.client.get_many(MAP, &keys).await?;
                for (number, found) in lot.zip(found) {
                    if found.map(|stored| stored.value) != all.expected(number) {
                        return Err(format!("{} is not what was acknowledged", key(number)).into());
                    }
                }
                Ok(())
            }
        })
        .await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Reads, writes and deletions of random keys, all at once; each read is compared. Gives the
    /// seconds.
    pub async fn mix(&self, operations: u64) -> Done<f64> {
        let begun = Instant::now();
        let worker = |worker| {
            let all = self.clone();
            clock::spawn(async move { all.work(worker, operations / WORKERS).await })
        };
        for worker in (0..WORKERS).map(worker).collect::<Vec<_>>() {
            worker.await??;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// One worker's part, on keys that no other touches.
    async fn work(&self, worker: u64, operations: u64) -> Done<()> {
        let own = self.entries() / WORKERS;
        for step in 0..operations {
            let draw = mix(worker << 32 | step);
            let number = (draw >> 16) % own * WORKERS + worker;
            let last = self.last[number as usize].load(Relaxed);
            match draw % 100 {
                0..50 => {
                    let found = self.client.get(MAP, key(number)).await?.map(|stored| stored.value);
                    if found != self.expected(number) {
                        return Err(format!("{} is not what was acknowledged last", key(number)).into());
                    }
                }
                50..90 => {
                    let next = last / 2 + 1;
                    self.client.put(MAP, key(number), value(number, next, self.size)).await?;
                    self.last[number as usize].store(2 * next, Relaxed);
                }
                _ => {
                    let existed = self.client.delete(MAP, key(number)).await?.existed;
                    if existed != last.is_multiple_of(2) {
                        return Err(
                            format!("{} was there, or was not, against what was acknowledged", key(number)).into()
                        );
                    }
                    self.last[number as usize].store(last | 1, Relaxed);
                }
            }
        }
        Ok(())
    }
}
