//! `transact`, `scan`, `size`, `clear`, `drop`, `maps`.

use super::entries::{descriptor, key_bytes, value_of};
use super::output;
use super::walk_args::{ClearArgs, DropArgs, MapsArgs, ScanArgs, SizeArgs, TransactArgs};
use crate::client::{Client, Page, Transacted, shown_key};
use crate::error::{Code, Error, Result};
use crate::types::{Cursor, KeyCodec, MapDescriptor, ReadLevel, StoredValue};
use bytes::Bytes;
use serde_json::json;
use std::io::Write;

pub(super) async fn transact(client: &Client, args: &TransactArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = descriptor(client, &args.map).await?;
    let mut transaction = client.transaction(&args.map);
    for (key, revision) in &args.check {
        let key = key_bytes(key, map.as_ref())?;
        transaction = match revision {
            Some(revision) => transaction.check(key, *revision),
            None => transaction.check_absent(key),
        };
    }
    for (key, value) in &args.check_value {
        transaction = transaction.check_value(key_bytes(key, map.as_ref())?, value_of(value, map.as_ref())?);
    }
    for (key, value) in &args.put {
        transaction = transaction.put(key_bytes(key, map.as_ref())?, value_of(value, map.as_ref())?);
    }
    for key in &args.delete {
        transaction = transaction.delete(key_bytes(key, map.as_ref())?);
    }
    match transaction.commit().await? {
        Transacted::Written(written) if args.connection.json => {
            let fields = json!({ "map": args.map, "revision": written.revision });
            output::json(out, &output::with(fields, output::served(&written.served, true)))
        }
        Transacted::Written(written) => {
            let level = crate::api::wire::ack_level_name(written.served.ack);
            output::line(out, &format!("revision {} ({level})", written.revision))
        }
        Transacted::Refused { key, present, .. } => {
            let key = key_text(&key, map.as_ref());
            let is = present.map_or("is absent".to_owned(), |entry| format!("has revision {}", entry.revision));
            Err(Error::new(Code::ConditionFailed, format!("key \"{key}\" {is}")).at(format!("map {}", args.map)))
        }
    }
}

/// A key as the map's codec shows it.
fn key_text(key: &[u8], map: Option<&MapDescriptor>) -> String {
    shown_key(map.map_or(KeyCodec::Bytes, |map| map.key_codec), key)
}

fn token_text(cursor: &Cursor) -> String {
    cursor.to_token().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn print_entry(
    out: &mut (dyn Write + Send),
    key: &Bytes,
    entry: &StoredValue,
    map: Option<&MapDescriptor>,
) -> Result<()> {
    let shown = output::value_json(&entry.value);
    let shown = shown.as_str().map_or_else(|| shown.to_string(), output::one_line);
    output::line(out, &format!("{}\t{shown}", output::one_line(&key_text(key, map))))
}

pub(super) async fn scan(client: &Client, args: &ScanArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = descriptor(client, &args.map).await?;
    let mut from = args.token.clone();
    loop {
        let limit = args.limit.unwrap_or(0);
        let page = client.scan_page(&args.map, &args.prefix, from, limit, ReadLevel::Linearizable).await?;
        let Page { entries, next, .. } = page;
        // One object a line, so that a large map needs no memory here.
        for (key, entry) in &entries {
            match output::entry(Some(entry)) {
                serde_json::Value::Object(fields) if args.connection.json => {
                    output::json(out, &output::with(json!({ "key": key_text(key, map.as_ref()) }), fields))?;
                }
                _ => print_entry(out, key, entry, map.as_ref())?,
            }
        }
        match next {
            Some(next) if args.limit.is_some() => {
                let token = token_text(&next);
                return match args.connection.json {
                    true => output::json(out, &json!({ "next_token": token })),
                    false => output::line(out, &format!("-- more: --token {token}")),
                };
            }
            Some(next) => from = Some(next),
            None => return Ok(()),
        }
    }
}

pub(super) async fn size(client: &Client, args: &SizeArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let size = client.size(&args.map).await?;
    if args.connection.json {
        return output::json(out, &json!({ "map": args.map, "entries": size.entries, "bytes": size.bytes }));
    }
    output::line(out, &format!("{} entries, {} bytes as stored", size.entries, size.bytes))
}

pub(super) async fn clear(client: &Client, args: &ClearArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let deleted = client.clear(&args.map).await?;
    if args.connection.json {
        return output::json(out, &json!({ "map": args.map, "deleted": deleted }));
    }
    output::line(out, &format!("{deleted} entries deleted"))
}

pub(super) async fn drop(client: &Client, args: &DropArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let (map, pending) = client.drop_map(&args.map).await?;
    if args.connection.json {
        return output::json(out, &json!({ "map": map.name, "id": map.id.0, "pending_partitions": pending }));
    }
    let note = match pending {
        0 => String::new(),
        some => format!("; {some} partitions could not be asked yet and will follow"),
    };
    output::line(out, &format!("dropped{note}"))
}

pub(super) async fn maps(client: &Client, args: &MapsArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut sized = Vec::new();
    for map in client.maps().await? {
        match client.size(&map.name).await {
            Ok(size) => sized.push((map, size)),
            // Dropped meanwhile.
            Err(error) if error.code == Code::NoSuchMap => {}
            Err(error) => return Err(error),
        }
    }
    if args.connection.json {
        let one = |(map, size): &(MapDescriptor, crate::client::Size)| match super::maps::map_json(map) {
            serde_json::Value::Object(fields) => {
                output::with(json!({ "entries": size.entries, "bytes": size.bytes }), fields)
            }
            other => other,
        };
        return output::json(out, &sized.iter().map(one).collect());
    }
    let row = |(map, size): &(MapDescriptor, crate::client::Size)| {
        vec![
            map.name.clone(),
            map.key_codec.name().to_owned(),
            map.value_codec.name().to_owned(),
            map.schema.to_string(),
            size.entries.to_string(),
            size.bytes.to_string(),
            map.options.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = sized.iter().map(row).collect();
    let head = ["NAME", "KEYS", "VALUES", "SCHEMA", "ENTRIES", "BYTES", "OPTIONS"];
    output::table(out, &head, &["SCHEMA", "ENTRIES", "BYTES"], &rows)
}
