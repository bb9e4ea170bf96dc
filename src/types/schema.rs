//! How a program stands to a map's values, and typed values whose codec the map decides: what typed
//! maps and tasks share, so that both say the same of a value that they cannot read.
//!
//! In: values of a program and stored ones, perhaps of another version. Out: the other. Pure.

use super::codec::{Codec, Json, Msgpack};
use super::{Value, ValueCodec};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;

/// Which versions of a map's values a program writes and reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// The schema version of the values that it writes. Default 0.
    pub writes: u32,
    /// The newest schema version that it reads. Default: any, since fields are found by name.
    pub accepts_up_to: Option<u32>,
}

impl Schema {
    /// Writes values of this version, and reads those of any.
    pub fn of(version: u32) -> Self {
        Schema { writes: version, accepts_up_to: None }
    }

    fn unreadable<V: ?Sized>(self, why: &str, what: &str, schema: u32) -> Error {
        let kind = type_name::<V>();
        let what = format!("a value of schema {schema} {what} as {kind} of schema {}: {why}", self.writes);
        Error::new(Code::ValueMismatch, what)
    }

    /// The bytes of a `V` that the program writes.
    ///
    /// # Errors
    /// `ValueMismatch`, without the place.
    pub fn encoded<V: ?Sized>(self, data: std::result::Result<Bytes, String>) -> Result<Bytes> {
        data.map_err(|why| self.unreadable::<V>(&why, "is not encodable", self.writes))
    }

    /// A `V` that takes the place of `before` and keeps what it has beside a `V`: so it is of the newer
    /// of the two versions.
    ///
    /// # Errors
    /// `ValueMismatch`, without the place.
    pub fn rewritten<V>(self, before: &Value, data: std::result::Result<Bytes, String>) -> Result<Value> {
        let data = data.map_err(|why| self.unreadable::<V>(&why, "cannot be rewritten", before.schema))?;
        Ok(Value { codec: before.codec, schema: self.writes.max(before.schema), data })
    }

    /// A stored value, if the program reads its version.
    ///
    /// # Errors
    /// `NewerSchema`, `ValueMismatch`, without the place.
    pub fn decoded<V>(self, value: &Value, decode: impl FnOnce() -> std::result::Result<V, String>) -> Result<V> {
        if let Some(newest) = self.accepts_up_to.filter(|newest| value.schema > *newest) {
            let what = format!("the stored value has schema {}, this program accepts up to {newest}", value.schema);
            return Err(Error::new(Code::NewerSchema, what));
        }
        decode().map_err(|why| self.unreadable::<V>(&why, "cannot be read", value.schema))
    }
}

/// Raw bytes are for who wrote them.
fn untyped() -> Error {
    Error::new(Code::WrongCodec, "raw bytes have no type").remedy("read and write them as values")
}

/// A value by its own codec: MessagePack, JSON, a number or text.
///
/// # Errors
/// `NewerSchema`, `ValueMismatch`; `WrongCodec` for raw bytes. Without the place.
pub fn read_value<V: DeserializeOwned>(schema: Schema, value: &Value) -> Result<V> {
    let data = &value.data;
    let from_json = |json: serde_json::Value| serde_json::from_value(json).map_err(|error| error.to_string());
    schema
        .decoded(value, || match value.codec {
            ValueCodec::Msgpack => super::msgpack::from_slice(data).map_err(|error| error.to_string()),
            ValueCodec::Json => serde_json::from_slice(data).map_err(|error| error.to_string()),
            ValueCodec::I64 => {
                let bytes = <[u8; 8]>::try_from(&data[..]).map_err(|error| error.to_string())?;
                from_json(i64::from_le_bytes(bytes).into())
            }
            ValueCodec::Utf8 => from_json(std::str::from_utf8(data).map_err(|error| error.to_string())?.into()),
            ValueCodec::Bytes => Err(String::new()),
        })
        .map_err(|error| if value.codec == ValueCodec::Bytes { untyped() } else { error })
}

/// A value in a map's codec.
///
/// # Errors
/// `ValueMismatch`; `WrongCodec` for raw bytes. Without the place.
pub fn write_value<V: Serialize + ?Sized>(schema: Schema, codec: ValueCodec, value: &V) -> Result<Value> {
    let data = match codec {
        ValueCodec::Msgpack => rmp_serde::to_vec_named(value).map_err(|error| error.to_string()),
        ValueCodec::Json => serde_json::to_vec(value).map_err(|error| error.to_string()),
        ValueCodec::I64 | ValueCodec::Utf8 => match serde_json::to_value(value) {
            Ok(json) => plain(codec, &json).ok_or_else(|| format!("the map holds {codec}")),
            Err(error) => Err(error.to_string()),
        },
        ValueCodec::Bytes => return Err(untyped()),
    };
    Ok(Value { codec, schema: schema.writes, data: schema.encoded::<V>(data.map(Bytes::from))? })
}

fn plain(codec: ValueCodec, json: &serde_json::Value) -> Option<Vec<u8>> {
    match codec {
        ValueCodec::I64 => Some(json.as_i64()?.to_le_bytes().to_vec()),
        _ => Some(json.as_str()?.as_bytes().to_vec()),
    }
}

/// A value that takes the place of `before`, in its codec, and keeps the fields that `V` does not know.
///
/// # Errors
/// As [`write_value`].
pub fn rewrite_value<V: Serialize + DeserializeOwned>(schema: Schema, value: &V, before: &Value) -> Result<Value> {
    let data = match before.codec {
        ValueCodec::Msgpack => <Msgpack as Codec<V>>::rewrite(value, &before.data),
        ValueCodec::Json => <Json as Codec<V>>::rewrite(value, &before.data),
        codec => write_value(schema, codec, value).map(|value| value.data).map_err(|error| error.what),
    };
    schema.rewritten::<V>(before, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_but_raw_bytes_holds_what_it_can() {
        for codec in [ValueCodec::Msgpack, ValueCodec::Json, ValueCodec::I64] {
            let value = write_value(Schema::of(3), codec, &-7i64).expect("a number");
            assert_eq!((value.codec, value.schema), (codec, 3));
            assert_eq!(read_value::<i64>(Schema::default(), &value), Ok(-7));
            let next = rewrite_value(Schema::of(1), &8i64, &value).expect("a number");
            assert_eq!((next.schema, read_value::<i64>(Schema::default(), &next)), (3, Ok(8)));
        }
        let text = write_value(Schema::default(), ValueCodec::Utf8, "x").expect("text");
        assert_eq!(text, Value::utf8("x"));
        assert_eq!(read_value::<i64>(Schema::default(), &text).expect_err("no number").code, Code::ValueMismatch);
        let number = write_value(Schema::default(), ValueCodec::I64, "x").expect_err("no number");
        assert!(number.code == Code::ValueMismatch && number.what.contains("i64"), "{number}");
        let raw = write_value(Schema::default(), ValueCodec::Bytes, "x").expect_err("raw");
        assert_eq!(raw.code, Code::WrongCodec);
        let raw = read_value::<String>(Schema::default(), &Value::bytes(b"x".to_vec())).expect_err("raw");
        assert_eq!(raw.code, Code::WrongCodec);
    }
}
