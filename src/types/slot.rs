//! Slots: where a key lives. Exactly Redis Cluster's rule, so that its clients' hash tags mean
//! the same here (Redis Cluster specification, "Hash tags" and appendix A).

use crc::{CRC_16_XMODEM, Crc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of slots; a partition is a contiguous range of them.
pub const SLOTS: u16 = 16384;

static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// A slot, `0..SLOTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The part of a key that decides where it lives: the bytes inside the first `{...}` if that is
/// not empty, else the whole key.
pub fn affinity_of(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let inside = &key[open + 1..];
    match inside.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &inside[..length],
        _ => key,
    }
}

/// The slot of an affinity (see [`affinity_of`]): `crc16_xmodem(affinity) mod 16384`.
pub fn slot_of(affinity: &[u8]) -> Slot {
    Slot(CRC16.checksum(affinity) % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // Values that `CLUSTER KEYSLOT` gives; the first is the specification's own check value.
        assert_eq!(CRC16.checksum(b"123456789"), 0x31C3);
        assert_eq!(slot_of(affinity_of(b"foo")), Slot(12182));
        assert_eq!(slot_of(affinity_of(b"somekey")), Slot(11058));
        assert_eq!(slot_of(affinity_of(b"foo{hash_tag}")), Slot(2515));
    }

    #[test]
    fn only_the_first_non_empty_tag_counts() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"{user1000}.following", b"user1000"),
            (b"foo{}{bar}", b"foo{}{bar}"),
            (b"foo{{bar}}zap", b"{bar"),
            (b"foo{bar}{zap}", b"bar"),
            (b"foo{bar", b"foo{bar"),
            (b"", b""),
        ];
        for (key, affinity) in table {
            assert_eq!(affinity_of(key), affinity, "{}", String::from_utf8_lossy(key));
        }
    }
}
