//! Row keys: ordered bytes that say where a row belongs.
//!
//! slot (2, big-endian; 0xFFFF for partition-wide rows) | table (1) | map or state id (4,
//! big-endian) | key (0x00 escaped as 0x00 0xFF, terminated by 0x00 0x00, so that the order of
//! the bytes is the order of the keys) | sub-key. What belongs to a key starts with its slot, so
//! that a split cuts one range. Pure; the numbers are persisted and never change.

use crate::types::{JobId, MapId, SLOTS, SessionId, Slot};
use bytes::{BufMut, Bytes, BytesMut};

/// What kind of row it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum TableId {
    /// Entries of maps.
    Map = 1,
    /// Kept answers of sessions: large ones in the slot of the write that they answer, lots of
    /// small ones partition-wide. A split copies the lots to both halves.
    Answer = 2,
    /// Open sessions; partition-wide.
    Session = 3,
    /// Counters and times of the partition itself; partition-wide.
    Partition = 4,
    /// Marks of maps that were dropped; partition-wide.
    Dropped = 5,
    /// Job tasks; partition-wide.
    Job = 9,
}

/// The row of a job task; partition-wide, its id begins with its slot.
pub fn job_row(job: JobId) -> Bytes {
    let mut row = start(PARTITION_WIDE, TableId::Job, 0, 8);
    row.put_u64(job.0);
    row.freeze()
}

/// What the rows of all job tasks start with.
pub fn job_prefix() -> Bytes {
    start(PARTITION_WIDE, TableId::Job, 0, 0).freeze()
}

/// The job of a job's row; `None` if the row is not one.
pub fn parse_job_row(row: &[u8]) -> Option<JobId> {
    let id = row.strip_prefix(&job_prefix()[..])?;
    Some(JobId(u64::from_be_bytes(id.try_into().ok()?)))
}

/// The slot number of partition-wide rows: sorts after every real slot.
pub const PARTITION_WIDE: u16 = 0xFFFF;

const PREFIX: usize = 2 + 1 + 4;

fn start(slot: u16, table: TableId, id: u32, capacity: usize) -> BytesMut {
    let mut row = BytesMut::with_capacity(PREFIX + capacity);
    row.put_u16(slot);
    row.put_u8(table as u8);
    row.put_u32(id);
    row
}

fn put_escaped(row: &mut BytesMut, key: &[u8]) {
    for &byte in key {
        row.put_u8(byte);
        if byte == 0 {
            row.put_u8(0xFF);
        }
    }
}

/// The row of a map's entry.
pub fn map_row(slot: Slot, map: MapId, key: &[u8]) -> Bytes {
    let mut row = start(slot.0, TableId::Map, map.0, key.len() + 2);
    put_escaped(&mut row, key);
    row.put_slice(&[0, 0]);
    row.freeze()
}

/// What the rows of a map's entries start with whose keys, in one slot, start with `prefix`.
pub fn map_prefix(slot: Slot, map: MapId, prefix: &[u8]) -> Bytes {
    let mut row = start(slot.0, TableId::Map, map.0, prefix.len());
    put_escaped(&mut row, prefix);
    row.freeze()
}

/// Whether a row is a map's entry.
pub fn is_map_row(row: &[u8]) -> bool {
    row.get(2) == Some(&(TableId::Map as u8)) && !row.starts_with(&PARTITION_WIDE.to_be_bytes())
}

/// The map of an entry's row; `None` if the row is not one.
pub fn map_of_row(row: &[u8]) -> Option<MapId> {
    let id = row.get(3..PREFIX).filter(|_| is_map_row(row))?;
    Some(MapId(u32::from_be_bytes(id.try_into().ok()?)))
}

/// Bytes before every row of a slot and behind every row of the one before.
pub fn slot_start(slot: u16) -> Bytes {
    Bytes::copy_from_slice(&slot.to_be_bytes())
}

/// The key in a map's row; `None` if the row is not one.
pub fn map_key(row: &[u8]) -> Option<Bytes> {
    if row.get(2) != Some(&(TableId::Map as u8)) {
        return None;
    }
    let escaped = row.get(PREFIX..)?.strip_suffix(&[0, 0])?;
    let mut key = BytesMut::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        key.put_u8(byte);
        if byte == 0 && bytes.next() != Some(&0xFF) {
            return None;
        }
    }
    Some(key.freeze())
}

/// The slot that a row lies in; `None` for partition-wide rows.
pub fn slot_of_row(row: &[u8]) -> Option<Slot> {
    let slot = u16::from_be_bytes([*row.first()?, *row.get(1)?]);
    (slot < SLOTS).then_some(Slot(slot))
}

/// Whether a row belongs to the partition and to no slot.
pub fn is_partition_wide(row: &[u8]) -> bool {
    row.starts_with(&PARTITION_WIDE.to_be_bytes())
}

/// The map that a row is an entry of; `None` if it is not one.
pub fn map_of(row: &[u8]) -> Option<MapId> {
    if row.get(2) != Some(&(TableId::Map as u8)) {
        return None;
    }
    let id = row.get(3..PREFIX)?;
    Some(MapId(u32::from_be_bytes(id.try_into().ok()?)))
}

/// The row of a kept answer.
pub fn answer_row(slot: Slot, session: SessionId, number: u64) -> Bytes {
    let mut row = start(slot.0, TableId::Answer, 0, 16);
    row.put_u64(session.0);
    row.put_u64(number);
    row.freeze()
}

/// The row of a lot of kept answers, called by the first number in it.
pub fn lot_row(session: SessionId, first: u64) -> Bytes {
    answer_row(Slot(PARTITION_WIDE), session, first)
}

/// Whether a row is a kept answer, or a lot of them.
pub fn is_answer(row: &[u8]) -> bool {
    row.len() == PREFIX + 16 && row[2] == TableId::Answer as u8
}

fn slot_session_number(row: &[u8]) -> Option<(u16, SessionId, u64)> {
    if !is_answer(row) {
        return None;
    }
    let number = |at: usize| row[at..at + 8].iter().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
    Some((u16::from_be_bytes([row[0], row[1]]), SessionId(number(PREFIX)), number(PREFIX + 8)))
}

/// Slot, session and number of an answer's own row; `None` if the row is not one.
pub fn parse_answer_row(row: &[u8]) -> Option<(Slot, SessionId, u64)> {
    let (slot, session, number) = slot_session_number(row)?;
    (slot < SLOTS).then_some((Slot(slot), session, number))
}

/// Session and first number of a lot's row; `None` if the row is not one.
pub fn parse_lot_row(row: &[u8]) -> Option<(SessionId, u64)> {
    let (slot, session, first) = slot_session_number(row)?;
    (slot == PARTITION_WIDE).then_some((session, first))
}

/// The row of an open session.
pub fn session_row(session: SessionId) -> Bytes {
    let mut row = start(PARTITION_WIDE, TableId::Session, 0, 8);
    row.put_u64(session.0);
    row.freeze()
}

/// What the rows of all open sessions start with.
pub fn session_prefix() -> Bytes {
    start(PARTITION_WIDE, TableId::Session, 0, 0).freeze()
}

/// The session of a session's row; `None` if the row is not one.
pub fn parse_session_row(row: &[u8]) -> Option<SessionId> {
    let id = row.strip_prefix(&session_prefix()[..])?;
    Some(SessionId(u64::from_be_bytes(id.try_into().ok()?)))
}

/// The mark of a map that was dropped.
pub fn dropped_row(map: MapId) -> Bytes {
    start(PARTITION_WIDE, TableId::Dropped, map.0, 0).freeze()
}

/// What the marks of all dropped maps start with.
pub fn dropped_prefix() -> Bytes {
    dropped_row(MapId(0)).slice(..3)
}

/// The map of a mark; `None` if the row is not one.
pub fn parse_dropped_row(row: &[u8]) -> Option<MapId> {
    let id = row.strip_prefix(&dropped_prefix()[..])?;
    Some(MapId(u32::from_be_bytes(id.try_into().ok()?)))
}

/// Rows of the partition itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PartitionRow {
    /// The partition's hybrid time.
    Time = 1,
    /// The newest revision given to an entry.
    Revision = 2,
    /// No session that was active after this time has been forgotten.
    SessionFloor = 3,
}

/// The row of a partition-wide number.
pub fn partition_row(which: PartitionRow) -> Bytes {
    start(PARTITION_WIDE, TableId::Partition, which as u32, 0).freeze()
}

/// Whether a row is the partition's time.
pub fn is_time_row(row: &[u8]) -> bool {
    row.len() == PREFIX && is_partition_wide(row) && row == partition_row(PartitionRow::Time)
}

/// Encodes a partition-wide number: version (1) | value (8, little-endian).
pub fn encode_number(value: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u8(1);
    out.put_u64_le(value);
    out.freeze()
}

/// Reads what [`encode_number`] wrote.
pub fn decode_number(bytes: &[u8]) -> Option<u64> {
    let value = bytes.strip_prefix(&[1])?;
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_have_golden_bytes() {
        assert_eq!(&map_row(Slot(258), MapId(3), b"a\0b")[..], b"\x01\x02\x01\0\0\0\x03a\0\xffb\0\0");
        assert_eq!(
            &answer_row(Slot(1), SessionId(2), 3)[..],
            b"\0\x01\x02\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03"
        );
        assert_eq!(&session_row(SessionId(2))[..], b"\xff\xff\x03\0\0\0\0\0\0\0\0\0\0\0\x02");
        assert_eq!(&partition_row(PartitionRow::Revision)[..], b"\xff\xff\x04\0\0\0\x02");
        assert_eq!(&dropped_row(MapId(258))[..], b"\xff\xff\x05\0\0\x01\x02");
        assert_eq!(parse_dropped_row(&dropped_row(MapId(258))), Some(MapId(258)));
        assert_eq!(parse_dropped_row(&partition_row(PartitionRow::Revision)), None);
        assert_eq!(&encode_number(258)[..], b"\x01\x02\x01\0\0\0\0\0\0");
    }

    proptest! {
        #[test]
        fn map_rows_round_trip_and_keep_the_order(a: Vec<u8>, b: Vec<u8>) {
            let (row_a, row_b) = (map_row(Slot(7), MapId(1), &a), map_row(Slot(7), MapId(1), &b));
            prop_assert_eq!(&map_key(&row_a).expect("a map row")[..], &a[..]);
            prop_assert_eq!(map_of(&row_a), Some(MapId(1)));
            prop_assert_eq!(a.cmp(&b), row_a.cmp(&row_b));
        }

        #[test]
        fn a_prefix_covers_exactly_the_keys_that_start_with_it(key: Vec<u8>, cut in 0usize..9, other: Vec<u8>) {
            let prefix = &key[..cut.min(key.len())];
            let covers = |key: &[u8]| map_row(Slot(7), MapId(1), key).starts_with(&map_prefix(Slot(7), MapId(1), prefix));
            prop_assert!(covers(&key));
            prop_assert_eq!(covers(&other), other.starts_with(prefix));
        }

        #[test]
        fn answer_rows_round_trip(slot in 0u16..16384, session: u64, number: u64) {
            let row = answer_row(Slot(slot), SessionId(session), number);
            prop_assert_eq!(parse_answer_row(&row), Some((Slot(slot), SessionId(session), number)));
            let lot = lot_row(SessionId(session), number);
            prop_assert_eq!(parse_lot_row(&lot), Some((SessionId(session), number)));
            prop_assert!(parse_lot_row(&row).is_none() && parse_answer_row(&lot).is_none());
            prop_assert!(is_answer(&row) && is_answer(&lot) && is_partition_wide(&lot));
            prop_assert_eq!(map_of(&row), None);
        }
    }
}
