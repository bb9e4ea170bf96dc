//! Values describe themselves: codec and schema version travel with every stored value.

use crate::error::{Code, Error};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a map's keys are encoded; every key codec keeps the keys' order in the bytes' order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum KeyCodec {
    /// Raw bytes.
    Bytes = 0,
    /// UTF-8 text.
    Utf8 = 1,
    /// Eight bytes, big-endian, sign bit flipped.
    I64 = 2,
}

/// How a value's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ValueCodec {
    /// Raw bytes.
    Bytes = 0,
    /// UTF-8 text.
    Utf8 = 1,
    /// JSON text.
    Json = 2,
    /// MessagePack with field names: the default for serde types.
    Msgpack = 3,
    /// Eight bytes, little-endian.
    I64 = 4,
}

impl KeyCodec {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            KeyCodec::Bytes => "bytes",
            KeyCodec::Utf8 => "utf8",
            KeyCodec::I64 => "i64",
        }
    }
}

impl fmt::Display for KeyCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ValueCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueCodec {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            ValueCodec::Bytes => "bytes",
            ValueCodec::Utf8 => "utf8",
            ValueCodec::Json => "json",
            ValueCodec::Msgpack => "msgpack",
            ValueCodec::I64 => "i64",
        }
    }

    /// The codec with this persisted number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Bytes, Self::Utf8, Self::Json, Self::Msgpack, Self::I64].into_iter().find(|codec| *codec as u8 == number)
    }
}

/// A value with its description, as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// How to read `data`.
    pub codec: ValueCodec,
    /// The writer's schema version of the value; 0 when the codec needs none.
    pub schema: u32,
    /// The encoded value.
    pub data: Bytes,
}

impl Value {
    /// A text value.
    pub fn utf8(text: impl Into<String>) -> Self {
        Value { codec: ValueCodec::Utf8, schema: 0, data: Bytes::from(text.into()) }
    }

    /// Raw bytes.
    pub fn bytes(data: impl Into<Bytes>) -> Self {
        Value { codec: ValueCodec::Bytes, schema: 0, data: data.into() }
    }

    /// A counter.
    pub fn i64(number: i64) -> Self {
        Value { codec: ValueCodec::I64, schema: 0, data: Bytes::copy_from_slice(&number.to_le_bytes()) }
    }
}

/// A value as a partition keeps it: with the revision of the write that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredValue {
    /// Revision of the write within its partition; never reused.
    pub revision: u64,
    /// The value itself.
    pub value: Value,
    /// When the entry expires, in Unix milliseconds of its partition's time; 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub expires_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

const STORED_VALUE_VERSION: u8 = 1;
const STORED_VALUE_HEADER: usize = 1 + 1 + 4 + 8;
/// A value that expires: the header says when.
const EXPIRING_VERSION: u8 = 2;
const EXPIRING_HEADER: usize = STORED_VALUE_HEADER + 8;

impl StoredValue {
    /// An entry that does not expire.
    pub fn new(revision: u64, value: Value) -> Self {
        StoredValue { revision, value, expires_ms: 0 }
    }

    /// Row bytes: version (1) | codec (1) | schema (4, LE) | revision (8, LE) | in version 2, for
    /// what expires, the time of that (8, LE) | data.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(EXPIRING_HEADER + self.value.data.len());
        out.put_u8(if self.expires_ms == 0 { STORED_VALUE_VERSION } else { EXPIRING_VERSION });
        out.put_u8(self.value.codec as u8);
        out.put_u32_le(self.value.schema);
        out.put_u64_le(self.revision);
        if self.expires_ms != 0 {
            out.put_u64_le(self.expires_ms);
        }
        out.put_slice(&self.value.data);
        out.freeze()
    }

    /// Reads what [`StoredValue::encode`] wrote, without copying the data.
    ///
    /// # Errors
    /// [`Code::CorruptRow`] when the bytes are too short or carry an unknown version or codec.
    pub fn decode(row: &Bytes) -> Result<Self, Error> {
        let bad = |what: &str| Error::new(Code::CorruptRow, format!("a value row of {} bytes {what}", row.len()));
        if row.len() < STORED_VALUE_HEADER {
            return Err(bad("is shorter than its header"));
        }
        let header = match row[0] {
            STORED_VALUE_VERSION => STORED_VALUE_HEADER,
            EXPIRING_VERSION if row.len() < EXPIRING_HEADER => return Err(bad("is shorter than its header")),
            EXPIRING_VERSION => EXPIRING_HEADER,
            version => return Err(bad(&format!("has format version {version}"))),
        };
        let codec = ValueCodec::from_number(row[1]).ok_or_else(|| bad(&format!("has value codec {}", row[1])))?;
        let schema = u32::from_le_bytes([row[2], row[3], row[4], row[5]]);
        let mut revision = [0; 8];
        revision.copy_from_slice(&row[6..14]);
        Ok(StoredValue {
            revision: u64::from_le_bytes(revision),
            value: Value { codec, schema, data: row.slice(header..) },
            expires_ms: Self::expiry_of(row),
        })
    }

    /// When the entry of a row expires, from the row's bytes alone; 0: never.
    pub fn expiry_of(row: &[u8]) -> u64 {
        match (row.first(), row.get(STORED_VALUE_HEADER..EXPIRING_HEADER)) {
            (Some(&EXPIRING_VERSION), Some(time)) => time.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stored_value_has_golden_bytes() {
        let value = Value { codec: ValueCodec::Utf8, schema: 7, data: Bytes::from_static(b"hi") };
        let stays = StoredValue::new(0x0102, value.clone());
        assert_eq!(&stays.encode()[..], &[1, 1, 7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, b'h', b'i']);
        let expires = StoredValue { revision: 0x0102, value, expires_ms: 0x0304 };
        let golden = [2, 1, 7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, b'h', b'i'];
        assert_eq!(&expires.encode()[..], &golden);
        assert_eq!((StoredValue::expiry_of(&golden), StoredValue::expiry_of(&stays.encode())), (0x0304, 0));
    }

    #[test]
    fn damaged_rows_are_refused() {
        let good = StoredValue { revision: 1, value: Value::utf8("x"), expires_ms: 9 }.encode();
        for (at, byte) in [(0, 9), (1, 250)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert!(StoredValue::decode(&Bytes::from(bad)).is_err());
        }
        for length in 0..EXPIRING_HEADER {
            assert!(StoredValue::decode(&good.slice(..length)).is_err());
            assert_eq!(StoredValue::expiry_of(&good.slice(..length)), 0);
        }
    }

    proptest! {
        #[test]
        fn stored_value_round_trips(revision: u64, schema: u32, codec in 0u8..5, data: Vec<u8>, expires_ms: u64) {
            let codec = ValueCodec::from_number(codec).expect("a known codec");
            let stored = StoredValue { revision, value: Value { codec, schema, data: data.into() }, expires_ms };
            prop_assert_eq!(StoredValue::expiry_of(&stored.encode()), expires_ms);
            prop_assert_eq!(StoredValue::decode(&stored.encode()).expect("decodes"), stored);
        }
    }
}
