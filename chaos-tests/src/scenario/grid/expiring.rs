//! A client whose entries expire. It alone writes its keys, one step after the other, all in one
//! slot; so each answer can be judged by the partition's time at once: no entry is hidden before
//! its time, none is shown after a time that is known to be committed, and what was hidden is
//! never shown again.

use super::clients::{check_error, connect, is_unknown};
use super::{QUIET_FROM, Records};
use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::{CallOptions, Client};
use keystead::clock::{Instant, sleep};
use keystead::error::Error;
use keystead::types::{HybridTime, KeyCodec, Op, ReplyBody, StoredValue, Value, ValueCodec};
use std::collections::BTreeMap;
use std::time::Duration;

const MAP: &str = "fleeting";
const KEYS: u64 = 4;

/// What a key holds: the client's last write to it, which was acknowledged.
struct Held {
    value: i64,
    /// 0: for good.
    ttl_ms: u64,
    /// When it expires: at this time or later, and at this one or before.
    expires_ms: (u64, u64),
    gone: bool,
}

/// What the client knows, and what it found wrong.
struct Fleeting {
    records: Records,
    held: BTreeMap<u64, Held>,
    /// A time that the partition is known to have committed.
    committed_ms: u64,
    last: i64,
    /// The keys in use, and the next one never used.
    keys: Vec<u64>,
    next_key: u64,
}

impl Fleeting {
    fn wrong(&self, what: String) {
        self.records.violations.borrow_mut().push(Violation { check: "expiry", what });
    }

    fn failed(&mut self, key: u64, error: &Error) {
        if !is_unknown(error) {
            check_error(error, &self.records);
            return;
        }
        // It may still take effect: this key says nothing any more.
        self.held.remove(&key);
        let fresh = self.next_key;
        self.next_key += 1;
        self.keys.iter_mut().filter(|used| **used == key).for_each(|used| *used = fresh);
        crate::event!("e0", "key {key} is given up for {fresh}");
    }

    /// A write of this time to live was acknowledged at a partition's time at or before `at`.
    fn wrote(&mut self, key: u64, value: i64, ttl_ms: u64, invoked_at_ms: u64, at: HybridTime) {
        let expires_ms = if ttl_ms == 0 { (0, 0) } else { (invoked_at_ms + ttl_ms, at.ms() + ttl_ms) };
        self.held.insert(key, Held { value, ttl_ms, expires_ms, gone: false });
    }

    /// An answer said that the key has no entry.
    fn absent(&mut self, key: u64, at: HybridTime) {
        let Some(held) = self.held.get_mut(&key).filter(|held| !held.gone) else { return };
        held.gone = true;
        let earliest = held.expires_ms.0;
        if held.ttl_ms == 0 || at.ms() < earliest {
            let what = format!("key {key} was hidden at {}, its time is {earliest} (0: never)", at.ms());
            self.wrong(what);
        }
        self.committed_ms = self.committed_ms.max(earliest);
    }

    /// A read, begun when the partition had committed the time `known_ms`, gave an entry.
    fn present(&mut self, key: u64, entry: &StoredValue, known_ms: u64) {
        let found = (entry.value.data.as_ref().try_into().map(i64::from_le_bytes).ok(), entry.expires_ms);
        let Some(held) = self.held.get_mut(&key) else {
            return self.wrong(format!("key {key} was never written and holds {found:?}"));
        };
        let (earliest, latest) = held.expires_ms;
        let in_bounds = (earliest..=latest).contains(&entry.expires_ms);
        if held.gone || found.0 != Some(held.value) || !in_bounds {
            let what = format!(
                "key {key} holds {found:?}; written was {}, to expire from {earliest} to {latest}, gone: {}",
                held.value, held.gone
            );
            return self.wrong(what);
        }
        held.expires_ms = (entry.expires_ms, entry.expires_ms);
        let written_ms = entry.expires_ms.saturating_sub(held.ttl_ms);
        if entry.expires_ms != 0 && entry.expires_ms <= known_ms {
            self.wrong(format!("key {key} was shown after {known_ms}; it expired at {}", entry.expires_ms));
        }
        self.committed_ms = self.committed_ms.max(written_ms);
    }

    async fn step(&mut self, client: &Client, key: u64, dice: &mut Dice) {
        let name = bytes::Bytes::from(format!("{{e}}{key}"));
        let known_ms = self.committed_ms;
        let ttl_ms = if dice.per_mille(100) { 0 } else { dice.between(20, 1_500) };
        match dice.below(10) {
            0..3 => {
                self.last += 1;
                let (value, ttl) = (self.last, Duration::from_millis(ttl_ms));
                match client.put_with_ttl(MAP, &name, Value::i64(value), ttl).await {
                    Ok(written) => self.wrote(key, value, ttl_ms, known_ms, written.served.time),
                    Err(error) => self.failed(key, &error),
                }
            }
            3 => match client.touch(MAP, &name, Some(Duration::from_millis(ttl_ms))).await {
                Ok(touched) if touched.existed => {
                    let is_live = |held: &&Held| !held.gone && (held.ttl_ms == 0 || held.expires_ms.1 > known_ms);
                    match self.held.get(&key).filter(is_live).map(|held| held.value) {
                        Some(value) => self.wrote(key, value, ttl_ms, known_ms, touched.served.time),
                        None => self.wrong(format!("key {key} was touched, and is gone")),
                    }
                }
                Ok(touched) => self.absent(key, touched.served.time),
                Err(error) => self.failed(key, &error),
            },
            _ => {
                let op = Op::Get { map: MAP.to_owned(), key: name };
                match client.execute(op, CallOptions::default()).await {
                    Ok(reply) => match reply.body {
                        ReplyBody::Entry(Some(entry)) => self.present(key, &entry, known_ms),
                        ReplyBody::Entry(None) => self.absent(key, reply.served.time),
                        other => self.wrong(format!("a read was answered with {other:?}")),
                    },
                    Err(error) => self.failed(key, &error),
                }
            }
        }
    }
}

/// Writes, touches and reads until everything is mended.
pub(super) async fn expire(life: Life, seed: u64, endpoints: Vec<String>, records: Records) {
    let start = Instant::now();
    let client = connect(&life, &endpoints).await;
    while client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let mut dice = Dice::new(seed, "expiring");
    let keys = (0..KEYS).collect();
    let mut fleeting = Fleeting { records, held: BTreeMap::new(), committed_ms: 0, last: 0, keys, next_key: KEYS };
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(dice.between(0, 60))).await;
        let key = *dice.pick(&fleeting.keys);
        fleeting.step(&client, key, &mut dice).await;
    }
}
