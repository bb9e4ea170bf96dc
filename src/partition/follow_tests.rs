//! Following a map in a replica: whatever happens between two pulls, a follower ends with what is
//! there, and sees each change once.

use super::entry::{Batch, Marker, PartitionEntry, RowWrite};
use super::feed::{FeedLimits, FeedPool};
use super::feed_tests::{MAP, batch};
use super::follow::{Followed, Step};
use super::memory::Memory;
use super::replica::ReplicaState;
use crate::clock::SystemThreads;
use crate::raft::{Committed, LogId};
use crate::storage::backend::{MemoryBackend, ReplicaKey};
use crate::storage::disk::StdDisk;
use crate::types::{
    GroupId, MapId, PartitionId, Position, RunId, Slot, Value, WatchEvent, WatchKeys, WatchKind, slot_of,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PARTITION: PartitionId = PartitionId(0);

struct Replica {
    state: Arc<ReplicaState>,
    index: u64,
    batches: u64,
    revision: u64,
    present: BTreeMap<String, (u64, String)>,
    _dir: tempfile::TempDir,
}

impl Replica {
    fn new(per_partition: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = MemoryBackend::open(Arc::new(StdDisk), dir.path()).expect("opens");
        let key = ReplicaKey { group: GroupId(1), replica: 1 };
        let state =
            ReplicaState::load(key, Arc::new(backend), Arc::new(SystemThreads), Memory::new(None)).expect("loads");
        state.keep_feed(FeedPool::new(FeedLimits { per_partition, per_node: usize::MAX }, Memory::new(None)).feed());
        let mut replica = Replica { state, index: 0, batches: 0, revision: 0, present: BTreeMap::new(), _dir: dir };
        replica.apply(PartitionEntry::Marker(Marker { term: 1, run: RunId(1) }));
        replica
    }

    fn apply(&mut self, entry: PartitionEntry) {
        self.index += 1;
        let log_id = LogId::new_term_index(1, self.index);
        let outcome = self.state.apply(log_id, Committed::Payload(&entry.encode())).expect("applies");
        assert!(outcome.took_effect);
    }

    /// One batch of changes; `None` deletes.
    fn change(&mut self, changes: &[(&str, Option<&str>)]) {
        let mut of_batch = Vec::new();
        for (key, value) in changes {
            if value.is_none() && !self.present.contains_key(*key) {
                continue;
            }
            self.revision += 1;
            of_batch.push((self.revision, *key, *value));
            match value {
                Some(value) => self.present.insert((*key).to_owned(), (self.revision, (*value).to_owned())),
                None => self.present.remove(*key),
            };
        }
        self.batches += 1;
        let mut made: Batch = batch(self.batches, &of_batch);
        if of_batch.is_empty() {
            made.writes = vec![RowWrite::put(Bytes::from_static(b"\xff\xff\x04\0\0\0\x09"), Bytes::new())];
        }
        self.apply(PartitionEntry::Batch(made));
    }
}

/// What a consumer makes of the events.
#[derive(Default)]
struct Consumer {
    entries: BTreeMap<String, (u64, String)>,
    changes: BTreeSet<(u64, String)>,
    newest: u64,
}

impl Consumer {
    fn take(&mut self, events: Vec<WatchEvent>) {
        for event in events {
            let key = String::from_utf8(event.key.to_vec()).expect("text");
            let text = |value: Value| String::from_utf8(value.data.to_vec()).expect("text");
            if let WatchKind::Entry(value) = event.kind {
                assert!(self.entries.insert(key, (event.revision, text(value))).is_none(), "an entry came twice");
                continue;
            }
            assert!(event.revision >= self.newest, "changes come in order");
            self.newest = event.revision;
            assert!(self.changes.insert((event.revision, key.clone())), "a change came twice");
            match event.kind {
                WatchKind::Put(value) => {
                    let before = self.entries.insert(key, (event.revision, text(value)));
                    assert!(before.is_none_or(|(revision, _)| revision < event.revision), "a change came late");
                }
                WatchKind::Removed(_) => {
                    self.entries.remove(&key);
                }
                WatchKind::Entry(_) | WatchKind::Reset => panic!("not here"),
            }
        }
    }
}

fn all() -> Followed {
    Followed { map: MAP, keys: WatchKeys::All, slot: None }
}

/// One step; the events and where to go on.
fn step(replica: &Replica, followed: &Followed, position: &Position, max: usize) -> (Vec<WatchEvent>, Position, bool) {
    match replica.state.follow(PARTITION, followed, position, max).expect("follows") {
        Step::On { events, position, more } => (events, position, more),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_watch_from_now_on_gives_each_change_of_one_batch() {
    let mut replica = Replica::new(1 << 20);
    replica.change(&[("a", Some("0"))]);
    let (events, position, _) = step(&replica, &all(), &Position::Now, 1 << 20);
    assert!(events.is_empty() && position == Position::Live { revision: 1 });
    // Three changes of one entry in one batch: all of them come, in order.
    replica.change(&[("a", Some("1")), ("a", Some("2")), ("a", None)]);
    let (events, position, more) = step(&replica, &all(), &position, 1 << 20);
    let kinds: Vec<u64> = events.iter().map(|event| event.revision).collect();
    assert_eq!((kinds, position, more), (vec![2, 3, 4], Position::Live { revision: 4 }, false));
    assert!(matches!(events[2].kind, WatchKind::Removed(_)));
}

#[test]
fn keys_prefixes_and_other_maps_are_told_apart() {
    let mut replica = Replica::new(1 << 20);
    replica.change(&[("a", Some("0")), ("ab", Some("1")), ("b", Some("2"))]);
    let found = |followed: Followed| {
        let (events, ..) = step(&replica, &followed, &Position::Live { revision: 0 }, 1 << 20);
        let (mut there, mut position) = (Vec::new(), Position::Begin);
        loop {
            let (more, next, again) = step(&replica, &followed, &position, 1 << 20);
            there.extend(more);
            position = next;
            if !again {
                break;
            }
        }
        assert_eq!(there.len(), events.len(), "snapshot and history agree");
        events.iter().map(|event| String::from_utf8_lossy(&event.key).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(all()), ["a", "ab", "b"]);
    let prefix = WatchKeys::Prefix(Bytes::from_static(b"a"));
    assert_eq!(found(Followed { keys: prefix, ..all() }), ["a", "ab"]);
    let key = WatchKeys::Key(Bytes::from_static(b"a"));
    assert_eq!(found(Followed { keys: key.clone(), slot: Some(Slot(1)), ..all() }), ["a"]);
    assert_eq!(found(Followed { keys: key, slot: Some(slot_of(b"elsewhere")), ..all() }), [""; 0]);
    assert_eq!(found(Followed { map: MapId(4), ..all() }), [""; 0]);
}

#[test]
fn what_the_history_has_passed_is_said() {
    let mut replica = Replica::new(2_000);
    for at in 0..100 {
        replica.change(&[("key", Some(&format!("value {at}")))]);
    }
    let early = replica.state.follow(PARTITION, &all(), &Position::Live { revision: 1 }, 1 << 20).expect("follows");
    let Step::Compacted(floor) = early else { panic!("{early:?}") };
    assert!(floor > 50 && floor < 100);
    let (events, ..) = step(&replica, &all(), &Position::Live { revision: floor }, 1 << 20);
    assert_eq!(events.len() as u64, 100 - floor);
}

#[test]
fn a_replica_that_is_behind_the_scan_waits() {
    let mut replica = Replica::new(1 << 20);
    replica.change(&[("a", Some("0"))]);
    let ahead = Position::Scan { revision: 9, after: Bytes::from_static(b"\0") };
    assert_eq!(step(&replica, &all(), &ahead, 1 << 20), (Vec::new(), ahead.clone(), false));
    let fresh = Position::Scan { revision: 9, after: Bytes::new() };
    assert_eq!(step(&replica, &all(), &fresh, 1 << 20), (Vec::new(), fresh.clone(), false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Changes and pulls in any order: pulls of few bytes, so that a scan takes many.
    #[test]
    fn a_follower_ends_with_what_is_there(
        before in proptest::collection::vec((0usize..12, any::<bool>()), 0..30),
        during in proptest::collection::vec((0usize..12, any::<bool>(), any::<bool>()), 0..60),
        max_bytes in 1usize..200,
    ) {
        let keys: Vec<String> = (0..12).map(|at| format!("{}{at}", "k".repeat(at % 5))).collect();
        let mut replica = Replica::new(1 << 20);
        for (at, (key, put)) in before.iter().enumerate() {
            replica.change(&[(&keys[*key], put.then_some(&format!("b{at}")))]);
        }
        let (mut consumer, mut position) = (Consumer::default(), Position::Begin);
        for (at, (key, put, pull)) in during.iter().enumerate() {
            replica.change(&[(&keys[*key], put.then_some(&format!("d{at}")))]);
            if *pull {
                let (events, next, _) = step(&replica, &all(), &position, max_bytes);
                consumer.take(events);
                position = next;
            }
        }
        loop {
            let (events, next, more) = step(&replica, &all(), &position, max_bytes);
            consumer.take(events);
            position = next;
            if !more {
                break;
            }
        }
        prop_assert_eq!(position, Position::Live { revision: replica.revision });
        prop_assert_eq!(consumer.entries, replica.present);
    }
}
