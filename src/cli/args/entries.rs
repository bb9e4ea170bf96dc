//! Options of the commands on single entries, and the levels of reads and writes.

use super::Connection;
use crate::cli::walk_args::Conditions;
use crate::client::CallOptions;
use crate::types::{AckLevel, ReadLevel};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// On disk at a majority of the partition's replicas
    #[default]
    MajorityFsync,
    /// The leader has it; it may be lost
    Accepted,
}

impl From<Ack> for AckLevel {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::MajorityFsync => AckLevel::MajorityFsync,
            Ack::Accepted => AckLevel::Accepted,
        }
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Fresh {
    /// Sees every write acknowledged before the read began
    #[default]
    Linearizable,
    /// From the asked peer's own replica, without asking others; may be old
    Local,
}

impl From<Fresh> for ReadLevel {
    fn from(read: Fresh) -> Self {
        match read {
            Fresh::Linearizable => ReadLevel::Linearizable,
            Fresh::Local => ReadLevel::Local,
        }
    }
}

/// What decides where an entry lives.
#[derive(Clone, Debug, Default, Args)]
pub struct Affinity {
    /// What decides where the key lives, instead of the key; all that ask for it must name the same
    #[arg(long, allow_hyphen_values = true)]
    pub affinity: Option<String>,
}

impl Affinity {
    pub(in crate::cli) fn bytes(&self) -> Option<Bytes> {
        self.affinity.as_ref().map(|text| Bytes::copy_from_slice(text.as_bytes()))
    }

    pub(in crate::cli) fn options(&self) -> CallOptions {
        CallOptions { affinity: self.bytes(), ..CallOptions::default() }
    }
}

/// `put`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead put orders 42 open")]
pub struct PutArgs {
    /// The map
    pub map: String,
    /// The key; what stands in {braces} decides where it lives
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// The value, as text; encoded as the map's codec wants it
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// How long the entry lives, such as 90s or 10m; 0s: for good [default: as the map says]
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub ttl: Option<Duration>,
    /// What must hold.
    #[command(flatten)]
    pub conditions: Conditions,
    /// When the write is acknowledged
    #[arg(long, value_enum, default_value_t)]
    pub ack: Ack,
    /// Where it lives.
    #[command(flatten)]
    pub affinity: Affinity,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `touch`.
#[derive(Debug, Args)]
#[command(after_help = "\
The entry keeps its value and gets a new revision.

Example:
  keystead touch sessions 42 --ttl 30m")]
pub struct TouchArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// How long the entry lives from now on; 0s: for good [default: as the map says]
    #[arg(long, value_name = "TIME", value_parser = crate::config::parse_duration)]
    pub ttl: Option<Duration>,
    /// Where it lives.
    #[command(flatten)]
    pub affinity: Affinity,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `get`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead get orders 42")]
pub struct KeyArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// Read the asked peer's copy of a replicated map
    #[arg(long, conflicts_with = "affinity")]
    pub local: bool,
    /// With --local: wait until the copy is of this revision, that of a write of one's own, say
    #[arg(long, value_name = "REVISION", requires = "local", default_value_t = 0)]
    pub at_least: u64,
    /// How fresh the value must be
    #[arg(long, value_enum, default_value_t)]
    pub read: Fresh,
    /// Where it lives.
    #[command(flatten)]
    pub affinity: Affinity,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead delete orders 42")]
pub struct DeleteArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// What must hold.
    #[command(flatten)]
    pub conditions: Conditions,
    /// When the deletion is acknowledged
    #[arg(long, value_enum, default_value_t)]
    pub ack: Ack,
    /// Where it lives.
    #[command(flatten)]
    pub affinity: Affinity,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}

/// `incr`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  keystead incr visits home 5")]
pub struct IncrArgs {
    /// The map
    pub map: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// What to add
    #[arg(default_value_t = 1, allow_hyphen_values = true)]
    pub delta: i64,
    /// When the sum is acknowledged
    #[arg(long, value_enum, default_value_t)]
    pub ack: Ack,
    /// Where it lives.
    #[command(flatten)]
    pub affinity: Affinity,
    /// Where and how.
    #[command(flatten)]
    pub connection: Connection,
}
