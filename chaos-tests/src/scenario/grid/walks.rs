//! A map that is read as a whole, page by page, and counted, while its entries come and go: what is
//! there throughout a walk is found, once, with its value; nothing is found that cannot be there.

use super::clients::{check_error, connect, is_unknown};
use super::{QUIET_FROM, Records};
use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::Client;
use keystead::clock::{Instant, sleep};
use keystead::error::Error;
use keystead::types::{KeyCodec, ReadLevel, Value, ValueCodec, affinity_of, slot_of};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

const MAP: &str = "walked";
const KEYS: u64 = 16;
const PREFIXES: [&str; 3] = ["", "a", "b"];
/// Failures in a row after which a walk is given up.
const PATIENCE: u32 = 20;

/// What the map holds, as its only writer knows.
#[derive(Default)]
pub(super) struct Content {
    held: BTreeMap<String, i64>,
    /// Keys of whose last write nobody knows whether it happened, or will.
    open: BTreeSet<String>,
    /// Keys that were written since the walk began, or are being written.
    touched: BTreeSet<String>,
    /// All values that each key was ever asked to hold.
    asked: BTreeMap<String, BTreeSet<i64>>,
    busy: Option<String>,
    /// Nobody writes any more.
    ended: bool,
}

impl Content {
    fn begin(&mut self, key: &str, value: Option<i64>) {
        self.touched.insert(key.to_owned());
        self.busy = Some(key.to_owned());
        self.asked.entry(key.to_owned()).or_default().extend(value);
    }

    fn done(&mut self, key: &str, value: Option<i64>) {
        self.busy = None;
        self.touched.insert(key.to_owned());
        match value {
            Some(value) => self.held.insert(key.to_owned(), value),
            None => self.held.remove(key),
        };
    }

    fn unknown(&mut self, key: &str) {
        self.busy = None;
        self.open.insert(key.to_owned());
    }

    /// The write did not happen.
    fn failed(&mut self) {
        self.busy = None;
    }

    /// A walk begins.
    fn walk(&mut self) {
        self.touched = self.busy.iter().cloned().collect();
    }

    fn moves(&self, key: &str) -> bool {
        self.touched.contains(key) || self.open.contains(key)
    }

    /// What is wrong with what a walk over the keys of a prefix found.
    fn walked(&self, prefix: &str, found: &[(String, i64)]) -> Vec<String> {
        let mut wrong = Vec::new();
        let place = |key: &String| (slot_of(affinity_of(key.as_bytes())), key.clone());
        for pair in found.windows(2) {
            if place(&pair[0].0) >= place(&pair[1].0) {
                wrong.push(format!("{} came before {}", pair[0].0, pair[1].0));
            }
        }
        for (key, value) in found {
            let may_be = match self.moves(key) {
                true => self.asked.get(key).is_some_and(|asked| asked.contains(value)),
                false => self.held.get(key) == Some(value),
            };
            if !may_be || !key.starts_with(prefix) {
                let held = self.held.get(key);
                wrong.push(format!("prefix {prefix:?}: {key} was found with {value}, and holds {held:?}"));
            }
        }
        let keys: BTreeSet<&String> = found.iter().map(|(key, _)| key).collect();
        let missing = self.held.keys().filter(|key| key.starts_with(prefix) && !self.moves(key) && !keys.contains(key));
        wrong.extend(missing.map(|key| format!("prefix {prefix:?}: {key} was there throughout and was not found")));
        wrong
    }

    /// What is wrong with a number of entries.
    fn sized(&self, entries: u64) -> Option<String> {
        let still = self.held.keys().filter(|key| !self.moves(key)).count() as u64;
        let most = still + self.touched.union(&self.open).count() as u64;
        (!(still..=most).contains(&entries)).then(|| format!("{entries} entries, there are {still} to {most}"))
    }
}

fn tell(records: &Records, what: impl IntoIterator<Item = String>) {
    let violations = what.into_iter().map(|what| Violation { check: "walks", what });
    records.violations.borrow_mut().extend(violations);
}

/// Puts and deletes until everything is mended.
pub(super) async fn write(
    life: Life,
    seed: u64,
    endpoints: Vec<String>,
    content: Rc<RefCell<Content>>,
    records: Records,
) {
    let start = Instant::now();
    let client = connect(&life, &endpoints).await;
    while client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let mut dice = Dice::new(seed, "walks");
    let (mut last, mut fresh) = (0, KEYS);
    let name = |number: u64| format!("{}{number}", if number.is_multiple_of(3) { "b" } else { "a" });
    let mut keys: Vec<String> = (0..KEYS).map(name).collect();
    while start.elapsed() < QUIET_FROM {
        // Some are written once and stay, others come and go.
        let at = if last < KEYS as i64 { last as usize } else { KEYS as usize / 2 + dice.index(KEYS as usize / 2) };
        let key = keys[at].clone();
        last += 1;
        let value = (last <= KEYS as i64 || dice.per_mille(600)).then_some(last);
        content.borrow_mut().begin(&key, value);
        let done = match value {
            Some(value) => client.put(MAP, &key, Value::i64(value)).await.map(drop),
            None => client.delete(MAP, &key).await.map(drop),
        };
        crate::event!("walks", "{key} {value:?} -> {:?}", done.as_ref().map_err(|error| error.code));
        match done {
            Ok(()) => content.borrow_mut().done(&key, value),
            Err(error) if is_unknown(&error) => {
                content.borrow_mut().unknown(&key);
                keys[at] = name(fresh);
                fresh += 1;
            }
            Err(error) => {
                content.borrow_mut().failed();
                check_error(&error, &records);
            }
        }
        sleep(Duration::from_millis(dice.between(10, 120))).await;
    }
    content.borrow_mut().ended = true;
}

fn failed(error: &Error, records: &Records) {
    if !is_unknown(error) {
        check_error(error, records);
    }
}

/// Walks the map by pages of this size; `None` when it was given up.
async fn pages(client: &Client, prefix: &str, limit: u32, records: &Records) -> Option<Vec<(String, i64)>> {
    let (mut found, mut from, mut failures) = (Vec::new(), None, 0);
    loop {
        match client.scan_page(MAP, prefix, from.clone(), limit, ReadLevel::Linearizable).await {
            Ok(page) => {
                for (key, stored) in page.entries {
                    let value = stored.value.data.as_ref().try_into().map_or(-1, i64::from_le_bytes);
                    found.push((String::from_utf8_lossy(&key).into_owned(), value));
                }
                match page.next {
                    Some(next) => from = Some(next),
                    None => return Some(found),
                }
            }
            Err(error) => {
                failed(&error, records);
                failures += 1;
                if failures >= PATIENCE {
                    return None;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Walks and counts, and once more when nobody writes.
pub(super) async fn walk(
    life: Life,
    seed: u64,
    endpoints: Vec<String>,
    content: Rc<RefCell<Content>>,
    records: Records,
) {
    let client = connect(&life, &endpoints).await;
    while client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let mut dice = Dice::new(seed, "walker");
    let mut calm = 0;
    while calm < 4 {
        let quiet = content.borrow().ended;
        content.borrow_mut().walk();
        let prefix = *dice.pick(&PREFIXES);
        let done = if dice.per_mille(300) {
            let size = client.size(MAP).await;
            if let Err(error) = &size {
                failed(error, &records);
            }
            size.map(|size| tell(&records, content.borrow().sized(size.entries))).is_ok()
        } else {
            let found = pages(&client, prefix, dice.between(1, 6) as u32, &records).await;
            crate::event!("walker", "{prefix:?} {found:?}");
            found.map(|found| tell(&records, content.borrow().walked(prefix, &found))).is_some()
        };
        calm += u32::from(quiet && done);
        sleep(Duration::from_millis(dice.between(20, 300))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let mut content = Content::default();
        for (key, value) in [("a1", 1), ("a2", 2), ("b3", 3), ("a4", 4)] {
            content.begin(key, Some(value));
            content.done(key, Some(value));
        }
        content.begin("a5", Some(5));
        content.unknown("a5");
        content.walk();
        content.begin("a4", None);
        content
    }

    fn in_order(of: &[(&str, i64)]) -> Vec<(String, i64)> {
        let mut found: Vec<(String, i64)> = of.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        found.sort_by_key(|(key, _)| (slot_of(affinity_of(key.as_bytes())), key.clone()));
        found
    }

    #[test]
    fn what_moves_may_be_there_or_not() {
        let content = content();
        let none: Vec<String> = Vec::new();
        assert_eq!(content.walked("", &in_order(&[("a1", 1), ("a2", 2), ("b3", 3)])), none);
        assert_eq!(content.walked("", &in_order(&[("a1", 1), ("a2", 2), ("b3", 3), ("a4", 4), ("a5", 5)])), none);
        assert_eq!(content.walked("b", &in_order(&[("b3", 3)])), none);
        assert!((3..=5).all(|entries| content.sized(entries).is_none()));
    }

    #[test]
    fn each_wrong_walk_is_named() {
        let content = content();
        let wrong = |found: &[(String, i64)]| content.walked("", found).join("; ");
        assert!(wrong(&in_order(&[("a1", 1), ("b3", 3)])).contains("a2 was there throughout"));
        assert!(wrong(&in_order(&[("a1", 1), ("a2", 1), ("b3", 3)])).contains("a2 was found with 1"));
        assert!(wrong(&in_order(&[("a1", 1), ("a2", 2), ("b3", 3), ("a6", 6)])).contains("a6 was found"));
        assert!(wrong(&in_order(&[("a1", 1), ("a2", 2), ("b3", 3), ("a4", 9)])).contains("a4 was found with 9"));
        assert!(wrong(&in_order(&[("a1", 1), ("a1", 1), ("a2", 2), ("b3", 3)])).contains("a1 came before a1"));
        let mut turned = in_order(&[("a1", 1), ("a2", 2), ("b3", 3)]);
        turned.reverse();
        assert!(wrong(&turned).contains("came before"));
        assert!(content.walked("b", &in_order(&[("a1", 1), ("b3", 3)])).join("").contains("prefix \"b\": a1"));
        assert!(content.sized(2).is_some() && content.sized(6).is_some());
    }
}
