//! The bytes of fjall's keys. Numbers are big-endian, so that they sort.
//!
//! ```text
//! keyspace "replicas": group (4) | replica (8) -> value of generation (8, little-endian)
//! keyspace "rows": group (4) | replica (8) | generation (8) |
//!     'a'              -> value of the meta of a checkpoint under way (see `ahead`)
//!     'm'              -> value of the checkpoint's meta
//!     'r' | row key    -> value of the row
//! ```
//!
//! A value is as in `row_value`.

use super::super::ReplicaKey;
use crate::types::GroupId;

pub(super) const CATALOGUE: &str = "replicas";
pub(super) const ROWS: &str = "rows";
const AHEAD: u8 = b'a';
const META: u8 = b'm';
const ROW: u8 = b'r';
const NAME: usize = 12;
pub(super) const PREFIX: usize = NAME + 8;

pub(super) fn catalogue_key(key: ReplicaKey) -> [u8; NAME] {
    let mut out = [0; NAME];
    out[..4].copy_from_slice(&key.group.0.to_be_bytes());
    out[4..].copy_from_slice(&key.replica.to_be_bytes());
    out
}

pub(super) fn parse_catalogue_key(bytes: &[u8]) -> Option<ReplicaKey> {
    let (group, replica) = bytes.split_first_chunk::<4>()?;
    let replica = <[u8; 8]>::try_from(replica).ok()?;
    Some(ReplicaKey { group: GroupId(u32::from_be_bytes(*group)), replica: u64::from_be_bytes(replica) })
}

/// What everything of one generation of a replica starts with.
pub(super) fn prefix(key: ReplicaKey, generation: u64) -> [u8; PREFIX] {
    let mut out = [0; PREFIX];
    out[..NAME].copy_from_slice(&catalogue_key(key));
    out[NAME..].copy_from_slice(&generation.to_be_bytes());
    out
}

fn with_kind(prefix: &[u8; PREFIX], kind: u8, row: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + 1 + row.len());
    out.extend_from_slice(prefix);
    out.push(kind);
    out.extend_from_slice(row);
    out
}

pub(super) fn row_key(prefix: &[u8; PREFIX], row: &[u8]) -> Vec<u8> {
    with_kind(prefix, ROW, row)
}

pub(super) fn ahead_key(prefix: &[u8; PREFIX]) -> Vec<u8> {
    with_kind(prefix, AHEAD, b"")
}

pub(super) fn meta_key(prefix: &[u8; PREFIX]) -> Vec<u8> {
    with_kind(prefix, META, b"")
}

/// The row's own key in what [`row_key`] made.
pub(super) fn own_key(key: &[u8]) -> &[u8] {
    key.get(PREFIX + 1..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_golden_bytes() {
        let key = ReplicaKey { group: GroupId(258), replica: 3 };
        let start = *b"\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x07";
        assert_eq!(prefix(key, 7), start);
        assert_eq!(row_key(&start, b"row"), [&start[..], b"rrow"].concat());
        assert_eq!(own_key(&row_key(&start, b"row")), b"row");
        assert_eq!((ahead_key(&start), meta_key(&start)), ([&start[..], b"a"].concat(), [&start[..], b"m"].concat()));
        assert_eq!(parse_catalogue_key(&catalogue_key(key)), Some(key));
    }
}
