//! `watch`: prints a map's changes as they come.

use super::args::WatchArgs;
use super::{entries, output};
use crate::client::Client;
use crate::error::Result;
use crate::types::{KeyCodec, MapDescriptor, WatchEvent, WatchKind, WatchToken};
use serde_json::json;
use std::io::Write;

pub(super) async fn watch(client: &Client, args: &WatchArgs, out: &mut (dyn Write + Send)) -> Result<()> {
    let map = entries::descriptor(client, &args.map).await?;
    let mut builder = client.watch(&args.map);
    if let Some(key) = &args.key {
        builder = builder.key(entries::key_bytes(key, map.as_ref())?);
    }
    if let Some(prefix) = &args.prefix {
        builder = builder.prefix(prefix);
    }
    if let Some(affinity) = &args.affinity {
        builder = builder.affinity(affinity.clone());
    }
    if let Some(token) = &args.from {
        builder = builder.from(WatchToken::from_text(token)?);
    }
    if args.snapshot {
        builder = builder.snapshot();
    }
    let mut watch = builder.start();
    let mut seen = 0;
    loop {
        let message = watch.next().await?;
        seen += message.events.len() as u64;
        for event in &message.events {
            print(event, map.as_ref(), args, out)?;
        }
        if args.tokens {
            let text = message.token.to_text();
            match args.connection.json {
                true => output::json(out, &json!({ "event": "token", "token": text, "live": message.live }))?,
                false => output::line(out, &format!("token {text}"))?,
            }
        }
        if args.count.is_some_and(|count| seen >= count) {
            return Ok(());
        }
    }
}

fn print(
    event: &WatchEvent,
    map: Option<&MapDescriptor>,
    args: &WatchArgs,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    let key = match map.map(|map| map.key_codec) {
        Some(KeyCodec::I64) => crate::client::FromKey::from_key(&event.key).map(|key: i64| key.to_string()),
        _ => None,
    };
    let key = key.unwrap_or_else(|| String::from_utf8_lossy(&event.key).into_owned());
    let (what, value, cause) = match &event.kind {
        WatchKind::Entry(value) => ("entry", Some(value), None),
        WatchKind::Put(value) => ("put", Some(value), None),
        WatchKind::Removed(cause) => ("removed", None, Some(cause.name())),
        WatchKind::Reset => ("reset", None, None),
    };
    if args.connection.json {
        let mut fields = json!({
            "event": what,
            "map": args.map,
            "key": key,
            "partition": event.partition.0,
            "revision": event.revision,
            "time_ms": event.time_ms,
        });
        if let Some(value) = value {
            fields["value"] = output::value_json(value);
            fields["codec"] = value.codec.name().into();
        }
        if let Some(cause) = cause {
            fields["cause"] = cause.into();
        }
        return output::json(out, &fields);
    }
    let value = value.map(|value| match output::value_json(value) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    });
    let rest = value.or_else(|| cause.map(|cause| format!("({cause})"))).unwrap_or_default();
    output::line(out, format!("{what} {key} {rest}").trim_end())
}
