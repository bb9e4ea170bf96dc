//! Watchers: clients that follow the map of numbers through all faults, dropping their connection
//! now and then and going on from their token through another peer.

use super::Records;
use super::clients::connect;
use super::workload::MAP;
use crate::checks::{Finals, Seen, Violation, Watched};
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::{Client, Watch};
use keystead::clock::sleep;
use keystead::error::{Class, Code, Error};
use keystead::types::{PartitionId, Value, WatchKind, WatchMessage, WatchToken};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the keys of the marks begin with that end a run; no client touches them.
const MARK: &str = "z";

/// Follows changes from some moment on; begins again, as another watch, where the history has
/// passed.
pub(super) async fn follow(life: Life, seed: u64, endpoints: Vec<String>, records: Records) {
    let mut watcher = Watcher::new(&life, seed, endpoints, false).await;
    let mut watched = Watched { name: life.name.clone(), ..Watched::default() };
    let (mut marked, mut begun) = (BTreeSet::new(), false);
    loop {
        if watcher.wants_end(&records, &marked).await {
            watched.whole = true;
            records.watched.borrow_mut().push(watched);
            return;
        }
        match watcher.next().await {
            Ok(message) => {
                if !std::mem::replace(&mut begun, true) {
                    watched.from = records.history.mark();
                }
                for event in message.events {
                    let key = String::from_utf8_lossy(&event.key).into_owned();
                    let value = match &event.kind {
                        WatchKind::Put(value) => number(value),
                        WatchKind::Removed(_) => None,
                        WatchKind::Entry(_) | WatchKind::Reset => {
                            return violate(&records, &life, "an event of a snapshot that was not asked for");
                        }
                    };
                    if key.starts_with(MARK) {
                        marked.insert(event.partition);
                    }
                    watched.events.push(Seen { partition: event.partition.0, revision: event.revision, key, value });
                }
            }
            Err(error) if error.code == Code::Compacted => {
                crate::event!(&life.name, "the history has passed");
                let ended = Watched { name: life.name.clone(), ..Watched::default() };
                records.watched.borrow_mut().push(std::mem::replace(&mut watched, ended));
                marked.clear();
                begun = false;
                watcher.begin(None);
            }
            Err(error) => check_error(&error, &records, &life).await,
        }
    }
}

/// Keeps a copy by snapshots and changes: in the end it is what is there.
pub(super) async fn copy(life: Life, seed: u64, endpoints: Vec<String>, records: Records) {
    let mut watcher = Watcher::new(&life, seed, endpoints, true).await;
    let mut entries: BTreeMap<String, (PartitionId, u64, Option<i64>)> = BTreeMap::new();
    let mut marked = BTreeSet::new();
    while !watcher.wants_end(&records, &marked).await {
        let message = match watcher.next().await {
            Ok(message) => message,
            Err(error) => {
                check_error(&error, &records, &life).await;
                continue;
            }
        };
        for event in message.events {
            let key = String::from_utf8_lossy(&event.key).into_owned();
            let value = match &event.kind {
                WatchKind::Reset => {
                    crate::event!(&life.name, "partition {} begins anew", event.partition);
                    entries.retain(|_, (partition, ..)| *partition != event.partition);
                    marked.remove(&event.partition);
                    continue;
                }
                WatchKind::Entry(value) | WatchKind::Put(value) => number(value),
                WatchKind::Removed(_) => None,
            };
            if key.starts_with(MARK) {
                marked.insert(event.partition);
            }
            let before = entries.insert(key.clone(), (event.partition, event.revision, value));
            if before.is_some_and(|(_, revision, _)| revision >= event.revision) {
                return violate(&records, &life, &format!("key {key} went back to revision {}", event.revision));
            }
        }
    }
    let wrong = differs(&records.finals.borrow(), &entries);
    if let Some(wrong) = wrong {
        violate(&records, &life, &wrong);
    }
}

fn differs(finals: &Finals, entries: &BTreeMap<String, (PartitionId, u64, Option<i64>)>) -> Option<String> {
    finals.iter().find_map(|(key, value)| {
        let copy = entries.get(key).and_then(|(.., value)| *value);
        (copy != *value).then(|| format!("the copy of key {key} ends with {copy:?}, the entry with {value:?}"))
    })
}

fn number(value: &Value) -> Option<i64> {
    value.data.as_ref().try_into().ok().map(i64::from_le_bytes)
}

fn violate(records: &Records, life: &Life, what: &str) {
    let what = format!("{}: {what}", life.name);
    records.violations.borrow_mut().push(Violation { check: "watch without gap or repeat", what });
}

/// Errors that no fault excuses are violations; others are waited out.
async fn check_error(error: &Error, records: &Records, life: &Life) {
    crate::event!(&life.name, "{error}");
    let excused = matches!(error.code.facts().0, Class::Unavailable | Class::DeadlineExceeded | Class::Exhausted);
    if !excused && error.code != Code::NoSuchMap {
        violate(records, life, &error.to_string());
    }
    sleep(Duration::from_millis(100)).await;
}

struct Watcher {
    life: Life,
    endpoints: Vec<String>,
    client: Client,
    watch: Watch,
    snapshot: bool,
    dice: Dice,
    partitions: usize,
    marks: u32,
}

impl Watcher {
    async fn new(life: &Life, seed: u64, endpoints: Vec<String>, snapshot: bool) -> Self {
        let client = connect(life, &endpoints).await;
        super::clients::create_maps(&client).await;
        let watch = watch(&client, None, snapshot);
        let dice = Dice::new(seed, &life.name);
        Watcher { life: life.clone(), endpoints, client, watch, snapshot, dice, partitions: 0, marks: 0 }
    }

    fn begin(&mut self, token: Option<WatchToken>) {
        self.watch = watch(&self.client, token, self.snapshot);
    }

    async fn next(&mut self) -> keystead::error::Result<WatchMessage> {
        if self.dice.per_mille(30) {
            let token = self.watch.token().cloned();
            crate::event!(&self.life.name, "goes on elsewhere");
            self.endpoints.rotate_left(1);
            self.client = connect(&self.life, &self.endpoints).await;
            self.begin(token);
        }
        let message = self.watch.next().await?;
        self.partitions = message.token.positions.len();
        Ok(message)
    }

    /// Whether the run is over and this watcher has seen everything: a mark of every partition,
    /// written when all else was done.
    async fn wants_end(&mut self, records: &Records, marked: &BTreeSet<PartitionId>) -> bool {
        if !*records.judged.borrow() || self.partitions == 0 {
            return false;
        }
        if marked.len() == self.partitions {
            return true;
        }
        self.marks += 1;
        // Whether it is acknowledged does not matter: others follow until each partition has one.
        let _ = self.client.put(MAP, format!("{MARK}{}{}", self.life.name, self.marks), Value::i64(0)).await;
        false
    }
}

fn watch(client: &Client, token: Option<WatchToken>, snapshot: bool) -> Watch {
    let mut builder = client.watch(MAP);
    if let Some(token) = token {
        builder = builder.from(token);
    }
    if snapshot {
        builder = builder.snapshot();
    }
    builder.start()
}
