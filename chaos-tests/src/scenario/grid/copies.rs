//! A replicated map: one client writes it, and reads what each peer's copy holds. A copy names its
//! revision: what it holds is what was written up to there; it never goes back at one peer; and a read
//! that demands a revision is of that one or a later.

use super::clients::{check_error, connect, is_unknown, number};
use super::{QUIET_FROM, Records};
use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use grid_proto::keystead::v1;
use keystead::api::wire;
use keystead::client::Client;
use keystead::clock::{Instant, sleep, timeout};
use keystead::error::{Code, Error, Result};
use keystead::net::grpc::{GrpcConfig, channel};
use keystead::types::{KeyCodec, MapOptions, MapSpec, Value, ValueCodec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const MAP: &str = "rates";
const KEYS: usize = 3;
/// Time for one local read.
const ATTEMPT: Duration = Duration::from_millis(600);

/// What the map's only writer knows.
#[derive(Default)]
struct Written {
    /// By key and revision: what was written there; `None` is a deletion.
    known: BTreeMap<(usize, u64), Option<i64>>,
    /// Writes of unknown outcome.
    open: BTreeSet<(usize, Option<i64>)>,
    /// The newest revision that each peer's copy was seen at in one of its lives.
    seen: BTreeMap<(String, u64), u64>,
    wrong: Vec<String>,
}

/// What a copy answered.
struct Local {
    key: usize,
    /// The entry's revision and value.
    entry: Option<(u64, i64)>,
    /// The copy's.
    revision: u64,
}

impl Written {
    /// A write was acknowledged at this revision.
    fn wrote(&mut self, key: usize, revision: u64, value: Option<i64>) {
        self.known.insert((key, revision), value);
    }

    fn newest(&self) -> u64 {
        self.known.keys().map(|(_, revision)| *revision).max().unwrap_or(0)
    }

    /// A peer answered from its copy, asked for one of `at_least` this revision.
    fn read(&mut self, peer: (String, u64), at_least: u64, local: &Local) {
        let Local { key, entry, revision } = *local;
        let mut wrong = Vec::new();
        let seen = self.seen.entry(peer.clone()).or_default();
        if revision < *seen {
            wrong.push(format!("the copy of {peer:?} was of {seen}, and then of {revision}"));
        }
        *seen = revision.max(*seen);
        if revision < at_least {
            wrong.push(format!("{at_least} was demanded of {peer:?}, which answered from {revision}"));
        }
        let last = self.known.range((key, 0)..=(key, revision)).next_back().map(|((_, at), value)| (*at, *value));
        let (last_at, last_value) = last.unwrap_or((0, None));
        let says = format!("key {key} at {revision} is {entry:?} at {peer:?}; written was {last_value:?} at {last_at}");
        let right = match entry {
            Some((at, _)) if at > revision || at < last_at => false,
            Some((at, value)) if at == last_at => last_value == Some(value),
            // Later than what is known: one of those whose outcome nobody told.
            Some((at, value)) => {
                let possible = self.open.remove(&(key, Some(value)));
                if possible {
                    self.known.insert((key, at), Some(value));
                }
                possible
            }
            None => last_value.is_none() || self.open.contains(&(key, None)),
        };
        if !right {
            wrong.push(says);
        }
        self.wrong.append(&mut wrong);
    }

    fn violations(&mut self) -> impl Iterator<Item = Violation> {
        self.wrong.drain(..).map(|what| Violation { check: "copies", what })
    }
}

struct Writer {
    life: Life,
    client: Client,
    records: Records,
    written: Written,
    last: i64,
}

fn failed(error: &Error, records: &Records) {
    if !is_unknown(error) {
        check_error(error, records);
    }
}

impl Writer {
    async fn write(&mut self, key: usize, is_deletion: bool) {
        self.last += 1;
        let (name, value) = (format!("k{key}"), (!is_deletion).then_some(self.last));
        let done = match value {
            Some(value) => self.client.put(MAP, &name, Value::i64(value)).await.map(|written| written.revision),
            None => self.client.delete(MAP, &name).await.map(|deleted| deleted.revision),
        };
        crate::event!("k0", "{name} {value:?}: {:?}", done.as_ref().map_err(|error| error.code));
        match done {
            // Nothing was there to delete.
            Ok(0) => {}
            Ok(revision) => self.written.wrote(key, revision, value),
            Err(error) if is_unknown(&error) => {
                self.written.open.insert((key, value));
            }
            Err(error) => check_error(&error, &self.records),
        }
    }

    /// Asks one peer's copy.
    async fn ask(&self, address: &str, key: usize, at_least: u64) -> Result<Local> {
        let request =
            v1::GetLocalRequest { map: MAP.to_owned(), key: format!("k{key}").into(), at_least, deadline_ms: 400 };
        let asked = async {
            let config = GrpcConfig { keepalive: None, ..GrpcConfig::default() };
            let channel = channel(Arc::new(self.life.network.clone()), address, &config).await?;
            let mut watch = v1::watch_client::WatchClient::new(channel);
            let reply = watch.get_local(request).await.map_err(|status| wire::error_from_status(&status))?;
            wire::local_entry_from_wire(reply.into_inner())
        };
        let late = |_| Err(Error::new(Code::PeerUnreachable, "no answer in time"));
        let local = timeout(ATTEMPT, asked).await.unwrap_or_else(late)?;
        let at = local.entry.as_ref().map(|entry| entry.revision);
        Ok(Local { key, entry: at.zip(number(local.entry)?), revision: local.revision })
    }

    async fn read(&mut self, (name, address): &(String, String), key: usize, at_least: u64) {
        // Whoever is running now is who answers: one that is started meanwhile is another copy.
        let life = self.records.lives.borrow().get(name).copied().unwrap_or(0);
        let answer = self.ask(address, key, at_least).await;
        if self.records.lives.borrow().get(name).copied().unwrap_or(0) != life {
            return;
        }
        match answer {
            Ok(local) => {
                crate::event!("k0", "{name} has {key} at {}: {:?}", local.revision, local.entry);
                self.written.read((name.clone(), life), at_least, &local);
            }
            // A peer that has just started, or is no member, may not know the map.
            Err(error) if matches!(error.code, Code::NoLocalCopy | Code::NoSuchMap | Code::MemberRemoved) => {}
            Err(error) => failed(&error, &self.records),
        }
    }

    fn tell(&mut self) {
        self.records.violations.borrow_mut().extend(self.written.violations());
    }
}

/// Writes and reads until everything is mended.
pub(super) async fn follow(life: Life, seed: u64, peers: Vec<(String, String)>, records: Records) {
    let start = Instant::now();
    let endpoints: Vec<String> = peers.iter().map(|(_, address)| address.clone()).collect();
    let client = connect(&life, &endpoints).await;
    let options = MapOptions::default().replicated();
    let spec = MapSpec::new(MAP, KeyCodec::Utf8, ValueCodec::I64).options(options);
    while client.create_map_as(&spec).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let mut dice = Dice::new(seed, "copies");
    let mut writer = Writer { life, client, records, written: Written::default(), last: 0 };
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(dice.between(0, 50))).await;
        let key = dice.index(KEYS);
        match dice.below(10) {
            0..3 => writer.write(key, dice.per_mille(200)).await,
            _ => {
                let at_least = if dice.per_mille(300) { writer.written.newest() } else { 0 };
                let peer = dice.pick(&peers).clone();
                writer.read(&peer, key, at_least).await;
            }
        }
        writer.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(told: impl FnOnce(&mut Written, &dyn Fn(u64, Option<(u64, i64)>) -> Local)) -> String {
        let mut written = Written::default();
        written.wrote(0, 3, Some(30));
        written.wrote(1, 4, Some(40));
        written.wrote(0, 6, Some(60));
        written.open.insert((0, Some(70)));
        told(&mut written, &|revision, entry| Local { key: 0, entry, revision });
        written.wrong.join("; ")
    }

    fn one(at_least: u64, revision: u64, entry: Option<(u64, i64)>) -> String {
        says(|written, local| written.read(("n1".to_owned(), 1), at_least, &local(revision, entry)))
    }

    #[test]
    fn a_copy_is_what_was_written_up_to_its_revision() {
        for (revision, entry) in [(2, None), (3, Some((3, 30))), (5, Some((3, 30))), (6, Some((6, 60)))] {
            assert_eq!(one(0, revision, entry), "");
        }
        assert_eq!(one(7, 8, Some((8, 70))), "", "a write of unknown outcome may have happened");
        assert_eq!(one(7, 8, Some((6, 60))), "", "or not");
    }

    #[test]
    fn each_wrong_copy_is_named() {
        assert!(one(0, 6, Some((3, 30))).contains("written was Some(60) at 6"));
        assert!(one(0, 3, None).contains("is None"));
        assert!(one(0, 5, Some((6, 60))).contains("at 5 is Some((6, 60))"));
        assert!(one(0, 6, Some((6, 61))).contains("is Some((6, 61))"));
        assert!(one(0, 9, Some((8, 71))).contains("is Some((8, 71))"));
        assert!(one(7, 6, Some((6, 60))).contains("7 was demanded"));
        let back = says(|written, local| {
            written.read(("n1".to_owned(), 1), 0, &local(6, Some((6, 60))));
            written.read(("n1".to_owned(), 2), 0, &local(5, Some((3, 30))));
            written.read(("n1".to_owned(), 1), 0, &local(5, Some((3, 30))));
        });
        assert_eq!(back.matches("was of 6, and then of 5").count(), 1, "{back}");
    }
}
