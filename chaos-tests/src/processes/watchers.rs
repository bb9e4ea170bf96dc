//! A client that watches the map through all faults of a round, and drops its connection now and then to go
//! on from its token through another peer.
//!
//! In: where the peers are reached, and when the clients have finished. Out: what it saw, as one or more
//! unbroken watches, the last of which goes on until everything that had happened by its end must be there.
//! It writes marks of its own, to see that each partition has come so far; nobody else writes those keys.

use super::clients::{Common, connect};
use super::workload::{self, MAP};
use crate::actions::perform;
use crate::checks::{self, Finals, Seen, Violation, Watched};
use crate::dice::Dice;
use crate::history::{Action, Answer, Operation, Outcome};
use keystead::client::{Client, Watch};
use keystead::clock::{sleep, timeout};
use keystead::error::{Class, Code, Error};
use keystead::types::{PartitionId, Value, WatchKind, WatchMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The number of the client that watches, as a reader.
pub const WATCHER: u32 = 98;
/// What the keys of its marks begin with.
const MARK: &str = "z";
/// After so long without a message it asks another peer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often what is there is read again because it went on changing.
const READINGS: u32 = 20;

/// Watches for a round.
pub async fn follow(common: Common, from: Ipv4Addr) -> Vec<Watched> {
    let name = format!("the watcher of round {}", common.round);
    let dice = Dice::new(common.seed, &name);
    let mut watcher = Watcher { common, from, dice, turn: 0, watch: None, partitions: 0, end: End::default() };
    let (mut ended, mut watched) = (Vec::new(), Watched { name: name.clone(), ..Watched::default() });
    let mut begun = false;
    loop {
        if let Some(end) = watcher.ends(&watched).await {
            ended.push(Watched { end: Some(end), ..watched });
            return ended;
        }
        match watcher.next().await {
            Some(Ok(message)) => {
                if !std::mem::replace(&mut begun, true) {
                    watched.from = watcher.common.record.mark();
                }
                watcher.take(message, &mut watched);
            }
            Some(Err(error)) if error.code == Code::Compacted => {
                // What comes next is another watch.
                let next = Watched { name: name.clone(), ..Watched::default() };
                ended.push(std::mem::replace(&mut watched, next));
                (begun, watcher.watch) = (false, None);
                watcher.end.marked.clear();
            }
            Some(Err(error)) => watcher.failed(&error).await,
            None => {}
        }
    }
}

/// How far the end of a watch has come.
#[derive(Default)]
struct End {
    /// What was there before the marks from `first` on were written.
    read: Option<Finals>,
    /// Partitions of which such a mark has come.
    marked: BTreeSet<PartitionId>,
    first: u32,
    marks: u32,
    readings: u32,
}

struct Watcher {
    common: Common,
    from: Ipv4Addr,
    dice: Dice,
    /// Peers asked so far.
    turn: u32,
    watch: Option<(Client, Watch)>,
    partitions: usize,
    end: End,
}

impl Watcher {
    /// Connects to another peer, to go on from where the last one came to.
    async fn go_on(&mut self) -> Option<(Client, Watch)> {
        let token = self.watch.as_ref().and_then(|(_, watch)| watch.token().cloned());
        self.turn += 1;
        let client = connect(self.from, self.common.endpoints(self.turn)).await.ok()?;
        let mut builder = client.watch(MAP);
        if let Some(token) = token {
            builder = builder.from(token);
        }
        Some((client, builder.start()))
    }

    /// The next message; `None` when there is none yet.
    async fn next(&mut self) -> Option<keystead::error::Result<WatchMessage>> {
        if self.watch.is_none() || self.dice.per_mille(5) {
            match self.go_on().await {
                Some(watch) => self.watch = Some(watch),
                None => sleep(Duration::from_millis(50)).await,
            }
        }
        let (_, watch) = self.watch.as_mut()?;
        match timeout(PATIENCE, watch.next()).await {
            Ok(message) => Some(message),
            Err(_) => {
                if let Some(watch) = self.go_on().await {
                    self.watch = Some(watch);
                }
                None
            }
        }
    }

    fn take(&mut self, message: WatchMessage, watched: &mut Watched) {
        self.partitions = message.token.positions.len();
        for event in message.events {
            let key = String::from_utf8_lossy(&event.key).into_owned();
            let value = match &event.kind {
                WatchKind::Put(value) => value.data.as_ref().try_into().ok().map(i64::from_le_bytes),
                WatchKind::Removed(_) => None,
                WatchKind::Entry(_) | WatchKind::Reset => {
                    self.violation("an event of a snapshot that was not asked for".to_owned());
                    continue;
                }
            };
            let number = key.strip_prefix(&self.mark()).and_then(|number| number.parse::<u32>().ok());
            if number.is_some_and(|number| number >= self.end.first) {
                self.end.marked.insert(event.partition);
            }
            watched.events.push(Seen { partition: event.partition.0, revision: event.revision, key, value });
        }
    }

    /// Errors that no fault excuses are violations; others are waited out.
    async fn failed(&mut self, error: &Error) {
        let class = error.code.facts().0;
        if !matches!(class, Class::Unavailable | Class::DeadlineExceeded | Class::Exhausted) {
            self.violation(error.to_string());
        }
        sleep(Duration::from_millis(100)).await;
    }

    fn violation(&self, what: String) {
        self.common.violation("watch without gap or repeat", what);
    }

    /// What the marks of this watcher begin with.
    fn mark(&self) -> String {
        format!("{MARK}{}-", self.common.round)
    }

    /// What is there in the end, once the clients have finished and this watch has seen all of it: a mark
    /// of every partition, written after it was read. A write that a client gave up may still take effect
    /// in between, and then it is read once more.
    async fn ends(&mut self, watched: &Watched) -> Option<Finals> {
        if !self.common.quiet.load(Ordering::Relaxed) || self.partitions == 0 {
            return None;
        }
        if self.end.marked.len() == self.partitions
            && let Some(read) = self.end.read.take()
        {
            let last = |key: &str| watched.events.iter().rev().find(|event| event.key == key).map(|event| event.value);
            let moved = read.iter().any(|(key, value)| last(key).is_some_and(|last| last != *value));
            if !moved || self.end.readings == READINGS {
                return Some(read);
            }
            self.end.readings += 1;
        }
        let client = self.watch.as_ref().map(|(client, _)| client.clone())?;
        if self.end.read.is_none() {
            self.end.read = Some(read_all(&self.common, &client).await?);
            self.end.marked.clear();
            self.end.first = self.end.marks + 1;
        }
        self.end.marks += 1;
        // Whether it is acknowledged does not matter: others follow until each partition has one.
        let _ = client.put(MAP, format!("{}{}", self.mark(), self.end.marks), Value::i64(0)).await;
        None
    }
}

/// Reads the keys of the round; `None` when one is not answered yet.
async fn read_all(common: &Common, client: &Client) -> Option<Finals> {
    let mut finals = Finals::new();
    for key in workload::keys(common.round) {
        let operation = common.record.invoke(WATCHER, &key, Action::Get);
        // One that is not answered stays unknown, which says nothing of a read.
        let (answer, level) = perform(client, MAP, &key, Action::Get).await.ok()?;
        common.record.end(operation, Outcome::Answered(answer), level);
        if let Answer::Value(value) = answer {
            finals.insert(key, value);
        }
    }
    Some(finals)
}

/// What the watches of a round show: every acknowledged change of its keys once and in order, and what one
/// session wrote to a key in the order in which it was asked.
pub fn check(watches: &[Watched], operations: &[Operation], keys: &[String]) -> Vec<Violation> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut violations = Vec::new();
    for watched in watches {
        violations.extend(checks::watched(watched, operations, &keys));
        let mut marks: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for event in watched.events.iter().filter(|event| keys.contains(&event.key.as_str())) {
            let mark = event.value.and_then(workload::mark_of);
            marks.entry(&event.key).or_default().extend(mark);
        }
        violations.extend(marks.iter().flat_map(|(key, marks)| checks::in_session_order(key, marks)));
    }
    if !watches.iter().any(|watched| watched.end.is_some()) {
        let what = "no watch saw the end of the round".to_owned();
        violations.push(Violation { check: "watch without gap or repeat", what });
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::record::Record;

    /// A value of a session of client 1.
    fn value(session: i64, number: i64) -> i64 {
        session << 40 | 1 << 32 | number
    }

    /// What these values make of a key, one acknowledged put after the other, and what a watch shows of it.
    fn check_of(written: &[i64], seen: &[i64], end: Option<i64>) -> Vec<&'static str> {
        let record = Record::default();
        for value in written {
            let operation = record.invoke(0, "k", Action::Put(*value));
            record.end(operation, Outcome::Answered(Answer::Written), None);
        }
        let event =
            |(revision, value): (u64, &i64)| Seen { partition: 0, revision, key: "k".to_owned(), value: Some(*value) };
        let watched = Watched {
            name: "w".to_owned(),
            from: 0,
            end: Some([("k".to_owned(), end)].into()),
            events: (1..).zip(seen).map(event).collect(),
        };
        check(&[watched], &record.operations(), &["k".to_owned()]).iter().map(|found| found.check).collect()
    }

    #[test]
    fn what_was_acknowledged_is_what_was_seen() {
        let written = [value(1, 1), value(1, 2), value(2, 3)];
        assert_eq!(check_of(&written, &written, Some(value(2, 3))), Vec::<&str>::new());
        let gap = check_of(&written, &[value(1, 1), value(2, 3)], Some(value(2, 3)));
        assert_eq!(gap, ["watch without gap or repeat"]);
        let none = check(&[], &[], &[]);
        assert_eq!(none.len(), 1, "a round without a watch is a finding: {none:?}");
    }

    #[test]
    fn a_session_is_in_order_and_two_of_them_need_not_be() {
        let order = |one: i64, other: i64| {
            let record = Record::default();
            for value in [one, other] {
                record.invoke(0, "k", Action::Put(value));
            }
            let seen = |revision, value| Seen { partition: 0, revision, key: "k".to_owned(), value: Some(value) };
            let events = vec![seen(1, other), seen(2, one)];
            let end = Some([("k".to_owned(), Some(one))].into());
            let watched = Watched { name: "w".to_owned(), from: 0, end, events };
            check(&[watched], &record.operations(), &["k".to_owned()])
        };
        let found = order(value(1, 1), value(1, 2));
        assert!(found.len() == 1 && found[0].check == "session order", "{found:?}");
        assert_eq!(order(value(1, 1), value(2, 2)), [], "the client had begun anew");
    }
}
