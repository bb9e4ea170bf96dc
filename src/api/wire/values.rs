//! Values, codecs, names and keys.

use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::types::{AckLevel, KeyCodec, StoredValue, TaskPayload, Value, ValueCodec};
use bytes::Bytes;
use grid_proto::keystead::v1;

pub(super) fn bad(what: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, what)
}

/// A level's name, as acknowledgements print it.
pub fn ack_level_name(level: AckLevel) -> &'static str {
    match level {
        AckLevel::MajorityFsync => "majority-fsync",
        AckLevel::Accepted => "accepted",
    }
}

/// The wire's number of a key codec.
pub fn key_codec_to_wire(codec: KeyCodec) -> i32 {
    let codec = match codec {
        KeyCodec::Bytes => v1::KeyCodec::Bytes,
        KeyCodec::Utf8 => v1::KeyCodec::Utf8,
        KeyCodec::I64 => v1::KeyCodec::I64,
    };
    codec.into()
}

/// The key codec of a wire number.
///
/// # Errors
/// `InvalidRequest` when the number is unknown or says that none is named.
pub fn key_codec_from_wire(number: i32) -> Result<KeyCodec> {
    match v1::KeyCodec::try_from(number) {
        Ok(v1::KeyCodec::Bytes) => Ok(KeyCodec::Bytes),
        Ok(v1::KeyCodec::Utf8) => Ok(KeyCodec::Utf8),
        Ok(v1::KeyCodec::I64) => Ok(KeyCodec::I64),
        Ok(v1::KeyCodec::Unspecified) => Err(bad("the key codec is not named")),
        Err(_) => Err(bad(format!("there is no key codec {number}"))),
    }
}

/// The wire's number of a value codec.
pub fn value_codec_to_wire(codec: ValueCodec) -> i32 {
    let codec = match codec {
        ValueCodec::Bytes => v1::ValueCodec::Bytes,
        ValueCodec::Utf8 => v1::ValueCodec::Utf8,
        ValueCodec::Json => v1::ValueCodec::Json,
        ValueCodec::Msgpack => v1::ValueCodec::Msgpack,
        ValueCodec::I64 => v1::ValueCodec::I64,
    };
    codec.into()
}

/// The value codec of a wire number.
///
/// # Errors
/// `InvalidRequest` when the number is unknown or says that none is named.
pub fn value_codec_from_wire(number: i32) -> Result<ValueCodec> {
    match v1::ValueCodec::try_from(number) {
        Ok(v1::ValueCodec::Bytes) => Ok(ValueCodec::Bytes),
        Ok(v1::ValueCodec::Utf8) => Ok(ValueCodec::Utf8),
        Ok(v1::ValueCodec::Json) => Ok(ValueCodec::Json),
        Ok(v1::ValueCodec::Msgpack) => Ok(ValueCodec::Msgpack),
        Ok(v1::ValueCodec::I64) => Ok(ValueCodec::I64),
        Ok(v1::ValueCodec::Unspecified) => Err(bad("the value's codec is not named")),
        Err(_) => Err(bad(format!("there is no value codec {number}"))),
    }
}

/// Checks a map's or a task's name.
///
/// # Errors
/// `InvalidName`.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if (1..=128).contains(&name.len()) && name.chars().all(good) {
        return Ok(());
    }
    let shown: String = name.chars().take(40).collect();
    Err(Error::new(Code::InvalidName, format!("\"{}\" is no name of a {what}", shown.escape_default())))
}

/// Checks a key (or an affinity) against the limits.
///
/// # Errors
/// `InvalidRequest` when it is empty, `TooLarge` when it is too long.
pub fn check_key(what: &str, key: &Bytes, limits: &Limits) -> Result<()> {
    if key.is_empty() {
        return Err(bad(format!("the {what} is empty")));
    }
    check_size(what, key.len(), limits.max_key_bytes)
}

pub(super) fn check_size(what: &str, bytes: usize, limit: usize) -> Result<()> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::new(Code::TooLarge, format!("the {what} has {bytes} bytes; the limit is {limit}")))
}

pub(super) fn value_to_wire(value: Value) -> v1::Value {
    v1::Value { codec: value_codec_to_wire(value.codec), schema: value.schema, data: value.data }
}

pub(super) fn value_from_wire(value: v1::Value) -> Result<Value> {
    Ok(Value { codec: value_codec_from_wire(value.codec)?, schema: value.schema, data: value.data })
}

/// A value that is to be written: present, of a known codec, within the limit, readable.
pub(super) fn new_value(value: Option<v1::Value>, limits: &Limits) -> Result<Value> {
    let value = value_from_wire(value.ok_or_else(|| bad("the value is missing"))?)?;
    check_size("value", value.data.len(), limits.max_value_bytes)?;
    let fits = match value.codec {
        ValueCodec::Utf8 => std::str::from_utf8(&value.data).is_ok(),
        ValueCodec::I64 => value.data.len() == 8,
        ValueCodec::Bytes | ValueCodec::Json | ValueCodec::Msgpack => true,
    };
    if !fits {
        return Err(Error::new(Code::WrongCodec, "the value's bytes are not of the codec that it names"));
    }
    Ok(value)
}

pub(super) fn stored_to_wire(stored: StoredValue) -> v1::StoredValue {
    v1::StoredValue {
        revision: stored.revision,
        value: Some(value_to_wire(stored.value)),
        expires_ms: stored.expires_ms,
    }
}

pub(super) fn stored_from_wire(stored: v1::StoredValue) -> Result<StoredValue> {
    let value = stored.value.ok_or_else(|| bad("a stored value has no value"))?;
    Ok(StoredValue { revision: stored.revision, value: value_from_wire(value)?, expires_ms: stored.expires_ms })
}

pub(super) fn payload_to_wire(payload: TaskPayload) -> v1::Payload {
    v1::Payload { codec: value_codec_to_wire(payload.codec), data: payload.data }
}

pub(super) fn payload_from_wire(payload: Option<v1::Payload>) -> Result<TaskPayload> {
    let payload = payload.ok_or_else(|| bad("the payload is missing"))?;
    match value_codec_from_wire(payload.codec)? {
        codec @ (ValueCodec::Msgpack | ValueCodec::Json) => Ok(TaskPayload { codec, data: payload.data }),
        _ => Err(Error::new(Code::TaskCodec, "a payload is MessagePack or JSON")),
    }
}
