//! The operations on a view of rows that are computed and not applied: replies and row writes.

use super::*;
use crate::clock::{SystemThreads, Threads};
use crate::error::Code;
use crate::partition::{MapDirectory, Memory, ReplicaState};
use crate::storage::backend::{MemoryBackend, ReplicaKey};
use crate::storage::disk::StdDisk;
use crate::types::{
    AckLevel, Condition, Cursor, GroupId, KeyCodec, MapId, MapOptions, MapSpec, ReadLevel, SLOTS, ValueCodec,
};
use std::sync::Arc;

struct OneMap(MapDescriptor);

impl MapDirectory for OneMap {
    fn map(&self, name: &str) -> Option<MapDescriptor> {
        Some(self.0.clone()).filter(|map| map.name == name)
    }

    fn partitions(&self) -> u32 {
        1
    }
}

/// A partition's rows, changed by what operations write.
struct Table {
    view: View,
    map: MapDescriptor,
    revision: u64,
    _dir: tempfile::TempDir,
}

impl Table {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = Arc::new(MemoryBackend::open(Arc::new(StdDisk), dir.path()).expect("opens"));
        let threads: Arc<dyn Threads> = Arc::new(SystemThreads);
        let key = ReplicaKey { group: GroupId(1), replica: 1 };
        let replica = ReplicaState::load(key, backend, threads, Memory::new(None)).expect("loads");
        let map = MapSpec::new("m", KeyCodec::Utf8, ValueCodec::Utf8).descriptor(MapId(3));
        let view = View::new(replica, Arc::new(OneMap(map.clone())));
        Table { view, map, revision: 0, _dir: dir }
    }

    fn run(&mut self, op: Op) -> Result<ReplyBody> {
        let request = Request {
            affinity: None,
            op,
            read: ReadLevel::Linearizable,
            ack: AckLevel::MajorityFsync,
            stamp: None,
            deadline_ms: 1,
        };
        let done = execute(&self.view, &self.map, &request, &mut self.revision)?;
        for write in done.writes {
            self.view.write(1, write.row.clone(), write.value().cloned());
        }
        Ok(done.body)
    }

    fn put(&mut self, key: &str, condition: Condition, previous: bool) -> ReplyBody {
        let (map, key, value) = ("m".to_owned(), Bytes::copy_from_slice(key.as_bytes()), Value::utf8("v"));
        self.run(Op::Put { map, key, value, condition, previous, ttl_ms: None }).expect("answers")
    }

    fn delete(&mut self, key: &str, condition: Condition, previous: bool) -> ReplyBody {
        let (map, key) = ("m".to_owned(), Bytes::copy_from_slice(key.as_bytes()));
        self.run(Op::Delete { map, key, condition, previous }).expect("answers")
    }

    fn page(
        &mut self,
        prefix: &str,
        from: Option<Cursor>,
        limit: u32,
        max_bytes: u32,
    ) -> (Vec<String>, Option<Cursor>) {
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        let op = Op::Scan { map: "m".into(), prefix, from, until: Slot(SLOTS - 1), limit, max_bytes };
        match self.run(op).expect("a page") {
            ReplyBody::Page { entries, next } => {
                let text = |(key, _): (Bytes, StoredValue)| String::from_utf8(key.to_vec()).expect("text");
                (entries.into_iter().map(text).collect(), next)
            }
            other => panic!("{other:?}"),
        }
    }

    fn size(&mut self) -> u64 {
        match self.run(Op::Size { map: "m".into(), slot: None }).expect("a size") {
            ReplyBody::Size { entries, .. } => entries,
            other => panic!("{other:?}"),
        }
    }
}

fn written(body: &ReplyBody) -> u64 {
    match body {
        ReplyBody::Written { revision, .. } => *revision,
        other => panic!("{other:?}"),
    }
}

#[test]
fn conditions_decide_puts_and_deletions() {
    let mut table = Table::new();
    assert!(matches!(table.put("k", Condition::Present, false), ReplyBody::ConditionFailed(None)));
    let first = written(&table.put("k", Condition::Absent, true));
    assert!(matches!(table.put("k", Condition::Absent, false), ReplyBody::ConditionFailed(Some(_))));
    let replaced = table.put("k", Condition::Present, true);
    assert!(
        matches!(&replaced, ReplyBody::Written { revision, previous: Some(old) } if *revision > first && old.revision == first)
    );
    let now = written(&replaced);
    assert!(matches!(table.delete("k", Condition::Revision(first), false), ReplyBody::ConditionFailed(Some(_))));
    assert!(matches!(table.delete("k", Condition::Absent, false), ReplyBody::ConditionFailed(Some(_))));
    let gone = table.delete("k", Condition::Revision(now), true);
    assert!(matches!(gone, ReplyBody::Deleted { existed: true, previous: Some(old), .. } if old.revision == now));
    assert!(matches!(table.delete("k", Condition::Always, true), ReplyBody::Deleted { existed: false, .. }));
    assert!(matches!(table.delete("k", Condition::Present, true), ReplyBody::ConditionFailed(None)));
}

#[test]
fn a_transaction_does_all_or_nothing() {
    let mut table = Table::new();
    let key = |text: &'static str| Bytes::from_static(text.as_bytes());
    let run = |table: &mut Table, checks, writes| table.run(Op::Transact { map: "m".into(), checks, writes });
    let value = || Some(Value::utf8("v"));
    let both = vec![(key("{t}a"), value()), (key("{t}b"), value())];
    let (absent, at) =
        (|text| (key(text), Condition::Absent), |text, revision| (key(text), Condition::Revision(revision)));
    let revision = written(&run(&mut table, vec![absent("{t}a")], both.clone()).expect("commits"));
    let refused = run(&mut table, vec![at("{t}a", revision), absent("{t}b")], both).expect("answers");
    assert!(
        matches!(&refused, ReplyBody::CheckFailed { key, present: Some(at) } if key == "{t}b" && at.revision == revision)
    );
    for (text, holds) in [("v", true), ("w", false)] {
        let checked = vec![(key("{t}b"), Condition::Value(Value::utf8(text)))];
        let checked = run(&mut table, checked, Vec::new()).expect("answers");
        assert_eq!(matches!(checked, ReplyBody::Written { .. }), holds, "{text}: {checked:?}");
    }
    let none = run(&mut table, vec![(key("{t}c"), Condition::Present)], Vec::new()).expect("answers");
    assert!(matches!(&none, ReplyBody::CheckFailed { present: None, .. }), "{none:?}");
    let gone = run(&mut table, vec![at("{t}b", revision)], vec![(key("{t}a"), None)]).expect("commits");
    assert!(written(&gone) > revision);
    assert_eq!(table.page("", None, 9, 999).0, ["{t}b"]);
    let checked = run(&mut table, vec![at("{t}b", revision)], Vec::new()).expect("commits");
    assert_eq!(written(&checked), written(&gone), "checks alone take no revision");
    let apart = run(&mut table, Vec::new(), vec![(key("a"), None), (key("b"), None)]).expect_err("two slots");
    assert!(apart.code == Code::CrossSlot && apart.remedy.contains("{tag}"), "{apart}");
    let wrong = vec![(key("{t}b"), None), (key("{t}c"), Some(Value::i64(1)))];
    assert_eq!(run(&mut table, Vec::new(), wrong).expect_err("an i64").code, Code::WrongCodec);
    assert_eq!(table.size(), 1, "nothing was done");
}

#[test]
fn pages_follow_each_other_by_slot_and_key() {
    let mut table = Table::new();
    let mut keys: Vec<String> = (0..700).map(|at| format!("{}{{{}}}", at % 3, at % 40)).collect();
    keys.extend((0..300).map(|at| format!("{{one}}{at:03}")));
    keys.iter().for_each(|key| drop(table.put(key, Condition::Always, false)));
    keys.sort_by_key(|key| (slot_of(affinity_of(key.as_bytes())), key.clone()));
    keys.dedup();
    for (limit, max_bytes) in [(1, 999), (7, 1 << 20), (10_000, 50), (10_000, 1 << 20)] {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let (page, next) = table.page("", from, limit, max_bytes);
            assert!(page.len() <= limit as usize && (!page.is_empty() || next.is_none()));
            found.extend(page);
            // The token is all that a caller keeps.
            from = next.map(|next| Cursor::from_token(&next.to_token()).expect("a token"));
            if from.is_none() {
                break;
            }
        }
        assert_eq!(found, keys, "limit {limit}, {max_bytes} bytes");
    }
    let ones: Vec<String> = keys.iter().filter(|key| key.starts_with("1{")).cloned().collect();
    assert_eq!(table.page("1{", None, 10_000, 1 << 20).0, ones);
    assert_eq!(table.size(), keys.len() as u64);

    table.delete(&keys[5], Condition::Always, false);
    let (page, next) = table.page("", None, 6, 1 << 20);
    assert_eq!(page.last(), keys.get(6), "a deleted entry is not shown");
    let foreign = next.map(|next| Cursor { map: MapId(4), ..next });
    let op = Op::Scan {
        map: "m".into(),
        prefix: Bytes::new(),
        from: foreign,
        until: Slot(SLOTS - 1),
        limit: 1,
        max_bytes: 1,
    };
    assert_eq!(table.run(op).expect_err("another map's").code, Code::InvalidRequest);
}

#[test]
fn clearing_goes_piece_by_piece_once_through() {
    let mut table = Table::new();
    (0..100).for_each(|at| drop(table.put(&format!("k{at}"), Condition::Always, false)));
    let (mut all, mut from, mut pieces) = (0, None, 0);
    loop {
        let op = Op::Clear { map: "m".into(), from, until: Slot(SLOTS - 1), limit: 30 };
        let ReplyBody::Cleared { deleted, next } = table.run(op).expect("clears") else { panic!("another reply") };
        all += deleted;
        pieces += 1;
        from = next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((all, table.size(), pieces), (100, 0, 4));
}

impl Table {
    /// The map with options, at time 1,000.
    fn with(options: MapOptions) -> Self {
        let mut table = Table::new();
        table.map.options = options;
        table.view.set_now(1_000);
        table
    }

    fn put_for(&mut self, key: &str, ttl_ms: Option<u64>) {
        let (map, key, value) = ("m".to_owned(), Bytes::copy_from_slice(key.as_bytes()), Value::utf8("1"));
        self.run(Op::Put { map, key, value, condition: Condition::Always, previous: false, ttl_ms }).expect("puts");
    }

    fn touch(&mut self, key: &str, ttl_ms: Option<u64>) -> bool {
        let (map, key) = ("m".to_owned(), Bytes::copy_from_slice(key.as_bytes()));
        match self.run(Op::Touch { map, key, ttl_ms }).expect("answers") {
            ReplyBody::Touched { existed, revision } => {
                assert_eq!(existed, revision > 0);
                existed
            }
            other => panic!("{other:?}"),
        }
    }

    /// When the key's entry expires; `None` if there is none to be seen.
    fn expires(&mut self, key: &str) -> Option<u64> {
        let (map, key) = ("m".to_owned(), Bytes::copy_from_slice(key.as_bytes()));
        match self.run(Op::Get { map, key }).expect("reads") {
            ReplyBody::Entry(entry) => entry.map(|entry| entry.expires_ms),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn writes_take_their_own_time_or_the_maps_and_touches_replace_it() {
    let mut table = Table::with(MapOptions { ttl_ms: 50, ..MapOptions::default() });
    table.put_for("default", None);
    table.put_for("own", Some(7));
    table.put_for("stays", Some(0));
    assert_eq!(table.expires("default"), Some(1_050));
    assert_eq!(table.expires("own"), Some(1_007));
    assert_eq!(table.expires("stays"), Some(0));
    table.view.set_now(1_006);
    table.run(Op::Increment { map: "m".into(), key: "own".into(), delta: 1 }).expect("adds");
    assert_eq!(table.expires("own"), Some(1_007), "an increment keeps the time");
    assert!(table.touch("own", Some(9)));
    assert_eq!(table.expires("own"), Some(1_015));
    assert!(table.touch("default", None) && table.touch("stays", Some(4)));
    assert_eq!((table.expires("default"), table.expires("stays")), (Some(1_056), Some(1_010)));
    assert!(table.touch("own", Some(0)));
    assert_eq!(table.expires("own"), Some(0));
    table.put_for("own", None);
    assert_eq!(table.expires("own"), Some(1_056), "a put does not keep the time");
    assert!(!table.touch("never", Some(4)));
}

#[test]
fn what_has_expired_is_absent_for_every_operation() {
    let mut table = Table::with(MapOptions::default());
    for (key, ttl_ms) in [("a", Some(10)), ("b", Some(10)), ("c", None)] {
        table.put_for(key, ttl_ms);
    }
    table.view.set_now(1_009);
    assert_eq!((table.size(), table.page("", None, 9, 999).0), (3, vec!["b".into(), "c".into(), "a".into()]));
    table.view.set_now(1_010);
    assert_eq!((table.size(), table.page("", None, 9, 999).0), (1, vec!["c".to_owned()]));
    let hidden = table.view.take_hidden();
    let row = |key: &str| rows::map_row(slot_of(key.as_bytes()), MapId(3), key.as_bytes());
    assert_eq!(hidden, [row("a"), row("b")].into_iter().collect(), "what was hidden is to be deleted");
    assert_eq!(table.expires("a"), None);
    assert!(!table.touch("a", Some(99)), "it is gone for good");
    assert!(matches!(table.put("a", Condition::Present, false), ReplyBody::ConditionFailed(None)));
    assert!(matches!(table.delete("a", Condition::Always, true), ReplyBody::Deleted { existed: false, .. }));
    assert!(matches!(table.put("a", Condition::Absent, false), ReplyBody::Written { .. }));
    let cleared = table.run(Op::Clear { map: "m".into(), from: None, until: Slot(SLOTS - 1), limit: 9 });
    assert!(matches!(cleared, Ok(ReplyBody::Cleared { deleted: 2, .. })), "{cleared:?}");
}
