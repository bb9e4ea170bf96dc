//! Clients that write while peers die: puts, deletions and increments, each worker on keys of its own.
//! In: a client. Out: what each key may hold, judged by what was answered: an acknowledged write is there,
//! one whose outcome is unknown may be, one that was refused is not.

use super::patience::Patience;
use crate::actions::{is_excused, says_without_effect};
use keystead::client::Client;
use keystead::clock::{self, JoinHandle};
use keystead::error::Error;
use keystead::types::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The map of entries.
pub(super) const ENTRIES: &str = "entries";
/// The map of counters.
pub(super) const COUNTERS: &str = "counters";
const WORKERS: usize = 6;
/// Keys of a worker.
const KEYS: u64 = 16;
/// What makes a value long enough for logs to grow.
const FILLING: usize = 200;
/// Between two operations of a worker.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a read may be tried when the grid is at rest.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What an entry may be: the last one that is sure, or one of those written since with unknown outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    sure: Option<u64>,
    unsure: Vec<Option<u64>>,
}

impl Entry {
    fn ended(&mut self, wrote: Option<u64>, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged(_) => *self = Entry { sure: wrote, unsure: Vec::new() },
            Outcome::Unknown => self.unsure.push(wrote),
            Outcome::Refused => {}
        }
    }

    fn may_be(&self, found: Option<u64>) -> bool {
        self.sure == found || self.unsure.contains(&found)
    }
}

/// What a counter may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counter {
    sure: i64,
    unsure: i64,
}

impl Counter {
    fn ended(&mut self, outcome: Outcome) -> Option<String> {
        match outcome {
            Outcome::Acknowledged(number) => {
                let (least, most) = (self.sure + 1, self.sure + 1 + self.unsure);
                // What came before it in its session has taken effect, or never will.
                *self = Counter { sure: number, unsure: 0 };
                (number < least || number > most)
                    .then(|| format!("an increment was answered {number}, not {least} to {most}"))
            }
            Outcome::Unknown => {
                self.unsure += 1;
                None
            }
            Outcome::Refused => None,
        }
    }

    fn may_be(&self, found: i64) -> bool {
        (self.sure..=self.sure + self.unsure).contains(&found)
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Answered; an increment with its number.
    Acknowledged(i64),
    /// It may have taken effect, or still do so.
    Unknown,
    /// Nothing happened, and nothing will.
    Refused,
}

fn outcome(result: Result<i64, Error>) -> (Outcome, Option<Error>) {
    match result {
        Ok(number) => (Outcome::Acknowledged(number), None),
        Err(error) if says_without_effect(error.code) => (Outcome::Refused, Some(error)),
        Err(error) => (Outcome::Unknown, Some(error)),
    }
}

#[derive(Default)]
struct Book {
    entries: BTreeMap<String, Entry>,
    counters: BTreeMap<String, Counter>,
    acknowledged: u64,
    unknown: u64,
    /// Errors by code.
    errors: BTreeMap<String, u64>,
    findings: Vec<String>,
}

/// The clients.
pub(super) struct Load {
    book: Arc<Mutex<Book>>,
    client: Client,
    runs: watch::Sender<bool>,
    at_rest: watch::Receiver<usize>,
    _workers: Vec<JoinHandle<()>>,
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    number: usize,
    client: Client,
    book: Arc<Mutex<Book>>,
    runs: watch::Receiver<bool>,
    at_rest: watch::Sender<usize>,
}

impl Worker {
    async fn work(mut self) {
        for turn in 1.. {
            if !*self.runs.borrow() {
                self.at_rest.send_modify(|count| *count += 1);
                let goes_on = self.runs.wait_for(|runs| *runs).await.is_ok();
                self.at_rest.send_modify(|count| *count -= 1);
                if !goes_on {
                    return;
                }
            }
            self.step(turn).await;
            clock::sleep(PAUSE).await;
        }
    }

    async fn step(&self, turn: u64) {
        let key = format!("w{}-{}", self.number, turn / 4 % KEYS);
        let (ended, error) = match turn % 4 {
            0 => {
                let result = self.client.delete(ENTRIES, &key).await.map(|_| 0);
                self.entry(&key, None, result)
            }
            1 | 2 => {
                let value = Value::utf8(format!("{turn} {}", "x".repeat(FILLING)));
                let result = self.client.put(ENTRIES, &key, value).await.map(|_| 0);
                self.entry(&key, Some(turn), result)
            }
            _ => {
                let result = self.client.increment(COUNTERS, &key, 1).await.map(|number| number.value);
                let (ended, error) = outcome(result);
                let mut book = lock(&self.book);
                let wrong = book.counters.entry(key.clone()).or_default().ended(ended);
                book.findings.extend(wrong.map(|wrong| format!("{key}: {wrong}")));
                (ended, error)
            }
        };
        let mut book = lock(&self.book);
        match ended {
            Outcome::Acknowledged(_) => book.acknowledged += 1,
            Outcome::Unknown => book.unknown += 1,
            Outcome::Refused => {}
        }
        if let Some(error) = error {
            *book.errors.entry(error.code.to_string()).or_default() += 1;
            if !is_excused(error.code) {
                book.findings.push(format!("{key}: no fault excuses {error}"));
            }
        }
    }

    fn entry(&self, key: &str, wrote: Option<u64>, result: Result<i64, Error>) -> (Outcome, Option<Error>) {
        let (ended, error) = outcome(result);
        lock(&self.book).entries.entry(key.to_owned()).or_default().ended(wrote, ended);
        (ended, error)
    }
}

impl Load {
    /// Begins to write.
    pub(super) fn start(client: &Client) -> Load {
        let book: Arc<Mutex<Book>> = Arc::default();
        let (runs, gate) = watch::channel(true);
        let (resting, at_rest) = watch::channel(0);
        let workers = (0..WORKERS).map(|number| {
            let (client, book, runs, at_rest) = (client.clone(), book.clone(), gate.clone(), resting.clone());
            clock::spawn(Worker { number, client, book, runs, at_rest }.work())
        });
        Load { _workers: workers.collect(), book, client: client.clone(), runs, at_rest }
    }

    /// Operations that were acknowledged until now.
    pub(super) fn acknowledged(&self) -> u64 {
        lock(&self.book).acknowledged
    }

    /// Errors that were answered until now, by code.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.book).errors.clone()
    }

    /// Waits until so many more operations were acknowledged; `false` when the time is over.
    pub(super) async fn more(&self, count: u64, at_most: Duration) -> bool {
        let (mut patience, wanted) = (Patience::of(at_most, LOOK), self.acknowledged() + count);
        while self.acknowledged() < wanted {
            if !patience.next().await {
                return false;
            }
        }
        true
    }

    /// Lets the clients end what they are at, and then rest.
    pub(super) async fn pause(&mut self) {
        self.runs.send_replace(false);
        // The workers live as long as this.
        let _ = self.at_rest.wait_for(|resting| *resting == WORKERS).await;
    }

    /// Lets the clients go on.
    pub(super) fn go_on(&self) {
        self.runs.send_replace(true);
    }

    /// Reads everything, linearizably, and says what must not be.
    pub(super) async fn check(&self) -> Vec<String> {
        let (entries, counters) = {
            let mut book = lock(&self.book);
            if !book.findings.is_empty() {
                return std::mem::take(&mut book.findings);
            }
            (book.entries.clone(), book.counters.clone())
        };
        let mut found = Vec::new();
        for (key, entry) in entries {
            match self.read(ENTRIES, &key).await {
                Ok(text) => {
                    let number = text.as_deref().and_then(|text| text.split(' ').next()?.parse().ok());
                    if !entry.may_be(number) {
                        found.push(format!("{key} is {number:?}, but may be {entry:?} only"));
                    }
                }
                Err(error) => found.push(format!("{key} cannot be read: {error}")),
            }
        }
        for (key, counter) in counters {
            match self.read(COUNTERS, &key).await {
                Ok(text) => {
                    let number = text.map_or(Some(0), |text| text.parse().ok()).unwrap_or(-1);
                    if !counter.may_be(number) {
                        found.push(format!("counter {key} is {number}, but may be {counter:?} only"));
                    }
                }
                Err(error) => found.push(format!("counter {key} cannot be read: {error}")),
            }
        }
        found
    }

    async fn read(&self, map: &str, key: &str) -> Result<Option<String>, Error> {
        let mut patience = Patience::of(PATIENCE, LOOK);
        loop {
            let read = self.client.get(map, key).await;
            if read.is_ok() || !patience.next().await {
                return read.map(|found| found.map(|found| String::from_utf8_lossy(&found.value.data).into_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead::error::Code;

    #[test]
    fn an_entry_is_the_last_one_that_is_sure_or_an_unsure_one_since() {
        let mut entry = Entry::default();
        entry.ended(Some(1), Outcome::Unknown);
        entry.ended(Some(2), Outcome::Acknowledged(0));
        assert!(entry.may_be(Some(2)) && !entry.may_be(Some(1)) && !entry.may_be(None));
        entry.ended(None, Outcome::Unknown);
        entry.ended(Some(4), Outcome::Refused);
        assert!(entry.may_be(Some(2)) && entry.may_be(None) && !entry.may_be(Some(4)));
    }

    #[test]
    fn only_what_surely_took_no_effect_is_refused() {
        let ended = |code| outcome(Err(Error::new(code, "x"))).0;
        assert_eq!(ended(Code::NoLeader), Outcome::Refused);
        for code in [Code::OutcomeUnknown, Code::SessionEnded, Code::Internal, Code::DiskFailed, Code::TooLarge] {
            assert_eq!(ended(code), Outcome::Unknown, "{code}");
        }
    }

    #[test]
    fn a_counter_counts_each_acknowledged_increment_once() {
        let mut counter = Counter::default();
        assert_eq!(counter.ended(Outcome::Acknowledged(1)), None);
        assert_eq!(counter.ended(Outcome::Unknown), None);
        assert!(counter.may_be(1) && counter.may_be(2) && !counter.may_be(0) && !counter.may_be(3));
        assert_eq!(counter.clone().ended(Outcome::Acknowledged(2)), None, "the unsure one took no effect");
        assert!(counter.clone().ended(Outcome::Acknowledged(4)).is_some(), "one was counted twice");
        assert_eq!(counter.ended(Outcome::Acknowledged(3)), None, "the unsure one took effect");
        assert!(counter.may_be(3) && !counter.may_be(2) && !counter.may_be(4));
    }
}
