//! A gentle load, so that the table has something to show: writes and reads of a map, at a rate.

use crate::client::Client;
use crate::clock::{self, Instant};
use crate::types::{KeyCodec, Value, ValueCodec};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

const MAP: &str = "dev";
/// Keys that are written and read.
const KEYS: u64 = 10_000;
/// Requests at once; while so many wait, none is added.
const AT_ONCE: usize = 256;
/// Between two helpings.
const HELPING: Duration = Duration::from_millis(20);

/// The load; it ends when this is dropped.
pub(super) struct Load {
    rate: watch::Sender<u32>,
}

impl Load {
    /// Begins at a rate.
    pub(super) fn new(client: Client, rate: u32) -> Self {
        let (sender, receiver) = watch::channel(rate);
        clock::spawn(work(client, receiver));
        Load { rate: sender }
    }

    /// Changes the rate.
    pub(super) fn set(&mut self, rate: u32) {
        self.rate.send_replace(rate);
    }

    /// Requests a second.
    pub(super) fn rate(&self) -> u32 {
        *self.rate.borrow()
    }
}

async fn work(client: Client, mut rate: watch::Receiver<u32>) {
    if rate.wait_for(|rate| *rate > 0).await.is_err() {
        return;
    }
    while client.create_map(MAP, KeyCodec::Utf8, ValueCodec::Utf8, 0).await.is_err() {
        clock::sleep(HELPING).await;
    }
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tick = clock::interval(HELPING);
    let (mut owed, mut number, mut last) = (0.0, 0u64, Instant::now());
    // The sender's end is the end of the command.
    while rate.has_changed().is_ok() {
        tick.tick().await;
        owed += f64::from(*rate.borrow_and_update()) * last.elapsed().as_secs_f64();
        last = Instant::now();
        while owed >= 1.0 {
            let Ok(place) = room.clone().try_acquire_owned() else {
                owed = 0.0;
                break;
            };
            owed -= 1.0;
            number += 1;
            let (client, number) = (client.clone(), number);
            clock::spawn(async move {
                let key = format!("key-{}", number.wrapping_mul(7919) % KEYS);
                // A failure shows in the table as a rate that falls.
                if number % 2 == 0 {
                    drop(client.get(MAP, key).await);
                } else {
                    drop(client.put(MAP, key, Value::utf8(number.to_string())).await);
                }
                drop(place);
            });
        }
    }
}
