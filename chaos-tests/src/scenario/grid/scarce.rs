//! A map with limits, which is cleared, dropped, and made again with others. One client alone writes it,
//! one step after the other. It never holds more than its limits allow; what was acknowledged is there
//! with its value, or made room where the map evicts; what was cleared or dropped does not come back.

use super::clients::{check_error, connect, is_unknown, number};
use super::{QUIET_FROM, Records};
use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::{Client, Size};
use keystead::clock::{Instant, sleep};
use keystead::error::{Code, Error};
use keystead::types::{Eviction, KeyCodec, MapOptions, MapSpec, Value, ValueCodec};
use std::collections::BTreeMap;
use std::time::Duration;

const KEYS: u64 = 14;

/// What the map may hold.
struct Scarce {
    records: Records,
    partitions: u64,
    options: MapOptions,
    /// What was acknowledged since the map was made or emptied, and not deleted.
    held: BTreeMap<u64, i64>,
    last: i64,
    keys: Vec<u64>,
    next_key: u64,
    /// The map's name: another one where an earlier drop may still come.
    name: String,
    /// Parts of an earlier clearing may still come.
    clearing: bool,
    made: u32,
}

impl Scarce {
    fn new(records: Records, partitions: u32, options: MapOptions) -> Self {
        let partitions = u64::from(partitions);
        let keys = (0..KEYS).collect();
        Scarce {
            records,
            partitions,
            options,
            held: BTreeMap::new(),
            last: 0,
            keys,
            next_key: KEYS,
            name: "scarce0".to_owned(),
            clearing: false,
            made: 0,
        }
    }

    fn wrong(&self, what: String) {
        self.records.violations.borrow_mut().push(Violation { check: "limits", what });
    }

    /// Whether entries may go without their writer.
    fn may_lose(&self) -> bool {
        self.clearing || (self.options.is_limited() && self.options.eviction != Eviction::None)
    }

    /// Its only writer was told so.
    fn found(&mut self, key: u64, found: Option<i64>) {
        let held = self.held.get(&key).copied();
        let lost = found.is_none() && self.may_lose();
        if found != held && !lost {
            self.wrong(format!("key {key} holds {found:?}, and was acknowledged with {held:?}; {}", self.options));
        }
        if lost {
            // What has gone does not come back.
            self.held.remove(&key);
        }
    }

    /// The most that the whole map may hold: a share for each partition, rounded up.
    fn bound(&self, limit: u64) -> u64 {
        if limit == 0 { u64::MAX } else { limit.div_ceil(self.partitions) * self.partitions }
    }

    fn sized(&self, size: Size) {
        let (entries, bytes) = (self.bound(self.options.max_entries), self.bound(self.options.max_bytes));
        if size.entries > entries || size.bytes > bytes {
            self.wrong(format!("{size:?} is more than {entries} entries or {bytes} bytes; {}", self.options));
        }
        if !self.may_lose() && size.entries < self.held.len() as u64 {
            self.wrong(format!("{size:?} is less than the {} entries acknowledged", self.held.len()));
        }
    }

    fn failed(&self, error: &Error) {
        if !is_unknown(error) {
            check_error(error, &self.records);
        }
    }

    /// A write to this key failed; one that may still happen leaves it to nobody.
    fn not_written(&mut self, key: u64, error: &Error) {
        self.failed(error);
        if is_unknown(error) {
            self.held.remove(&key);
            let fresh = self.next_key;
            self.next_key += 1;
            self.keys.iter_mut().filter(|used| **used == key).for_each(|used| *used = fresh);
        }
    }

    async fn step(&mut self, client: &Client, dice: &mut Dice) {
        let key = *dice.pick(&self.keys);
        let (map, name) = (self.name.clone(), format!("k{key}"));
        match dice.below(20) {
            0..11 => {
                self.last += 1;
                let value = self.last;
                let done = client.put(&map, &name, Value::i64(value)).await;
                crate::event!("l0", "{name} = {value}: {:?}", done.as_ref().map_err(|error| error.code));
                match done {
                    Ok(_) => {
                        self.held.insert(key, value);
                    }
                    Err(error) => self.not_written(key, &error),
                }
            }
            11 => match client.delete(&map, &name).await {
                Ok(deleted) => {
                    let held = self.held.remove(&key);
                    if deleted.existed != held.is_some() && !(self.may_lose() && held.is_some()) {
                        self.wrong(format!("key {key} was deleted: {}; it held {held:?}", deleted.existed));
                    }
                }
                Err(error) => self.not_written(key, &error),
            },
            12..15 => match client.size(&map).await {
                Ok(size) => self.sized(size),
                Err(error) => self.failed(&error),
            },
            _ => match client.get(&map, &name).await.and_then(number) {
                Ok(found) => self.found(key, found),
                Err(error) => self.failed(&error),
            },
        }
    }

    async fn clear(&mut self, client: &Client) {
        let cleared = client.clear(&self.name).await;
        crate::event!("l0", "cleared: {:?}", cleared.as_ref().map_err(|error| error.code));
        match cleared {
            Ok(_) => self.held.clear(),
            Err(error) => {
                self.failed(&error);
                // Any part of it may have been emptied, or may be in a moment, with what is written now.
                self.clearing = true;
            }
        }
    }

    /// Drops the map and makes another of its name.
    async fn drop_and_make(&mut self, client: &Client, options: MapOptions) {
        let mut is_clear = true;
        loop {
            let dropped = client.drop_map(&self.name).await;
            crate::event!("l0", "dropped: {:?}", dropped.as_ref().map_err(|error| error.code));
            match dropped {
                Ok(_) => break,
                Err(error) if error.code == Code::NoSuchMap => break,
                // It may have been sent, and be done at any time.
                Err(_) => is_clear = false,
            }
            sleep(Duration::from_millis(100)).await;
        }
        if !is_clear {
            self.made += 1;
            self.name = format!("scarce{}", self.made);
        }
        (self.held, self.clearing, self.options) = (BTreeMap::new(), false, options);
        self.make(client).await;
    }

    async fn make(&mut self, client: &Client) {
        let spec = MapSpec::new(&self.name, KeyCodec::Utf8, ValueCodec::I64).options(self.options.clone());
        loop {
            match client.create_map_as(&spec).await {
                Ok(_) => break,
                Err(error) => crate::event!("l0", "not made yet: {:?}", error.code),
            }
            sleep(Duration::from_millis(100)).await;
        }
        crate::event!("l0", "made with {}", self.options);
    }
}

fn draw(dice: &mut Dice) -> MapOptions {
    let eviction = *dice.pick(&[Eviction::None, Eviction::Lru, Eviction::Lfu, Eviction::Lru]);
    let options = MapOptions::default();
    match dice.below(5) {
        0 => options,
        1 => options.max_bytes(dice.between(150, 500)).eviction(eviction),
        _ => options.max_entries(dice.between(2, 9)).eviction(eviction),
    }
}

/// Writes, reads, clears and drops until everything is mended; then once more each.
pub(super) async fn fill(life: Life, seed: u64, endpoints: Vec<String>, partitions: u32, records: Records) {
    let start = Instant::now();
    let client = connect(&life, &endpoints).await;
    let mut dice = Dice::new(seed, "scarce");
    let mut scarce = Scarce::new(records, partitions, draw(&mut dice));
    scarce.make(&client).await;
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(dice.between(0, 60))).await;
        match dice.below(100) {
            0..3 => scarce.clear(&client).await,
            3..5 => {
                let options = draw(&mut dice);
                scarce.drop_and_make(&client, options).await;
            }
            _ => scarce.step(&client, &mut dice).await,
        }
    }
    for _ in 0..30 {
        scarce.step(&client, &mut dice).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(options: MapOptions, told: impl FnOnce(&mut Scarce)) -> String {
        let records = Records::default();
        let mut scarce = Scarce::new(records.clone(), 3, options);
        scarce.held = BTreeMap::from([(1, 10), (2, 20)]);
        told(&mut scarce);
        let said: Vec<String> = records.violations.borrow().iter().map(ToString::to_string).collect();
        said.join("; ")
    }

    fn evicting() -> MapOptions {
        MapOptions::default().max_entries(4).eviction(Eviction::Lru)
    }

    #[test]
    fn what_was_evicted_may_be_gone_and_stays_gone() {
        assert_eq!(says(evicting(), |scarce| scarce.found(1, None)), "");
        let back = says(evicting(), |scarce| {
            scarce.found(1, None);
            scarce.found(1, Some(10));
        });
        assert!(back.contains("key 1 holds Some(10)"), "{back}");
        assert_eq!(says(MapOptions::default(), |scarce| scarce.found(1, Some(10))), "");
    }

    #[test]
    fn each_wrong_answer_is_named() {
        assert!(says(evicting(), |scarce| scarce.found(1, Some(9))).contains("key 1 holds Some(9)"));
        assert!(says(evicting(), |scarce| scarce.found(7, Some(9))).contains("with None"));
        let full = MapOptions::default().max_entries(4);
        assert!(says(full.clone(), |scarce| scarce.found(1, None)).contains("key 1 holds None"));
        let size = |entries, bytes| Size { entries, bytes };
        // Four in three partitions are two in each.
        assert_eq!(says(evicting(), |scarce| scarce.sized(size(6, 1))), "");
        assert!(says(evicting(), |scarce| scarce.sized(size(7, 1))).contains("more than 6 entries"));
        assert!(says(full, |scarce| scarce.sized(size(1, 1))).contains("less than the 2"));
        let bytes = MapOptions::default().max_bytes(100).eviction(Eviction::Lfu);
        assert!(says(bytes, |scarce| scarce.sized(size(1, 103))).contains("or 102 bytes"));
    }
}
