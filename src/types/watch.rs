//! Following the changes of a map: what is asked for, what comes, and the token that says how far
//! one has come. Plain data; the token's bytes are pinned by tests.
//!
//! A token names the map and, for each partition, a [`Position`]. It names no peer and no replica:
//! whoever holds the partition can go on from it, after failovers and moves too.

use crate::error::{Code, Error, Result};
use crate::types::{MapId, PartitionId, Value};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why an entry of a map went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RemovalCause {
    /// A command deleted it.
    Deleted = 0,
    /// Its time was over.
    Expired = 1,
    /// Its map had reached a limit.
    Evicted = 2,
}

impl RemovalCause {
    /// The cause with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Deleted, Self::Expired, Self::Evicted].into_iter().find(|cause| *cause as u8 == number)
    }

    /// Its name, as JSON spells it.
    pub fn name(self) -> &'static str {
        match self {
            RemovalCause::Deleted => "deleted",
            RemovalCause::Expired => "expired",
            RemovalCause::Evicted => "evicted",
        }
    }
}

/// Which keys of a map are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchKeys {
    /// All.
    #[default]
    All,
    /// Those that start with these bytes.
    Prefix(Bytes),
    /// One.
    Key(Bytes),
}

/// Where a watch begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WatchStart {
    /// With what changes from now on.
    #[default]
    Now,
    /// With the entries that are there, then what changes.
    Snapshot,
    /// Where another watch of the map ended.
    Token(WatchToken),
}

/// A wish to follow a map's changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// The map.
    pub map: String,
    /// Which keys.
    pub keys: WatchKeys,
    /// What decides where the keys live, if the caller of the writes named it.
    pub affinity: Option<Bytes>,
    /// Where it begins.
    pub start: WatchStart,
    /// What to do when the history no longer has what comes next: begin that partition anew with
    /// the entries that are there (after a [`WatchKind::Reset`]), or fail with `Compacted`.
    pub resnapshot: bool,
}

/// How far one partition has been followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// Not yet asked: begins with what changes from then on.
    Now,
    /// Begins with the entries that are there.
    Begin,
    /// The entries whose rows lie at or before `after` are known as of `revision`; the others are
    /// to come.
    Scan {
        /// Changes up to here are known of what has been scanned.
        revision: u64,
        /// Where the scan stands.
        after: Bytes,
    },
    /// Everything up to this revision is known.
    Live {
        /// The partition's revision.
        revision: u64,
    },
}

/// What one event says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchKind {
    /// The entry was there when the watch came by: part of the snapshot.
    Entry(Value),
    /// It was written.
    Put(Value),
    /// It went.
    Removed(RemovalCause),
    /// The partition begins anew: forget its entries, those that are there follow. No key.
    Reset,
}

/// One event. Within a partition they come in the order of their revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// Where it happened.
    pub partition: PartitionId,
    /// The key.
    pub key: Bytes,
    /// The revision of the change in its partition.
    pub revision: u64,
    /// The partition's time at the change, Unix milliseconds; 0 for an entry of the snapshot.
    pub time_ms: u64,
    /// What happened.
    pub kind: WatchKind,
}

/// Events that travel together, and the token behind the last of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchMessage {
    /// The events; none in a mark of progress.
    pub events: Vec<WatchEvent>,
    /// Where a watch goes on that has taken in these events.
    pub token: WatchToken,
    /// No entries of the snapshot are to come.
    pub live: bool,
}

/// How far a map has been followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchToken {
    /// The map; a later map of the same name has another id.
    pub map: MapId,
    /// Per partition.
    pub positions: BTreeMap<PartitionId, Position>,
}

const VERSION: u8 = 1;

fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn take_number(input: &mut Bytes) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = input.try_get_u8().ok()?;
        let bits = u64::from(byte & 0x7F);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_position(input: &mut Bytes) -> Option<Position> {
    Some(match input.try_get_u8().ok()? {
        0 => Position::Now,
        1 => Position::Begin,
        2 => {
            let revision = take_number(input)?;
            let length = usize::try_from(take_number(input)?).ok()?;
            let after = (length <= input.len()).then(|| input.split_to(length))?;
            Position::Scan { revision, after: Bytes::copy_from_slice(&after) }
        }
        3 => Position::Live { revision: take_number(input)? },
        _ => return None,
    })
}

impl WatchToken {
    /// Whether no entries of a snapshot are to come.
    pub fn is_live(&self) -> bool {
        !self.positions.values().any(|position| matches!(position, Position::Begin | Position::Scan { .. }))
    }

    /// The revision that a partition is known up to; `None` before it was asked.
    pub fn revision(&self, partition: PartitionId) -> Option<u64> {
        match self.positions.get(&partition)? {
            Position::Scan { revision, .. } | Position::Live { revision } => Some(*revision),
            Position::Now | Position::Begin => None,
        }
    }

    /// version (1) | map | count | per partition, ascending: number | 0 for now, 1 for the
    /// beginning, 2 and revision, length and row for a scan under way, or 3 and revision. Numbers
    /// in seven bits a byte, the lowest first.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(8 + self.positions.len() * 8);
        out.put_u8(VERSION);
        put_number(&mut out, u64::from(self.map.0));
        put_number(&mut out, self.positions.len() as u64);
        for (partition, position) in &self.positions {
            put_number(&mut out, u64::from(partition.0));
            match position {
                Position::Now => out.put_u8(0),
                Position::Begin => out.put_u8(1),
                Position::Scan { revision, after } => {
                    out.put_u8(2);
                    put_number(&mut out, *revision);
                    put_number(&mut out, after.len() as u64);
                    out.put_slice(after);
                }
                Position::Live { revision } => {
                    out.put_u8(3);
                    put_number(&mut out, *revision);
                }
            }
        }
        out.freeze()
    }

    /// Reads what [`WatchToken::encode`] wrote.
    ///
    /// # Errors
    /// `InvalidToken`.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let bad = |what: &str| Error::new(Code::InvalidToken, format!("a watch token of {} bytes {what}", bytes.len()));
        let mut input = bytes.clone();
        match input.try_get_u8() {
            Ok(VERSION) => {}
            Ok(other) => return Err(bad(&format!("is of version {other}"))),
            Err(_) => return Err(bad("says nothing")),
        }
        let mut read = || {
            let map = MapId(u32::try_from(take_number(&mut input)?).ok()?);
            let mut positions = BTreeMap::new();
            for _ in 0..take_number(&mut input)? {
                let partition = PartitionId(u32::try_from(take_number(&mut input)?).ok()?);
                positions.insert(partition, take_position(&mut input)?);
            }
            input.is_empty().then_some(WatchToken { map, positions })
        };
        read().ok_or_else(|| bad("cannot be read"))
    }

    /// The token as text: its bytes in hexadecimal.
    pub fn to_text(&self) -> String {
        self.encode().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`WatchToken::to_text`] wrote.
    ///
    /// # Errors
    /// `InvalidToken`.
    pub fn from_text(text: &str) -> Result<Self> {
        let bad = || Error::new(Code::InvalidToken, "the token is not what a watch has printed");
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        WatchToken::decode(&bytes.ok_or_else(bad)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position() -> impl Strategy<Value = Position> {
        prop_oneof![
            Just(Position::Now),
            Just(Position::Begin),
            (any::<u64>(), any::<Vec<u8>>())
                .prop_map(|(revision, after)| Position::Scan { revision, after: after.into() }),
            any::<u64>().prop_map(|revision| Position::Live { revision }),
        ]
    }

    #[test]
    fn a_token_has_golden_bytes() {
        let positions = [
            (PartitionId(0), Position::Now),
            (PartitionId(1), Position::Begin),
            (PartitionId(2), Position::Scan { revision: 300, after: Bytes::from_static(b"row") }),
            (PartitionId(200), Position::Live { revision: 5 }),
        ];
        let token = WatchToken { map: MapId(7), positions: positions.into() };
        assert_eq!(&token.encode()[..], b"\x01\x07\x04\0\0\x01\x01\x02\x02\xac\x02\x03row\xc8\x01\x03\x05");
        assert_eq!(WatchToken::from_text(&token.to_text()), Ok(token));
    }

    #[test]
    fn a_foreign_token_is_refused_with_its_code() {
        for bad in [&b""[..], b"\x02\x07\0", b"\x01\x07\x01", b"\x01\x07\0\0", b"\x01\x07\x01\0\x04"] {
            let error = WatchToken::decode(&Bytes::from_static(bad)).expect_err("refused");
            assert_eq!(error.code, Code::InvalidToken, "{bad:?}");
        }
        assert!(WatchToken::from_text("0").is_err() && WatchToken::from_text("zz").is_err());
    }

    proptest! {
        #[test]
        fn tokens_round_trip(map: u32, positions in proptest::collection::btree_map(any::<u32>().prop_map(PartitionId), position(), 0..9)) {
            let token = WatchToken { map: MapId(map), positions };
            prop_assert_eq!(WatchToken::decode(&token.encode()).expect("reads back"), token.clone());
            prop_assert_eq!(WatchToken::from_text(&token.to_text()).expect("reads back"), token);
        }

        #[test]
        fn no_bytes_make_reading_a_token_panic(bytes: Vec<u8>) {
            let _ = WatchToken::decode(&Bytes::from(bytes));
        }
    }
}
