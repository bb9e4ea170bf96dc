//! Copies of replicated maps: what every peer holds in RAM to read from. In: the messages of a
//! watch. Out: entries, with the revision that the copy is of. A copy is exactly the map's state
//! at that revision; while it is filled anew, the last whole one is read. Bounded in bytes, each
//! and together, and counted in the node's account of RAM.

use super::memory::Memory;
use crate::error::{Code, Error, Result};
use crate::types::{MapId, StoredValue, WatchEvent, WatchKind, WatchMessage};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// About the RAM that an entry takes besides key and value.
const OVERHEAD: usize = 160;

type Entries = BTreeMap<Bytes, StoredValue>;

#[derive(Default)]
struct Content {
    entries: Entries,
    bytes: usize,
    /// Being filled; takes the entries' place when it is whole.
    filling: Option<(Entries, usize)>,
    /// What the node's account has of it.
    accounted: usize,
    /// Why it was given up, until it is whole again.
    trouble: Option<String>,
}

impl Content {
    /// About the bytes of RAM that the entries take, both the whole ones and those being filled in.
    fn ram(&self) -> usize {
        let filling = self.filling.as_ref().map_or(0, |(entries, bytes)| *bytes + entries.len() * OVERHEAD);
        self.bytes + self.entries.len() * OVERHEAD + filling
    }
}

/// What all copies of a node may take together, and the account that they count in.
pub struct CopyPool {
    memory: Arc<Memory>,
    max_bytes: usize,
    used: AtomicUsize,
}

impl CopyPool {
    /// At most so many bytes; beside a memory limit no more than a quarter of that.
    pub fn new(memory: Arc<Memory>, max_bytes: usize) -> Arc<Self> {
        let most = memory.limit().map_or(usize::MAX, |limit| usize::try_from(limit / 4).unwrap_or(usize::MAX));
        Arc::new(CopyPool { memory, max_bytes: max_bytes.min(most), used: AtomicUsize::new(0) })
    }

    /// Bytes of all copies.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn account(&self, content: &mut Content) {
        let (before, now) = (content.accounted, content.ram());
        content.accounted = now;
        match now >= before {
            true => self.used.fetch_add(now - before, Relaxed),
            false => self.used.fetch_sub(before - now, Relaxed),
        };
        self.memory.account(before, now);
    }
}

/// A replicated map's copy on this peer.
pub struct MapCopy {
    id: MapId,
    max_bytes: usize,
    pool: Arc<CopyPool>,
    content: RwLock<Content>,
    /// The revision that the entries are of; `None` before they are whole.
    revision: watch::Sender<Option<u64>>,
}

/// What counts towards the map's limit.
fn cost(key: &[u8], stored: &StoredValue) -> usize {
    key.len() + stored.value.data.len()
}

fn change((entries, bytes): (&mut Entries, &mut usize), event: WatchEvent) {
    let WatchEvent { key, revision, kind, .. } = event;
    let before = match kind {
        WatchKind::Entry(value) | WatchKind::Put(value) => {
            // Copied: what came with a message would keep the whole of it in RAM.
            let (key, mut value) = (Bytes::copy_from_slice(&key), value);
            value.data = Bytes::copy_from_slice(&value.data);
            let stored = StoredValue::new(revision, value);
            *bytes += cost(&key, &stored);
            entries.insert(key, stored)
        }
        WatchKind::Removed(_) => entries.remove(&key),
        WatchKind::Reset => None,
    };
    if let Some(before) = before {
        *bytes -= cost(&key, &before);
    }
}

impl MapCopy {
    /// A copy that has nothing yet, of at most so many bytes of keys and values.
    pub fn new(id: MapId, max_bytes: usize, pool: Arc<CopyPool>) -> Self {
        let content = Content { filling: Some(Default::default()), ..Content::default() };
        MapCopy { id, max_bytes, pool, content: RwLock::new(content), revision: watch::Sender::new(None) }
    }

    /// The map.
    pub fn id(&self) -> MapId {
        self.id
    }

    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy begins anew; what it has is read until it is whole again.
    pub fn begin(&self) {
        let mut content = self.write();
        content.filling = Some(Default::default());
        self.pool.account(&mut content);
    }

    /// Takes in a message of the watch that feeds the copy.
    ///
    /// # Errors
    /// `ReplicatedFull`: the copy has been given up, and must begin anew.
    pub fn take(&self, message: WatchMessage) -> Result<()> {
        let revision = message.token.positions.keys().next().and_then(|only| message.token.revision(*only));
        let mut content = self.write();
        for event in message.events {
            if event.kind == WatchKind::Reset {
                content.filling = Some(Default::default());
            }
            let Content { entries, bytes, filling, .. } = &mut *content;
            match filling {
                Some((entries, bytes)) => change((entries, bytes), event),
                None => change((entries, bytes), event),
            }
        }
        self.pool.account(&mut content);
        if let Some(what) = self.too_large(&content) {
            let trouble = Some(what.clone());
            let accounted = content.accounted;
            *content = Content { filling: Some(Default::default()), accounted, trouble, ..Content::default() };
            self.pool.account(&mut content);
            drop(content);
            self.revision.send_replace(None);
            return Err(Error::new(Code::ReplicatedFull, what));
        }
        if message.live {
            if let Some((entries, bytes)) = content.filling.take() {
                content.entries = entries;
                content.bytes = bytes;
                content.trouble = None;
                self.pool.account(&mut content);
            }
            // Within the lock: who knows the revision reads entries of it.
            self.revision.send_if_modified(|now| std::mem::replace(now, revision) != revision);
        }
        Ok(())
    }

    /// Why the copy cannot be kept, if so.
    fn too_large(&self, content: &Content) -> Option<String> {
        let bytes = content.filling.as_ref().map_or(content.bytes, |(_, bytes)| *bytes);
        if bytes > self.max_bytes {
            let limit = self.max_bytes;
            return Some(format!("the copy of a replicated map has {bytes} bytes; the limit here is {limit}"));
        }
        let (all, limit) = (self.pool.used(), self.pool.max_bytes);
        let what = || format!("the copies of replicated maps take {all} bytes of RAM; the limit here is {limit}");
        (all > limit).then(what)
    }

    /// An entry, and the revision of the map that it is of.
    ///
    /// # Errors
    /// `NoLocalCopy` before the copy is whole for the first time; `ReplicatedFull` when it had to be
    /// given up.
    pub fn get(&self, key: &[u8]) -> Result<(Option<StoredValue>, u64)> {
        let content = self.read();
        let revision = *self.revision.borrow();
        let revision = revision.ok_or_else(|| match &content.trouble {
            Some(trouble) => Error::new(Code::ReplicatedFull, trouble.clone()),
            None => Error::new(Code::NoLocalCopy, "the copy of the replicated map is not whole yet on this peer")
                .remedy("try again in a moment"),
        })?;
        Ok((content.entries.get(key).cloned(), revision))
    }

    /// The revision that the copy is of, and every change of it.
    pub fn revision(&self) -> watch::Receiver<Option<u64>> {
        self.revision.subscribe()
    }

    /// Why the copy was given up, until it is whole again.
    pub fn trouble(&self) -> Option<String> {
        self.read().trouble.clone()
    }

    /// Entries, and about the bytes of RAM that they take.
    pub fn size(&self) -> (usize, usize) {
        let content = self.read();
        (content.entries.len(), content.ram())
    }
}

impl Drop for MapCopy {
    fn drop(&mut self) {
        let mut content = self.write();
        *content = Content { accounted: content.accounted, ..Content::default() };
        self.pool.account(&mut content);
    }
}

/// The copies that a peer holds, by the maps' names.
#[derive(Default)]
pub struct MapCopies(RwLock<BTreeMap<String, Arc<MapCopy>>>);

impl MapCopies {
    /// A map's copy.
    pub fn get(&self, name: &str) -> Option<Arc<MapCopy>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Holds a copy.
    pub fn insert(&self, name: &str, copy: Arc<MapCopy>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), copy);
    }

    /// Lets a copy go, if it is of this very map.
    pub fn remove(&self, name: &str, id: MapId) {
        let mut copies = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if copies.get(name).is_some_and(|copy| copy.id == id) {
            copies.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PartitionId, Position, RemovalCause, Value, WatchToken};

    const P: PartitionId = PartitionId(2);

    fn message(position: Position, events: Vec<(&str, u64, WatchKind)>) -> WatchMessage {
        let event = |(key, revision, kind): (&str, u64, WatchKind)| WatchEvent {
            partition: P,
            key: Bytes::copy_from_slice(key.as_bytes()),
            revision,
            time_ms: 0,
            kind,
        };
        let token = WatchToken { map: MapId(1), positions: [(P, position)].into() };
        WatchMessage { live: token.is_live(), token, events: events.into_iter().map(event).collect() }
    }

    fn text(copy: &MapCopy, key: &str) -> Option<(Option<String>, u64)> {
        let (entry, revision) = copy.get(key.as_bytes()).ok()?;
        Some((entry.map(|entry| String::from_utf8_lossy(&entry.value.data).into_owned()), revision))
    }

    #[test]
    fn a_copy_is_read_whole_at_a_revision() {
        let copy = MapCopy::new(MapId(1), 1 << 20, pool(1 << 20));
        let put = |text: &str| WatchKind::Put(Value::utf8(text));
        let entry = |text: &str| WatchKind::Entry(Value::utf8(text));
        let scan = Position::Scan { revision: 5, after: Bytes::from_static(b"x") };
        copy.take(message(scan.clone(), vec![("a", 3, entry("1"))])).expect("fits");
        assert_eq!(copy.get(b"a").expect_err("not whole").code, Code::NoLocalCopy);
        copy.take(message(Position::Live { revision: 6 }, vec![("b", 6, put("2"))])).expect("fits");
        assert_eq!(text(&copy, "a"), Some((Some("1".into()), 6)));
        copy.take(message(Position::Live { revision: 7 }, vec![("a", 7, WatchKind::Removed(RemovalCause::Deleted))]))
            .expect("fits");
        assert_eq!((text(&copy, "a"), text(&copy, "b")), (Some((None, 7)), Some((Some("2".into()), 7))));
        let of_two = copy.size();
        // Begun anew: the old entries are read until the new ones are whole.
        copy.take(message(scan, vec![("", 9, WatchKind::Reset), ("c", 9, entry("3"))])).expect("fits");
        assert_eq!((text(&copy, "b"), text(&copy, "c")), (Some((Some("2".into()), 7)), Some((None, 7))));
        copy.take(message(Position::Live { revision: 9 }, Vec::new())).expect("fits");
        assert_eq!((text(&copy, "b"), text(&copy, "c")), (Some((None, 9)), Some((Some("3".into()), 9))));
        assert_eq!(copy.size(), of_two, "one entry of the same size again");
    }

    #[test]
    fn a_copy_over_its_limit_is_given_up() {
        let copy = MapCopy::new(MapId(1), 12, pool(1 << 20));
        let put = |key, revision| (key, revision, WatchKind::Put(Value::utf8("value")));
        copy.take(message(Position::Live { revision: 2 }, vec![put("a", 1), put("b", 2)])).expect("fits");
        let error = copy.take(message(Position::Live { revision: 3 }, vec![put("c", 3)])).expect_err("full");
        assert_eq!(error.code, Code::ReplicatedFull);
        let refused = copy.get(b"a").expect_err("gone");
        assert_eq!((copy.size(), refused.code), ((0, 0), Code::ReplicatedFull));
        assert!(refused.to_string().contains("has 18 bytes; the limit here is 12"), "{refused}");
    }

    fn pool(max_bytes: usize) -> Arc<CopyPool> {
        CopyPool::new(Memory::new(None), max_bytes)
    }

    #[test]
    fn copies_count_in_the_account_and_have_a_limit_together() {
        let memory = Memory::new(Some(4 * 1000));
        let pool = CopyPool::new(memory.clone(), usize::MAX);
        let (one, two) = (MapCopy::new(MapId(1), 1 << 20, pool.clone()), MapCopy::new(MapId(2), 1 << 20, pool.clone()));
        let put = |text: &str| ("a", 1, WatchKind::Put(Value::utf8(text)));
        let live = Position::Live { revision: 1 };
        one.take(message(live.clone(), vec![put(&"x".repeat(500))])).expect("fits");
        assert_eq!((memory.used(), pool.used()), (661, 661));
        let refused = two.take(message(live.clone(), vec![put(&"x".repeat(400))])).expect_err("1222 bytes");
        assert_eq!(refused.code, Code::ReplicatedFull);
        assert!(refused.to_string().contains("take 1222 bytes of RAM; the limit here is 1000"), "{refused}");
        assert_eq!((memory.used(), two.trouble().is_some()), (661, true), "the one that grew gave way");
        drop(one);
        assert_eq!((memory.used(), pool.used()), (0, 0));
        two.take(message(live, vec![put("x")])).expect("there is room now");
        assert_eq!((two.trouble(), memory.used()), (None, 162));
        assert!(text(&two, "a").is_some());
    }
}
