//! Following a map in one replica: from a position to the events behind it and the next position.
//! In: a map, a filter, a position. Out: events in the order of their revisions, each change once.
//!
//! What is there is read in pieces, while later entries are applied. Each piece belongs to a
//! revision R that was the newest before the piece was read: an entry that is found newer than R
//! is left out, because its change comes behind R; and before the next piece, what has changed
//! behind R in the rows already read comes as changes. So nothing is lost and nothing comes twice,
//! and the history need reach back only as far as the last piece.

use super::feed::{Compacted, FeedChange};
use super::replica::ReplicaState;
use super::rows;
use crate::error::{Code, Error, Result};
use crate::types::{MapId, PartitionId, Position, Slot, StoredValue, WatchEvent, WatchKeys, WatchKind};
use bytes::Bytes;

/// Rows and empty slots that one piece of a scan passes at most.
const SCAN_STEPS: usize = 512;

/// What is followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The map.
    pub map: MapId,
    /// Which of its keys.
    pub keys: WatchKeys,
    /// The slot of the one key, if it is one.
    pub slot: Option<Slot>,
}

/// Entries with their rows, and where to go on; `None` at the end.
type Piece = (Vec<(Bytes, StoredValue)>, Option<Bytes>);

/// What following gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Events, perhaps none, and where to go on.
    On {
        /// The events.
        events: Vec<WatchEvent>,
        /// The position behind them.
        position: Position,
        /// There is more at once.
        more: bool,
    },
    /// This replica no longer has what comes behind the position: only what is above this revision.
    Compacted(u64),
    /// This replica cannot serve at the moment.
    Unable,
}

impl Followed {
    fn wants(&self, row: &[u8]) -> bool {
        if rows::map_of_row(row) != Some(self.map) {
            return false;
        }
        match &self.keys {
            WatchKeys::All => true,
            WatchKeys::Prefix(prefix) => row[2..].starts_with(&rows::map_prefix(Slot(0), self.map, prefix)[2..]),
            WatchKeys::Key(key) => match self.slot {
                Some(slot) => row == &rows::map_row(slot, self.map, key)[..],
                None => rows::map_key(row).is_some_and(|found| found == *key),
            },
        }
    }
}

impl ReplicaState {
    /// Goes on from a position, with about `max_bytes` of events. Blocks while values are loaded
    /// that are not in RAM.
    ///
    /// # Errors
    /// `CorruptRow`.
    pub fn follow(
        &self,
        partition: PartitionId,
        followed: &Followed,
        position: &Position,
        max_bytes: usize,
    ) -> Result<Step> {
        let Some(feed) = self.feed() else { return Ok(Step::Unable) };
        if !self.may_serve() {
            return Ok(Step::Unable);
        }
        let (known, after) = match position {
            Position::Now => {
                let revision = feed.extent().1;
                return Ok(Step::On { events: Vec::new(), position: Position::Live { revision }, more: false });
            }
            Position::Begin => (feed.extent().1, Some(Bytes::new())),
            Position::Scan { revision, .. } if feed.extent().1 < *revision => {
                // This replica is behind what is known already.
                return Ok(Step::On { events: Vec::new(), position: position.clone(), more: false });
            }
            // Nothing has been scanned: it begins at the newest revision.
            Position::Scan { after, .. } if after.is_empty() => (feed.extent().1, Some(Bytes::new())),
            Position::Scan { revision, after } => (*revision, Some(after.clone())),
            Position::Live { revision } => (*revision, None),
        };
        let read = feed
            .read(known, max_bytes, |row| after.as_ref().is_none_or(|after| row <= &after[..]) && followed.wants(row));
        let page = match read {
            Ok(page) => page,
            Err(Compacted(floor)) => return Ok(Step::Compacted(floor)),
        };
        let mut events = page.changes.into_iter().map(|change| event(partition, change)).collect::<Result<Vec<_>>>()?;
        let caught_up = page.upto >= page.head;
        let (position, more) = match after {
            None => (Position::Live { revision: page.upto }, !caught_up),
            Some(after) if !caught_up => (Position::Scan { revision: page.upto, after }, true),
            Some(after) => {
                let (found, after) = self.scan_piece(followed, after, max_bytes)?;
                for (row, stored) in found {
                    // What is newer comes as a change.
                    if stored.revision <= page.upto {
                        let key = rows::map_key(&row).ok_or_else(no_key)?;
                        let kind = WatchKind::Entry(stored.value);
                        events.push(WatchEvent { partition, key, revision: stored.revision, time_ms: 0, kind });
                    }
                }
                match after {
                    Some(after) => (Position::Scan { revision: page.upto, after }, true),
                    None => (Position::Live { revision: page.upto }, false),
                }
            }
        };
        // A snapshot may have been installed while rows were read.
        if !self.may_serve() {
            return Ok(Step::Unable);
        }
        Ok(Step::On { events, position, more })
    }

    /// The entries that are wanted behind a place, a piece of them, and where that piece ends;
    /// `None` at the end of the partition.
    fn scan_piece(&self, followed: &Followed, mut after: Bytes, max_bytes: usize) -> Result<Piece> {
        if let (WatchKeys::Key(key), Some(slot)) = (&followed.keys, followed.slot) {
            let row = rows::map_row(slot, followed.map, key);
            let found = self.get(&row)?.map(|value| Ok::<_, Error>((row, StoredValue::decode(&value)?))).transpose()?;
            return Ok((found.into_iter().collect(), None));
        }
        let prefix: &[u8] = match &followed.keys {
            WatchKeys::Prefix(prefix) => prefix,
            WatchKeys::All | WatchKeys::Key(_) => b"",
        };
        let (mut found, mut bytes, mut steps) = (Vec::new(), 0, 0);
        while steps < SCAN_STEPS && bytes < max_bytes {
            let Some(slot) = self.first_from(&after).as_deref().and_then(rows::slot_of_row) else {
                return Ok((found, None));
            };
            let of_slot = rows::map_prefix(slot, followed.map, prefix);
            let room = SCAN_STEPS - steps;
            let in_slot = self.scan(&of_slot, (after > of_slot).then_some(&after[..]), room)?;
            steps += in_slot.len() + 1;
            let all_of_slot = in_slot.len() < room;
            for (row, value) in in_slot {
                bytes += row.len() + value.len() + 32;
                after = row.clone();
                if followed.wants(&row) {
                    found.push((row, StoredValue::decode(&value)?));
                }
                if bytes >= max_bytes {
                    return Ok((found, Some(after)));
                }
            }
            if all_of_slot {
                after = rows::slot_start(slot.0 + 1);
            }
        }
        Ok((found, Some(after)))
    }
}

fn no_key() -> Error {
    Error::new(Code::CorruptRow, "a map's row has no key")
}

fn event(partition: PartitionId, change: FeedChange) -> Result<WatchEvent> {
    let key = rows::map_key(&change.row).ok_or_else(no_key)?;
    let kind = match change.change {
        Ok(value) => WatchKind::Put(StoredValue::decode(&value)?.value),
        Err(cause) => WatchKind::Removed(cause),
    };
    Ok(WatchEvent { partition, key, revision: change.revision, time_ms: change.time_ms, kind })
}
