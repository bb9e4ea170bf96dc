//! `rolling-total`: a key's total over a sliding span of time, answered at every event.
//!
//! A business window: time is cut into buckets of `bucket_s` seconds; each event adds its amount
//! to its bucket and is answered with the sum over the last `buckets` buckets, its own included.
//! The sub-windows are entries of a map in the task key's slot: a ring of `buckets` entries, in
//! which bucket `b` has index `b mod buckets`, so a newer bucket takes the place of the one that
//! has left the window. An event writes one entry and reads all with one local scan.
//!
//! An event may be late as long as its bucket is among the last `buckets` that the ring has seen;
//! it is answered with the sum over its own window, of what is still kept. One that is older is
//! refused with `TooLate` and changes nothing.

use super::context::Handled;
use super::{TaskContext, TaskError};
use crate::error::{Code, Error};
use crate::types::{SLOTS, Slot, Value, ValueCodec, affinity_of, slot_of};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The task's registered name.
pub const NAME: &str = "rolling-total";

/// A payload, for those whose own is wrong.
pub(super) const EXAMPLE: &str =
    r#"{"map": "totals", "time_s": 1700000000, "amount": 250, "bucket_s": 3600, "buckets": 168}"#;

/// Most buckets of a window.
pub const MAX_BUCKETS: u32 = 100_000;

/// Schema version of the sub-windows' values.
const SCHEMA: u32 = 1;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The map that holds the sub-windows; it must exist.
    pub map: String,
    /// The event's time, Unix seconds.
    pub time_s: i64,
    /// What it adds; may be negative.
    pub amount: i64,
    /// A bucket's length in seconds.
    pub bucket_s: i64,
    /// How many buckets the window has.
    pub buckets: u32,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The sum over the window that ends with the event's bucket.
    pub total: i64,
}

/// Handles one event.
///
/// # Errors
/// `InvalidRequest`, `TooLate`, `NumberOverflow`, `NoSuchMap`, `CorruptRow`.
pub fn handle(context: &mut TaskContext<'_>, event: Input) -> Handled<Output> {
    if event.bucket_s <= 0 || event.buckets == 0 || event.buckets > MAX_BUCKETS {
        let what = format!("a window needs bucket_s above 0 and 1 to {MAX_BUCKETS} buckets");
        return Err(TaskError::Grid(Error::new(Code::InvalidRequest, what)));
    }
    let bucket = event.time_s.div_euclid(event.bucket_s);
    let span = i128::from(event.buckets);
    let prefix = key_prefix(context.key(), event.bucket_s, event.buckets);
    let kept = read_ring(context, &event, &prefix)?;
    let newest = kept.iter().map(|&(at, _)| at).max();
    if let Some(newest) = newest.filter(|&newest| i128::from(bucket) <= i128::from(newest) - span) {
        let late = format!("bucket {bucket} has left the window of {} buckets that ends at {newest}", event.buckets);
        return Err(TaskError::Grid(Error::new(Code::TooLate, late)));
    }
    let before = kept.iter().find(|&&(at, _)| at == bucket).map_or(0, |&(_, amount)| amount);
    let own = before.checked_add(event.amount).ok_or_else(|| overflow("a bucket's sum"))?;
    let in_window = |at: i64| at < bucket && i128::from(at) > i128::from(bucket) - span;
    // Summed in 128 bits, so that only the total must fit, not every sum on the way.
    let others: i128 = kept.iter().filter(|&&(at, _)| in_window(at)).map(|&(_, amount)| i128::from(amount)).sum();
    let total = i64::try_from(others + i128::from(own)).map_err(|_| overflow("the window's total"))?;
    let index = bucket.rem_euclid(i64::from(event.buckets));
    context.put_value(&event.map, format_key(&prefix, index).as_ref(), encode_entry(bucket, own)?)?;
    Ok(Output { total })
}

fn overflow(what: &str) -> TaskError {
    TaskError::Grid(Error::new(Code::NumberOverflow, format!("{what} does not fit into 64 bits")))
}

/// The ring's entries, as (bucket, amount).
fn read_ring(context: &mut TaskContext<'_>, event: &Input, prefix: &[u8]) -> Handled<Vec<(i64, i64)>> {
    let rows = context.scan(&event.map, prefix, event.buckets as usize)?;
    let mut kept = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let entry = decode_entry(&value).ok_or_else(|| {
            let key = String::from_utf8_lossy(&key).into_owned();
            Error::new(Code::CorruptRow, format!("the sub-window \"{key}\" cannot be read"))
                .at(format!("map {}", event.map))
        })?;
        kept.push(entry);
    }
    Ok(kept)
}

/// A sub-window's value: a MessagePack array of bucket and amount, each an integer.
fn encode_entry(bucket: i64, amount: i64) -> Handled<Value> {
    let data = rmp_serde::to_vec(&(bucket, amount)).map_err(|error| Error::internal(error.to_string()))?;
    Ok(Value { codec: ValueCodec::Msgpack, schema: SCHEMA, data: data.into() })
}

pub(super) fn decode_entry(value: &Value) -> Option<(i64, i64)> {
    let known = value.codec == ValueCodec::Msgpack && value.schema == SCHEMA;
    if known { crate::types::msgpack::from_slice(&value.data).ok() } else { None }
}

fn format_key(prefix: &[u8], index: i64) -> Bytes {
    [prefix, format!("{index:05}").as_bytes()].concat().into()
}

/// What the keys of a ring start with: kind and length of the task's key, the key itself in a
/// form that lives in the same slot, and the window's shape. The length keeps the rings of two
/// keys apart even if one key starts with the other. If the key is text, so is this.
fn key_prefix(key: &[u8], bucket_s: i64, buckets: u32) -> Vec<u8> {
    let affinity = affinity_of(key);
    let mut out = Vec::with_capacity(key.len() + 48);
    let head = |kind: char| format!("rt:{kind}{}:", key.len());
    if affinity.len() < key.len() {
        // It has a tag, which stays the first one.
        out.extend_from_slice(head('t').as_bytes());
        out.extend_from_slice(key);
    } else if !key.is_empty() && !key.contains(&b'}') {
        out.extend_from_slice(head('p').as_bytes());
        out.push(b'{');
        out.extend_from_slice(key);
        out.push(b'}');
    } else {
        // No tag can hold this key: one that lives in the same slot stands in.
        out.extend_from_slice(head('o').as_bytes());
        out.extend_from_slice(format!("{{{}}}", tag_of(slot_of(affinity))).as_bytes());
        out.extend_from_slice(key);
    }
    out.extend_from_slice(format!(":{bucket_s}:{buckets}:").as_bytes());
    out
}

/// The smallest number whose digits live in a slot.
fn tag_of(slot: Slot) -> u32 {
    // Of sixteen times as many numbers as there are slots, some number hits each; see the test.
    (0..u32::from(SLOTS) * 16).find(|number| slot_of(number.to_string().as_bytes()) == slot).unwrap_or(0)
}

#[cfg(test)]
mod tests;
