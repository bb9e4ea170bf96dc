//! The operations on entries: a view and a request in, a reply and row writes out. Pure: the
//! executor decides when a reply may leave and what becomes of the writes.

use super::entry::RowWrite;
use super::overlay::View;
use super::rows;
use crate::error::{Code, Error, Result};
use crate::types::{
    Condition, KeyCodec, MapDescriptor, Op, ReplyBody, Request, SLOTS, Slot, StoredValue, Value, ValueCodec,
    affinity_of, slot_of,
};
use bytes::Bytes;

/// The slot of a key in a request: of the affinity that the caller named, else of the key's own.
pub fn slot_in(request: &Request, key: &[u8]) -> Slot {
    match &request.affinity {
        Some(affinity) => slot_of(affinity),
        None => slot_of(affinity_of(key)),
    }
}

/// What an operation did.
#[derive(Debug)]
pub(super) struct Done {
    /// The reply.
    pub body: ReplyBody,
    /// The rows it writes; empty for a read, and for a write that changed nothing.
    pub writes: Vec<RowWrite>,
}

impl Done {
    fn read(body: ReplyBody) -> Result<Self> {
        Ok(Done { body, writes: Vec::new() })
    }
}

/// Executes an operation that is not a task. `revision` is the partition's newest; it is raised
/// for what is written, once per operation.
///
/// # Errors
/// `WrongCodec`, `NumberOverflow`, `CorruptRow`: nothing is written.
pub(super) fn execute(view: &View, map: &MapDescriptor, request: &Request, revision: &mut u64) -> Result<Done> {
    let at = |key: &Bytes| slot_in(request, key);
    let present = |key: &Bytes| view.entry(at(key), map.id, key);
    let row = |key: &Bytes| rows::map_row(at(key), map.id, key);
    match &request.op {
        Op::Get { key, .. } => Done::read(ReplyBody::Entry(present(key)?)),
        Op::GetMany { keys, .. } => {
            Done::read(ReplyBody::Entries(keys.iter().map(present).collect::<Result<Vec<_>>>()?))
        }
        Op::Put { key, value, condition, .. } => {
            check_entry(map, key, value)?;
            if *condition != Condition::Always {
                let present = present(key)?;
                if !holds(condition, present.as_ref()) {
                    return Done::read(ReplyBody::ConditionFailed(present));
                }
            }
            *revision += 1;
            let write = RowWrite { row: row(key), value: Some(stored(*revision, value)) };
            Ok(Done { body: ReplyBody::Written { revision: *revision }, writes: vec![write] })
        }
        Op::PutMany { entries, .. } => {
            entries.iter().try_for_each(|(key, value)| check_entry(map, key, value))?;
            *revision += 1;
            let write =
                |(key, value): &(Bytes, Value)| RowWrite { row: row(key), value: Some(stored(*revision, value)) };
            Ok(Done { body: ReplyBody::Written { revision: *revision }, writes: entries.iter().map(write).collect() })
        }
        Op::Delete { key, .. } => {
            let existed = view.contains(&row(key));
            let writes = if existed { vec![RowWrite { row: row(key), value: None }] } else { Vec::new() };
            Ok(Done { body: ReplyBody::Deleted { existed }, writes })
        }
        Op::Increment { key, delta, .. } => {
            let (sum, value) = increment(map, key, present(key)?, *delta)?;
            *revision += 1;
            let write = RowWrite { row: row(key), value: Some(stored(*revision, &value)) };
            Ok(Done { body: ReplyBody::Number { value: sum, revision: *revision }, writes: vec![write] })
        }
        Op::Transact { checks, writes, .. } => {
            let slots = checks.iter().map(|(key, _)| at(key)).chain(writes.iter().map(|(key, _)| at(key)));
            one_slot(slots)?;
            for (key, expected) in checks {
                let present = present(key)?;
                if present.as_ref().map(|entry| entry.revision) != *expected {
                    return Done::read(ReplyBody::ConditionFailed(present));
                }
            }
            *revision += 1;
            let mut made = Vec::with_capacity(writes.len());
            for (key, value) in writes {
                if let Some(value) = value {
                    check_entry(map, key, value)?;
                }
                made.push(RowWrite { row: row(key), value: value.as_ref().map(|value| stored(*revision, value)) });
            }
            Ok(Done { body: ReplyBody::Written { revision: *revision }, writes: made })
        }
        Op::Task { .. } => Err(Error::internal("a task came where only operations are executed")),
    }
}

fn stored(revision: u64, value: &Value) -> Bytes {
    StoredValue { revision, value: value.clone() }.encode()
}

fn holds(condition: &Condition, present: Option<&StoredValue>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => present.is_none(),
        Condition::Value(value) => {
            present.is_some_and(|entry| entry.value.codec == value.codec && entry.value.data == value.data)
        }
        Condition::Revision(revision) => present.is_some_and(|entry| entry.revision == *revision),
    }
}

fn one_slot(slots: impl IntoIterator<Item = Slot>) -> Result<()> {
    let mut slots = slots.into_iter();
    let first = slots.next();
    match slots.find(|slot| Some(*slot) != first) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            Code::CrossSlot,
            format!("the keys lie in several slots, among them {} and {other} of {SLOTS}", first.unwrap_or(other)),
        )),
    }
}

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
        return wrong(format!("the value is {:?}, the map holds {:?}", value.codec, map.value_codec));
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

fn increment(map: &MapDescriptor, key: &[u8], present: Option<StoredValue>, delta: i64) -> Result<(i64, Value)> {
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
