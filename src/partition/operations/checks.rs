//! Whether keys and values are what their map holds. Pure.

use crate::error::{Code, Error, Result};
use crate::types::{KeyCodec, MapDescriptor, Value, ValueCodec};

/// Whether key and value are of the map's codecs.
///
/// # Errors
/// `WrongCodec`.
pub fn check_entry(map: &MapDescriptor, key: &[u8], value: &Value) -> Result<()> {
    check_key(map, key)?;
    let wrong = |what: String| {
        let error = Error::new(Code::WrongCodec, what).at(format!("map {:?}", map.name));
        Err(error)
    };
    if value.codec != map.value_codec {
        return wrong(format!("the value is {}, the map holds {}", value.codec, map.value_codec));
    }
    match value.codec {
        ValueCodec::Utf8 | ValueCodec::Json if std::str::from_utf8(&value.data).is_err() => {
            wrong("the value is not UTF-8".to_owned())
        }
        ValueCodec::I64 if value.data.len() != 8 => wrong("an i64 value has 8 bytes".to_owned()),
        _ => Ok(()),
    }
}

/// Whether a key is of the map's key codec.
///
/// # Errors
/// `WrongCodec`.
pub fn check_key(map: &MapDescriptor, key: &[u8]) -> Result<()> {
    let wrong = |what: &str| Err(Error::new(Code::WrongCodec, what).at(format!("map {:?}", map.name)));
    match map.key_codec {
        KeyCodec::Utf8 if std::str::from_utf8(key).is_err() => wrong("the key is not UTF-8"),
        KeyCodec::I64 if key.len() != 8 => wrong("an i64 key has 8 bytes"),
        _ => Ok(()),
    }
}
