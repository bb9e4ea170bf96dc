//! `put`, `touch`, `get`, `delete`, `incr`.

use super::args::{DeleteArgs, IncrArgs, KeyArgs, PutArgs, TouchArgs};
use super::output;
use super::walk_args::Conditions;
use crate::client::Client;
use crate::error::{Code, Error, Result};
use crate::types::{
    Condition, KeyCodec, MapDescriptor, Op, ReplyBody, StoredValue, Value, ValueCodec, check_ttl, whole_ms,
};
use bytes::Bytes;
use serde_json::json;
use std::io::Write;

pub(super) async fn descriptor(client: &Client, map: &str) -> Result<Option<MapDescriptor>> {
    Ok(client.maps().await?.into_iter().find(|known| known.name == map))
}

/// A key's text as the map wants it; without a map, as text.
pub(super) fn key_bytes(text: &str, map: Option<&MapDescriptor>) -> Result<Bytes> {
    match map.map(|map| map.key_codec) {
        Some(KeyCodec::I64) => {
            let number: i64 = text.parse().map_err(|_| not_of_codec("key", text, "a whole number"))?;
            // Big-endian with the sign bit flipped, so that byte order is number order.
            Ok(Bytes::copy_from_slice(&((number as u64) ^ (1 << 63)).to_be_bytes()))
        }
        Some(KeyCodec::Bytes | KeyCodec::Utf8) | None => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

fn not_of_codec(what: &str, text: &str, wanted: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    Error::new(Code::WrongCodec, format!("the {what} \"{shown}\" is not {wanted}, which the map holds"))
        .remedy("give what the map holds, or use another map")
}

/// A value's text as the map wants it; without a map, as text.
pub(super) fn value_of(text: &str, map: Option<&MapDescriptor>) -> Result<Value> {
    let Some(map) = map else { return Ok(Value::utf8(text)) };
    let parsed = || serde_json::from_str::<serde_json::Value>(text).map_err(|_| not_of_codec("value", text, "JSON"));
    let mut value = match map.value_codec {
        ValueCodec::Utf8 => Value::utf8(text),
        ValueCodec::Bytes => Value::bytes(text.as_bytes().to_vec()),
        ValueCodec::I64 => Value::i64(text.parse().map_err(|_| not_of_codec("value", text, "a whole number"))?),
        ValueCodec::Json => {
            parsed()?;
            Value { codec: ValueCodec::Json, schema: 0, data: Bytes::copy_from_slice(text.as_bytes()) }
        }
        ValueCodec::Msgpack => {
            let data = rmp_serde::to_vec_named(&parsed()?)
                .map_err(|error| Error::internal(format!("the value cannot be encoded: {error}")))?;
            Value { codec: ValueCodec::Msgpack, schema: 0, data: data.into() }
        }
    };
    value.schema = map.schema;
    Ok(value)
}

fn no_such_key(map: &str, key: &str) -> Error {
    Error::new(Code::NoSuchKey, format!("there is no key \"{key}\"")).at(format!("map {map}"))
}

/// What a command demands of the present entry.
fn condition(asked: &Conditions, map: Option<&MapDescriptor>) -> Result<Condition> {
    Ok(match asked {
        Conditions { if_absent: true, .. } => Condition::Absent,
        Conditions { if_present: true, .. } => Condition::Present,
        Conditions { if_revision: Some(revision), .. } => Condition::Revision(*revision),
        Conditions { if_value: Some(value), .. } => Condition::Value(value_of(value, map)?),
        _ => Condition::Always,
    })
}

fn refused(map: &str, key: &str, present: Option<&StoredValue>) -> Error {
    let is = match present {
        Some(entry) => format!("has revision {} and the value {}", entry.revision, output::value_json(&entry.value)),
        None => "is absent".to_owned(),
    };
    Error::new(Code::ConditionFailed, format!("key \"{key}\" {is}")).at(format!("map {map}"))
}

/// Prints the entry that a write replaced or deleted; nothing in text if there was none.
fn print_previous(out: &mut (dyn Write + Send), previous: Option<&StoredValue>) -> Result<()> {
    previous.map_or(Ok(()), |entry| output::print(out, &output::raw(&entry.value)))
}

pub(super) async fn put(client: &Client, args: &PutArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = descriptor(client, &args.map).await?;
    let op = Op::Put {
        map: args.map.clone(),
        key: key_bytes(&args.key, map.as_ref())?,
        value: value_of(&args.value, map.as_ref())?,
        condition: condition(&args.conditions, map.as_ref())?,
        previous: args.conditions.previous,
        ttl_ms: args.ttl.map(whole_ms),
    };
    check_ttl(args.ttl.map_or(0, whole_ms))?;
    let codec = map.as_ref().map_or(ValueCodec::Utf8, |map| map.value_codec);
    let reply = client.write_with(op, Some(codec), args.affinity.options()).await?;
    let (revision, previous) = match &reply.body {
        ReplyBody::Written { revision, previous } => (*revision, previous.as_ref()),
        ReplyBody::ConditionFailed(present) => return Err(refused(&args.map, &args.key, present.as_ref())),
        _ => return Err(Error::internal("a reply of another kind")),
    };
    if args.connection.json {
        let mut fields = json!({ "map": args.map, "key": args.key, "revision": revision });
        if args.conditions.previous {
            fields["previous"] = output::entry(previous);
        }
        return output::json(out, &output::with(fields, output::served(&reply.served, true)));
    }
    if args.conditions.previous {
        return print_previous(out, previous);
    }
    let level = crate::api::wire::ack_level_name(reply.served.ack);
    output::line(out, &format!("revision {revision} ({level})"))
}

pub(super) async fn touch(client: &Client, args: &TouchArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = descriptor(client, &args.map).await?;
    let (key, ttl_ms) = (key_bytes(&args.key, map.as_ref())?, args.ttl.map(whole_ms));
    check_ttl(ttl_ms.unwrap_or(0))?;
    let op = Op::Touch { map: args.map.clone(), key, ttl_ms };
    let reply = client.write_with(op, None, args.affinity.options()).await?;
    let revision = match &reply.body {
        ReplyBody::Touched { existed: true, revision } => *revision,
        ReplyBody::Touched { .. } => return Err(no_such_key(&args.map, &args.key)),
        _ => return Err(Error::internal("a reply of another kind")),
    };
    if args.connection.json {
        let fields = json!({ "map": args.map, "key": args.key, "revision": revision });
        return output::json(out, &output::with(fields, output::served(&reply.served, true)));
    }
    let level = crate::api::wire::ack_level_name(reply.served.ack);
    output::line(out, &format!("revision {revision} ({level})"))
}

/// `get --local`: the asked peer's copy of a replicated map, and the revision that it is of.
async fn get_local(client: &Client, args: &KeyArgs, key: Bytes, out: &mut (dyn Write + Send)) -> Result<()> {
    let found = client.get_local(&args.map, key, args.at_least).await?;
    let entry = found.entry.ok_or_else(|| no_such_key(&args.map, &args.key))?;
    if !args.connection.json {
        return output::print(out, &output::raw(&entry.value));
    }
    let fields = json!({ "map": args.map, "key": args.key, "copy_revision": found.revision });
    match output::entry(Some(&entry)) {
        serde_json::Value::Object(entry) => output::json(out, &output::with(fields, entry)),
        _ => output::json(out, &fields),
    }
}

pub(super) async fn get(client: &Client, args: &KeyArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = descriptor(client, &args.map).await?;
    if args.local {
        return get_local(client, args, key_bytes(&args.key, map.as_ref())?, out).await;
    }
    let op = Op::Get { map: args.map.clone(), key: key_bytes(&args.key, map.as_ref())? };
    let reply = client.execute(op, args.affinity.options()).await?;
    let ReplyBody::Entry(entry) = reply.body else { return Err(Error::internal("a reply of another kind")) };
    let found = entry.ok_or_else(|| no_such_key(&args.map, &args.key))?;
    if args.connection.json {
        let mut fields =
            output::with(json!({ "map": args.map, "key": args.key }), output::served(&reply.served, false));
        if found.expires_ms != 0 {
            // Both by the partition's time.
            fields["expires_ms"] = found.expires_ms.into();
            fields["ttl_ms"] = found.expires_ms.saturating_sub(reply.served.time.ms()).into();
        }
        return match output::entry(Some(&found)) {
            serde_json::Value::Object(entry) => output::json(out, &output::with(fields, entry)),
            _ => output::json(out, &fields),
        };
    }
    output::print(out, &output::raw(&found.value))
}

pub(super) async fn delete(client: &Client, args: &DeleteArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = descriptor(client, &args.map).await?;
    let op = Op::Delete {
        map: args.map.clone(),
        key: key_bytes(&args.key, map.as_ref())?,
        condition: condition(&args.conditions, map.as_ref())?,
        previous: args.conditions.previous,
    };
    let reply = client.write_with(op, None, args.affinity.options()).await?;
    let (revision, previous) = match &reply.body {
        ReplyBody::Deleted { existed: true, revision, previous } => (*revision, previous.as_ref()),
        ReplyBody::Deleted { .. } | ReplyBody::ConditionFailed(None) => return Err(no_such_key(&args.map, &args.key)),
        ReplyBody::ConditionFailed(present) => return Err(refused(&args.map, &args.key, present.as_ref())),
        _ => return Err(Error::internal("a reply of another kind")),
    };
    if args.connection.json {
        let mut fields = json!({ "map": args.map, "key": args.key, "existed": true, "revision": revision });
        if args.conditions.previous {
            fields["previous"] = output::entry(previous);
        }
        return output::json(out, &output::with(fields, output::served(&reply.served, true)));
    }
    if args.conditions.previous {
        return print_previous(out, previous);
    }
    output::line(out, &format!("deleted ({})", crate::api::wire::ack_level_name(reply.served.ack)))
}

pub(super) async fn incr(client: &Client, args: &IncrArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = descriptor(client, &args.map).await?;
    let op = Op::Increment { map: args.map.clone(), key: key_bytes(&args.key, map.as_ref())?, delta: args.delta };
    let reply = client.write_with(op, Some(ValueCodec::Utf8), args.affinity.options()).await?;
    let ReplyBody::Number { value, revision } = reply.body else {
        return Err(Error::internal("a reply of another kind"));
    };
    if args.connection.json {
        let fields = json!({ "map": args.map, "key": args.key, "value": value, "revision": revision });
        return output::json(out, &output::with(fields, output::served(&reply.served, true)));
    }
    output::line(out, &value.to_string())
}
