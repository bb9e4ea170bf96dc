//! Copies of replicated maps: what every peer holds in RAM to read from. In: the messages of a
//! watch. Out: entries, with the revision that the copy is of. A copy is exactly the map's state
//! at that revision; while it is filled anew, the last whole one is read. Bounded in bytes.

use crate::error::{Code, Error, Result};
use crate::types::{MapId, StoredValue, WatchEvent, WatchKind, WatchMessage};
use bytes::Bytes;
use std::collections::BTreeMap;
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
}

/// A replicated map's copy on this peer.
pub struct MapCopy {
    id: MapId,
    max_bytes: usize,
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
    /// A copy that has nothing yet.
    pub fn new(id: MapId, max_bytes: usize) -> Self {
        let content = Content { filling: Some(Default::default()), ..Content::default() };
        MapCopy { id, max_bytes, content: RwLock::new(content), revision: watch::Sender::new(None) }
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
        self.write().filling = Some(Default::default());
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
            let Content { entries, bytes, filling } = &mut *content;
            match filling {
                Some((entries, bytes)) => change((entries, bytes), event),
                None => change((entries, bytes), event),
            }
        }
        let bytes = content.filling.as_ref().map_or(content.bytes, |(_, bytes)| *bytes);
        if bytes > self.max_bytes {
            *content = Content { filling: Some(Default::default()), ..Content::default() };
            drop(content);
            self.revision.send_replace(None);
            let what = format!("the copy of a replicated map has {bytes} bytes; the limit here is {}", self.max_bytes);
            return Err(Error::new(Code::ReplicatedFull, what));
        }
        if message.live {
            if let Some((entries, bytes)) = content.filling.take() {
                content.entries = entries;
                content.bytes = bytes;
            }
            // Within the lock: who knows the revision reads entries of it.
            self.revision.send_if_modified(|now| std::mem::replace(now, revision) != revision);
        }
        Ok(())
    }

    /// An entry, and the revision of the map that it is of.
    ///
    /// # Errors
    /// `NoLocalCopy` before the copy is whole for the first time.
    pub fn get(&self, key: &[u8]) -> Result<(Option<StoredValue>, u64)> {
        let content = self.read();
        let revision = *self.revision.borrow();
        let what = "the copy of the replicated map is not whole yet on this peer";
        let revision = revision.ok_or_else(|| Error::new(Code::NoLocalCopy, what).remedy("try again in a moment"))?;
        Ok((content.entries.get(key).cloned(), revision))
    }

    /// The revision that the copy is of, and every change of it.
    pub fn revision(&self) -> watch::Receiver<Option<u64>> {
        self.revision.subscribe()
    }

    /// Entries, and about the bytes of RAM that they take.
    pub fn size(&self) -> (usize, usize) {
        let content = self.read();
        let filling = content.filling.as_ref().map_or(0, |(entries, bytes)| *bytes + entries.len() * OVERHEAD);
        (content.entries.len(), content.bytes + content.entries.len() * OVERHEAD + filling)
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

    /// Bytes of all copies.
    pub fn bytes(&self) -> usize {
        let copies = self.0.read().unwrap_or_else(PoisonError::into_inner);
        copies.values().map(|copy| copy.size().1).sum()
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
        let copy = MapCopy::new(MapId(1), 1 << 20);
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
        let copy = MapCopy::new(MapId(1), 12);
        let put = |key, revision| (key, revision, WatchKind::Put(Value::utf8("value")));
        copy.take(message(Position::Live { revision: 2 }, vec![put("a", 1), put("b", 2)])).expect("fits");
        let error = copy.take(message(Position::Live { revision: 3 }, vec![put("c", 3)])).expect_err("full");
        assert_eq!(error.code, Code::ReplicatedFull);
        assert_eq!((copy.size(), copy.get(b"a").expect_err("gone").code), ((0, 0), Code::NoLocalCopy));
    }
}
