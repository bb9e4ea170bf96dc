//! Printing: tables, JSON, values.

use crate::error::{Code, Error, Result};
use crate::types::{Served, StoredValue, Value, ValueCodec};
use serde_json::{Map, json};
use std::io::{ErrorKind, Write};

/// Writes bytes; a reader that has gone away (`| head`) is no failure.
pub(super) fn print(out: &mut (dyn Write + Send), bytes: &[u8]) -> Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(Code::Internal, format!("standard output: {error}")).remedy(""))
        }
        _ => Ok(()),
    }
}

/// Writes one line.
pub(super) fn line(out: &mut (dyn Write + Send), text: &str) -> Result<()> {
    print(out, format!("{text}\n").as_bytes())
}

/// Writes JSON, on one line.
pub(super) fn json(out: &mut (dyn Write + Send), value: &serde_json::Value) -> Result<()> {
    line(out, &value.to_string())
}

/// Writes an aligned table; columns named in `right` stand right-aligned.
pub(super) fn table(out: &mut (dyn Write + Send), head: &[&str], right: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head_row: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&head_row).chain(rows) {
        let cell = |(at, cell): (usize, &String)| {
            let width = widths.get(at).copied().unwrap_or(0);
            let to_right = head.get(at).is_some_and(|name| right.contains(name));
            if to_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    print(out, text.as_bytes())
}

/// A value as JSON: text and numbers as themselves, JSON and MessagePack as what they hold, other
/// bytes in hex.
pub(super) fn value_json(value: &Value) -> serde_json::Value {
    let text = || std::str::from_utf8(&value.data).ok();
    let shown = match value.codec {
        ValueCodec::Utf8 => text().map(Into::into),
        ValueCodec::Json => serde_json::from_slice(&value.data).ok(),
        ValueCodec::Msgpack => crate::types::msgpack::from_slice(&value.data).ok(),
        ValueCodec::I64 => number(value).map(Into::into),
        ValueCodec::Bytes => text().map(Into::into),
    };
    shown.unwrap_or_else(|| hex(&value.data).into())
}

/// Text as one field of one line: control characters and backslashes as Rust and JSON write them.
pub(super) fn one_line(text: &str) -> String {
    let escaped = |letter: char| match letter {
        '\\' => "\\\\".to_owned(),
        control if control.is_control() => control.escape_default().to_string(),
        other => other.to_string(),
    };
    text.chars().map(escaped).collect()
}

fn number(value: &Value) -> Option<i64> {
    value.data.as_ref().try_into().ok().map(i64::from_le_bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `get` prints: text with a line's end, a counter as a decimal; bytes and MessagePack
/// exactly as they are.
pub(super) fn raw(value: &Value) -> Vec<u8> {
    match value.codec {
        ValueCodec::Bytes | ValueCodec::Msgpack => value.data.to_vec(),
        ValueCodec::I64 => {
            number(value).map_or_else(|| value.data.to_vec(), |number| format!("{number}\n").into_bytes())
        }
        ValueCodec::Utf8 | ValueCodec::Json => [&value.data[..], b"\n"].concat(),
    }
}

/// An error for machines.
pub(super) fn error(error: &Error) -> serde_json::Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({ "error": {
        "code": error.code.to_string(),
        "what": error.what,
        "place": some(&error.place),
        "remedy": some(&error.remedy),
        "leader": error.leader,
        "exit_status": error.code.exit_status(),
    } })
}

/// Who served a request, for JSON output; the level only if something was written.
pub(super) fn served(served: &Served, wrote: bool) -> Map<String, serde_json::Value> {
    let mut fields = Map::new();
    fields.insert("served_by".into(), served.node.to_string().into());
    fields.insert("term".into(), served.term.into());
    fields.insert("hops".into(), served.hops.into());
    fields.insert("applied".into(), served.applied.into());
    if wrote {
        fields.insert("ack".into(), crate::api::wire::ack_level_name(served.ack).into());
    }
    fields
}

/// JSON fields of an entry, or of none.
pub(super) fn entry(entry: Option<&StoredValue>) -> serde_json::Value {
    match entry {
        None => serde_json::Value::Null,
        Some(stored) => json!({
            "value": value_json(&stored.value),
            "codec": stored.value.codec.name(),
            "schema": stored.value.schema,
            "revision": stored.revision,
        }),
    }
}

/// JSON: these fields and those of `more`.
pub(super) fn with(mut fields: serde_json::Value, more: Map<String, serde_json::Value>) -> serde_json::Value {
    if let serde_json::Value::Object(object) = &mut fields {
        object.extend(more);
    }
    fields
}
