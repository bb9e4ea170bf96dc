//! The bytes of sled's keys and values. Numbers are little-endian unless they must sort.
//!
//! ```text
//! tree "replicas"                : group (4, big-endian) | replica (8, big-endian) -> value of generation (8)
//! tree "rows-<group>-<replica>-<generation>":
//!     'a'                        -> value of the meta of a checkpoint under way (see `ahead`)
//!     'm'                        -> value of the checkpoint's meta
//!     'r' | row key              -> value of the row
//! value = version (1) = 1 | crc32 of version, key and data (4) | data
//! ```
//!
//! The checksum covers the key, so that a value served under another's key is found too.

use super::super::ReplicaKey;
use crate::error::{Code, Error, Result};
use crate::types::GroupId;
use bytes::Bytes;

const VERSION: u8 = 1;
const HEADER: usize = 5;

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

fn crc(key: &[u8], data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[VERSION]);
    hasher.update(key);
    hasher.update(data);
    hasher.finalize()
}

pub(super) fn encode_value(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + data.len());
    out.push(VERSION);
    out.extend_from_slice(&crc(key, data).to_le_bytes());
    out.extend_from_slice(data);
    out
}

pub(super) fn decode_value(tree: &str, key: &[u8], value: &[u8]) -> Result<Bytes> {
    let corrupt = |what: &str| {
        Error::new(Code::CorruptLog, format!("a row of a checkpoint {what}")).at(format!("sled tree {tree}"))
    };
    let Some((header, data)) = value.split_first_chunk::<HEADER>() else {
        return Err(corrupt("is shorter than its header"));
    };
    let found = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
    if header[0] == VERSION && found == crc(key, data) {
        return Ok(Bytes::copy_from_slice(data));
    }
    if header[0] != VERSION {
        return Err(Error::new(Code::UnknownFormat, format!("a row of a checkpoint has format version {}", header[0]))
            .at(format!("sled tree {tree}")));
    }
    Err(corrupt("has a wrong checksum"))
}
