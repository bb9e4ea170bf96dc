//! A value as the backends that persist row by row keep it: version (1) = 1 | crc32 of version, key
//! and data (4, little-endian) | data. The checksum covers the key, so that a value served under
//! another's key is found too.

use crate::error::{Code, Error, Result};
use bytes::Bytes;

const VERSION: u8 = 1;
const HEADER: usize = 5;

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

/// Reads what [`encode_value`] made; `place` says where it was, for people.
pub(super) fn decode_value(place: &str, key: &[u8], value: &[u8]) -> Result<Bytes> {
    let corrupt = |what: &str| Error::new(Code::CorruptLog, format!("a row of a checkpoint {what}")).at(place);
    let Some((header, data)) = value.split_first_chunk::<HEADER>() else {
        return Err(corrupt("is shorter than its header"));
    };
    let found = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
    if header[0] == VERSION && found == crc(key, data) {
        return Ok(Bytes::copy_from_slice(data));
    }
    if header[0] != VERSION {
        return Err(Error::new(Code::UnknownFormat, format!("a row of a checkpoint has format version {}", header[0]))
            .at(place));
    }
    Err(corrupt("has a wrong checksum"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_golden_bytes_and_damage_is_found() {
        let value = encode_value(b"key", b"data");
        assert_eq!(value[..], [&[1], &crc(b"key", b"data").to_le_bytes()[..], b"data"].concat());
        assert_eq!(crc(b"key", b"data"), GOLDEN_CRC);
        assert_eq!(decode_value("here", b"key", &value), Ok(Bytes::from_static(b"data")));
        assert_eq!(decode_value("here", b"other", &value).expect_err("another's").code, Code::CorruptLog);
        for at in 0..value.len() {
            let mut bad = value.clone();
            bad[at] ^= 0x40;
            assert!(decode_value("here", b"key", &bad).is_err(), "flipped at {at}");
        }
        for length in 0..value.len() {
            assert!(decode_value("here", b"key", &value[..length]).is_err(), "cut at {length}");
        }
    }

    const GOLDEN_CRC: u32 = 0x75f7c0;
}
