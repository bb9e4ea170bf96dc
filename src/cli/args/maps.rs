//! Options of `create-map` and `watch`.

use super::Connection;
use crate::types::{Eviction, KeyCodec, ValueCodec};
use clap::Args;
use std::time::Duration;

/// `create-map`.
#[derive(Debug, Args)]
#[command(after_help = "\
Limits are of the whole map; each partition enforces its share.

Example:
  keystead create-map sessions --ttl 30m --max-bytes 64MiB --eviction lru")]
pub struct CreateMapArgs {
    /// The map's name
    pub map: String,
    /// How its keys are encoded: bytes, utf8 or i64
    #[arg(long, value_name = "CODEC", default_value = "utf8", value_parser = key_codec)]
    pub keys: KeyCodec,
    /// How its values are encoded: bytes, utf8, json, msgpack or i64
    #[arg(long, value_name = "CODEC", default_value = "utf8", value_parser = value_codec)]
    pub values: ValueCodec,
    /// Schema version of its values
    #[arg(long, default_value_t = 0)]
    pub schema: u32,
    /// How long an entry lives if its write names no time, such as 90s or 10m [default: it stays]
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub ttl: Option<Duration>,
    /// Entries that the map may hold [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_entries: Option<u64>,
    /// Bytes of keys and values that the map may hold, such as 64MiB [default: any number]
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    pub max_bytes: Option<u64>,
    /// What makes room at a limit: none, lru or lfu; with none a write is refused
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = eviction)]
    pub eviction: Eviction,
    /// Keep a copy of the map on every peer, to read from
    #[arg(long)]
    pub replicated: bool,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

fn key_codec(text: &str) -> Result<KeyCodec, String> {
    let all = [KeyCodec::Bytes, KeyCodec::Utf8, KeyCodec::I64];
    let named = all.into_iter().find(|codec| codec.name() == text);
    named.ok_or_else(|| format!("\"{text}\" is none of bytes, utf8 and i64"))
}

fn value_codec(text: &str) -> Result<ValueCodec, String> {
    let named = (0..=u8::MAX).map_while(ValueCodec::from_number).find(|codec| codec.name() == text);
    named.ok_or_else(|| format!("\"{text}\" is none of bytes, utf8, json, msgpack and i64"))
}

fn eviction(text: &str) -> Result<Eviction, String> {
    let named = [Eviction::None, Eviction::Lru, Eviction::Lfu].into_iter().find(|eviction| eviction.name() == text);
    named.ok_or_else(|| format!("\"{text}\" is none of none, lru and lfu"))
}

/// `watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each change comes once, in order for each key, also when peers fail. With --tokens the place behind
each message is printed; --from goes on there. The history is bounded: a watch that went on too late
fails with KS7001; with --snapshot it prints `reset` and the entries that are there instead.

Example:
  keystead watch orders --prefix 2026- --snapshot")]
pub struct WatchArgs {
    /// The map
    pub map: String,
    /// Only this key
    #[arg(long, conflicts_with = "prefix", allow_hyphen_values = true)]
    pub key: Option<String>,
    /// Only keys that start so
    #[arg(long, allow_hyphen_values = true)]
    pub prefix: Option<String>,
    /// What decides where the keys live, if their writes named it
    #[arg(long, allow_hyphen_values = true)]
    pub affinity: Option<String>,
    /// Go on behind this token
    #[arg(long, value_name = "TOKEN")]
    pub from: Option<String>,
    /// Begin with the entries that are there
    #[arg(long)]
    pub snapshot: bool,
    /// Print the token behind each message, too
    #[arg(long)]
    pub tokens: bool,
    /// End behind the message in which so many events have come
    #[arg(long, value_name = "EVENTS")]
    pub count: Option<u64>,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}
