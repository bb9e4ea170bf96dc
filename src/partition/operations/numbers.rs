//! Increments: counters as `i64`, or as text that holds a decimal. Pure.

use super::{Done, Scope, check_key};
use crate::error::{Code, Error, Result};
use crate::types::{MapDescriptor, ReplyBody, StoredValue, Value, ValueCodec};
use bytes::Bytes;

pub(super) fn increment(scope: &mut Scope<'_>, key: &Bytes, delta: i64) -> Result<Done> {
    let present = scope.present(key)?;
    // A number keeps its time, as with Redis' INCR; one that begins takes the map's.
    let expires_ms = present.as_ref().map_or_else(|| scope.expires_at(None), |entry| entry.expires_ms);
    let (sum, value) = sum(scope.map, key, present, delta)?;
    let revision = scope.next_revision();
    let write = scope.put_until(key, &value, expires_ms);
    Ok(Done { body: ReplyBody::Number { value: sum, revision }, writes: vec![write] })
}

fn sum(map: &MapDescriptor, key: &[u8], present: Option<StoredValue>, delta: i64) -> Result<(i64, Value)> {
    check_key(map, key)?;
    let place = || format!("map {:?}, key {:?}", map.name, String::from_utf8_lossy(key));
    let codec = present.as_ref().map_or(map.value_codec, |entry| entry.value.codec);
    let not_a_number = |what: &str| Error::new(Code::WrongCodec, what).at(place());
    let before = match (&present, codec) {
        (_, ValueCodec::Bytes | ValueCodec::Json | ValueCodec::Msgpack) => {
            return Err(not_a_number("only i64, or utf8 that holds a decimal, can be incremented"));
        }
        (None, _) => 0,
        (Some(entry), ValueCodec::I64) => {
            let bytes =
                <[u8; 8]>::try_from(&entry.value.data[..]).map_err(|_| not_a_number("the value is not 8 bytes"))?;
            i64::from_le_bytes(bytes)
        }
        (Some(entry), ValueCodec::Utf8) => std::str::from_utf8(&entry.value.data)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| not_a_number("the value is not a decimal number of 64 bits"))?,
    };
    let sum = before.checked_add(delta).ok_or_else(|| {
        Error::new(Code::NumberOverflow, format!("{before} + {delta} does not fit into 64 bits")).at(place())
    })?;
    let schema = present.map_or(map.schema, |entry| entry.value.schema);
    let mut value = if codec == ValueCodec::I64 { Value::i64(sum) } else { Value::utf8(sum.to_string()) };
    value.schema = schema;
    Ok((sum, value))
}
