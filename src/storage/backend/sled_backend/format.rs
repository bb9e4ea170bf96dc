//! The bytes of sled's keys and values. Numbers are little-endian unless they must sort.
//!
//! ```text
//! tree "replicas"                : group (4, big-endian) | replica (8, big-endian) -> value of generation (8)
//! tree "rows-<group>-<replica>-<generation>":
//!     'a'                        -> value of the meta of a checkpoint under way (see `ahead`)
//!     'm'                        -> value of the checkpoint's meta
//!     'r' | row key              -> value of the row
//! ```
//!
//! A value is as in `row_value`.

use super::super::ReplicaKey;
use crate::types::GroupId;

pub(super) const CATALOGUE: &str = "replicas";
pub(super) const ROWS_PREFIX: &str = "rows-";
pub(super) const AHEAD: &[u8] = b"a";
pub(super) const META: &[u8] = b"m";
pub(super) const ROW: u8 = b'r';

pub(super) fn tree_name(key: ReplicaKey, generation: u64) -> String {
    format!("{ROWS_PREFIX}{key}-{generation}")
}

pub(super) fn row_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(ROW);
    out.extend_from_slice(key);
    out
}

pub(super) fn catalogue_key(key: ReplicaKey) -> [u8; 12] {
    let mut out = [0; 12];
    out[..4].copy_from_slice(&key.group.0.to_be_bytes());
    out[4..].copy_from_slice(&key.replica.to_be_bytes());
    out
}

pub(super) fn parse_catalogue_key(bytes: &[u8]) -> Option<ReplicaKey> {
    let (group, replica) = bytes.split_first_chunk::<4>()?;
    let replica = <[u8; 8]>::try_from(replica).ok()?;
    Some(ReplicaKey { group: GroupId(u32::from_be_bytes(*group)), replica: u64::from_be_bytes(replica) })
}
