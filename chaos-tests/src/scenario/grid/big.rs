//! A client that writes entries at the size limit and beside it. It alone writes its keys, one step after
//! the other: what it reads is what it wrote last, or a write of unknown outcome behind that; and what is
//! too large is refused.

use super::clients::{check_error, connect, count_answer, is_unknown};
use super::{QUIET_FROM, Records};
use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::Client;
use keystead::clock::{Instant, sleep};
use keystead::error::Code;
use keystead::types::{KeyCodec, Value, ValueCodec};
use std::time::Duration;

const MAP: &str = "big";
/// The longest key that a peer takes.
const KEY_BYTES: usize = 64 << 10;
/// Keys of these lengths.
const KEYS: [usize; 2] = [3, KEY_BYTES];

/// What a key may hold: a number that fills the value, and the value's length.
type Content = Option<(u8, usize)>;

struct Big {
    records: Records,
    limit: usize,
    /// What each key may hold: the last acknowledged write, and those of unknown outcome behind it.
    possible: [Vec<Content>; KEYS.len()],
}

fn key(at: usize) -> Vec<u8> {
    let mut key = vec![b'k'; KEYS[at]];
    key[0] = b'0' + at as u8;
    key
}

fn content(data: &[u8]) -> Content {
    let first = *data.first()?;
    data.iter().all(|byte| *byte == first).then_some((first, data.len()))
}

impl Big {
    fn wrong(&self, what: String) {
        self.records.violations.borrow_mut().push(Violation { check: "entries at the limit", what });
    }

    async fn write(&mut self, client: &Client, at: usize, (fill, length): (u8, usize)) {
        let written = client.put(MAP, key(at), Value::bytes(vec![fill; length])).await;
        count_answer(&written);
        match written {
            Ok(_) if length <= self.limit => self.possible[at] = vec![Some((fill, length))],
            Err(error) if error.code == Code::TooLarge && length > self.limit => {}
            Err(error) if is_unknown(&error) => {
                // What is too large is refused, whether or not the refusal arrives.
                if length <= self.limit {
                    self.possible[at].push(Some((fill, length)));
                }
            }
            Err(error) if error.code != Code::TooLarge => check_error(&error, &self.records),
            answer => {
                let answer = answer.map(drop).map_err(|error| error.code);
                self.wrong(format!("{length} bytes, {} are allowed: {answer:?}", self.limit));
            }
        }
    }

    /// Reads a key; whether there was an answer.
    async fn read(&mut self, client: &Client, at: usize) -> bool {
        let found = client.get(MAP, key(at)).await;
        count_answer(&found);
        match found {
            Ok(entry) => {
                let found = entry.map(|entry| content(&entry.value.data));
                let is_whole = found != Some(None);
                let found = found.flatten();
                if !is_whole || !self.possible[at].contains(&found) {
                    self.wrong(format!(
                        "key {at} holds {found:?} (whole: {is_whole}), possible are {:?}",
                        self.possible[at]
                    ));
                }
                true
            }
            Err(error) => {
                check_error(&error, &self.records);
                false
            }
        }
    }
}

/// Writes and reads until everything is mended; then reads once more.
pub(super) async fn write(life: Life, seed: u64, endpoints: Vec<String>, limit: usize, records: Records) {
    let start = Instant::now();
    let client = connect(&life, &endpoints).await;
    while client.create_map(MAP, KeyCodec::Bytes, ValueCodec::Bytes, 0).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let mut dice = Dice::new(seed, "big");
    let mut big = Big { records, limit, possible: [vec![None], vec![None]] };
    let mut fill = 0;
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(dice.between(100, 1200))).await;
        let at = dice.index(KEYS.len());
        if dice.per_mille(300) {
            big.read(&client, at).await;
            continue;
        }
        fill = if fill == u8::MAX { 1 } else { fill + 1 };
        let length = match dice.below(4) {
            0 => limit + 1,
            1 => 1 + dice.below(limit as u64) as usize,
            _ => limit,
        };
        big.write(&client, at, (fill, length)).await;
    }
    for at in 0..KEYS.len() {
        while !big.read(&client, at).await {
            sleep(Duration::from_millis(100)).await;
        }
    }
}
