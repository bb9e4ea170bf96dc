//! Watchers: clients that follow the map of numbers through all faults, dropping their connection
//! now and then and going on from their token through another peer.

use super::clients::{connect, read_numbers};
use super::workload::MAP;
use super::{QUIET_FROM, Records};
use crate::checks::{Finals, Seen, Violation, Watched};
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::{Client, Watch};
use keystead::clock::{Instant, sleep};
use keystead::error::{Class, Code, Error};
use keystead::types::{PartitionId, Value, WatchKind, WatchMessage, WatchToken};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the keys of the marks begin with that end a run; no client touches them.
const MARK: &str = "z";
/// How often what is there is read again because it went on changing. No client waits for its
/// write for so long.
const ROUNDS: u32 = 20;
/// The number of the clients that watch, as readers.
const WATCHER: u32 = 98;

/// Follows changes from some moment on; begins again, as another watch, where the history has
/// passed.
pub(super) async fn follow(life: Life, seed: u64, endpoints: Vec<String>, slow_ms: u64, records: Records) {
    let mut watcher = Watcher::new(&life, seed, endpoints, (false, slow_ms)).await;
    let mut watched = Watched { name: life.name.clone(), ..Watched::default() };
    let mut begun = false;
    loop {
        let last = |key: &str| watched.events.iter().rev().find(|event| event.key == key).map(|event| event.value);
        if let Some(end) = watcher.ends(&records, last).await {
            watched.end = Some(end);
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
                    watcher.note_mark(&key, event.partition);
                    watched.events.push(Seen { partition: event.partition.0, revision: event.revision, key, value });
                }
            }
            Err(error) if error.code == Code::Compacted => {
                crate::event!(&life.name, "the history has passed");
                let ended = Watched { name: life.name.clone(), ..Watched::default() };
                records.watched.borrow_mut().push(std::mem::replace(&mut watched, ended));
                begun = false;
                watcher.begin_anew();
            }
            Err(error) => check_error(&error, &records, &life).await,
        }
    }
}

/// Keeps a copy by snapshots and changes: in the end it is what is there.
pub(super) async fn copy(life: Life, seed: u64, endpoints: Vec<String>, slow_ms: u64, records: Records) {
    let mut watcher = Watcher::new(&life, seed, endpoints, (true, slow_ms)).await;
    let mut entries: BTreeMap<String, (PartitionId, u64, Option<i64>)> = BTreeMap::new();
    let end = loop {
        let last = |key: &str| Some(entries.get(key).and_then(|(.., value)| *value));
        if let Some(end) = watcher.ends(&records, last).await {
            break end;
        }
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
                    watcher.marked.remove(&event.partition);
                    continue;
                }
                WatchKind::Entry(value) | WatchKind::Put(value) => number(value),
                WatchKind::Removed(_) => None,
            };
            watcher.note_mark(&key, event.partition);
            let before = entries.insert(key.clone(), (event.partition, event.revision, value));
            if before.is_some_and(|(_, revision, _)| revision >= event.revision) {
                return violate(&records, &life, &format!("key {key} went back to revision {}", event.revision));
            }
        }
    };
    if let Some(wrong) = differs(&end, &entries) {
        violate(&records, &life, &wrong);
    }
}

fn differs(end: &Finals, entries: &BTreeMap<String, (PartitionId, u64, Option<i64>)>) -> Option<String> {
    end.iter().find_map(|(key, value)| {
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
    /// While there are faults it waits at most so long before it asks for more.
    slow_ms: u64,
    started: Instant,
    dice: Dice,
    partitions: usize,
    /// What was there when the run was over, and before the marks from `first` on were written.
    read: Option<Finals>,
    /// Partitions of which such a mark has come.
    marked: BTreeSet<PartitionId>,
    first: u32,
    marks: u32,
    rounds: u32,
}

impl Watcher {
    async fn new(life: &Life, seed: u64, endpoints: Vec<String>, (snapshot, slow_ms): (bool, u64)) -> Self {
        let client = connect(life, &endpoints).await;
        super::clients::create_maps(&client).await;
        let watch = watch(&client, None, snapshot);
        Watcher {
            life: life.clone(),
            endpoints,
            client,
            watch,
            snapshot,
            slow_ms,
            started: Instant::now(),
            dice: Dice::new(seed, &life.name),
            partitions: 0,
            read: None,
            marked: BTreeSet::new(),
            first: 0,
            marks: 0,
            rounds: 0,
        }
    }

    fn begin(&mut self, token: Option<WatchToken>) {
        self.watch = watch(&self.client, token, self.snapshot);
    }

    /// Begins another watch: what has come counts no more.
    fn begin_anew(&mut self) {
        self.begin(None);
        self.marked.clear();
    }

    async fn next(&mut self) -> keystead::error::Result<WatchMessage> {
        if self.dice.per_mille(30) {
            let token = self.watch.token().cloned();
            crate::event!(&self.life.name, "goes on elsewhere");
            self.endpoints.rotate_left(1);
            self.client = connect(&self.life, &self.endpoints).await;
            self.begin(token);
        }
        if self.slow_ms > 0 && self.started.elapsed() < QUIET_FROM {
            sleep(Duration::from_millis(self.dice.below(self.slow_ms))).await;
        }
        let message = self.watch.next().await?;
        self.partitions = message.token.positions.len();
        Ok(message)
    }

    /// Notes a mark of this round.
    fn note_mark(&mut self, key: &str, partition: PartitionId) {
        let number = key.strip_prefix(&self.mark()).and_then(|number| number.parse::<u32>().ok());
        if number.is_some_and(|number| number >= self.first) {
            self.marked.insert(partition);
        }
    }

    /// What the marks of this watcher begin with.
    fn mark(&self) -> String {
        format!("{MARK}{}-", self.life.name)
    }

    /// What is there in the end, once the run is over and this watcher has seen all of it: a mark of
    /// every partition, written after it was read. A write that a client gave up may still take
    /// effect in between, and then it is read once more: `last` is what the watcher saw last of a
    /// key, if anything.
    async fn ends(&mut self, records: &Records, last: impl Fn(&str) -> Option<Option<i64>>) -> Option<Finals> {
        if !*records.judged.borrow() || self.partitions == 0 {
            return None;
        }
        if self.read.is_some() && self.marked.len() == self.partitions {
            let read = self.read.take()?;
            let moved = read.iter().any(|(key, value)| last(key).is_some_and(|last| last != *value));
            if !moved || self.rounds == ROUNDS {
                return Some(read);
            }
            self.rounds += 1;
        }
        if self.read.is_none() {
            self.read = Some(read_numbers(&self.client, WATCHER, records).await);
            self.marked.clear();
            self.first = self.marks + 1;
        }
        self.marks += 1;
        // Whether it is acknowledged does not matter: others follow until each partition has one.
        let _ = self.client.put(MAP, format!("{}{}", self.mark(), self.marks), Value::i64(0)).await;
        None
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
