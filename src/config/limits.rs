//! Bounds of a node, each with its default; the `[limits]` table of the configuration file.

use serde::{Deserialize, Serialize};

/// Bounds of a node. Every one can be set in the `[limits]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest key or affinity, in bytes. Default 64 KiB, less what a row key adds.
    pub max_key_bytes: usize,
    /// The longest value, in bytes. Default 1 MiB, less 64 KiB for what a log entry adds.
    pub max_value_bytes: usize,
    /// The longest task payload, in bytes. Default as `max_value_bytes`.
    pub max_payload_bytes: usize,
    /// Most keys or entries of one request. Default 4096.
    pub max_keys_per_request: usize,
    /// The largest gRPC message that is taken, in bytes. Default 16 MiB.
    pub max_message_bytes: usize,
    /// Requests in flight per client stream; further ones wait in the network. Default 4096.
    pub stream_in_flight: usize,
    /// Most replies in one message of a client stream. Default 256.
    pub stream_reply_batch: usize,
    /// Bytes at which a message of replies is full. Default 1 MiB.
    pub stream_reply_bytes: usize,
    /// The largest answer to one request, in bytes; a larger one becomes an error. Default 32 MiB.
    pub max_answer_bytes: usize,
    /// Time to answer a request that names none, in milliseconds. Default 10 s.
    pub default_deadline_ms: u32,
    /// Longest time to answer that a request may ask for, in milliseconds. Default 60 s.
    pub max_deadline_ms: u32,
    /// Partitions that move at once in the whole grid. Default 32.
    pub moves_per_grid: usize,
    /// Partitions that move at once to or from one peer. Default 16.
    pub moves_per_node: usize,
    /// How long the members must have been the same before anything moves, in milliseconds. Default 1 s.
    pub move_settle_ms: u64,
    /// How long a peer may be away before its replicas are created elsewhere, in milliseconds. Default 60 s.
    pub move_replace_after_ms: u64,
    /// How long a move waits for a newcomer that is away, in milliseconds. Default 10 s.
    pub move_abandon_after_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_key_bytes: (64 << 10) - 64,
            max_value_bytes: (1 << 20) - (64 << 10),
            max_payload_bytes: (1 << 20) - (64 << 10),
            max_keys_per_request: 4096,
            max_message_bytes: 16 << 20,
            stream_in_flight: 4096,
            stream_reply_batch: 256,
            stream_reply_bytes: 1 << 20,
            max_answer_bytes: 32 << 20,
            default_deadline_ms: 10_000,
            max_deadline_ms: 60_000,
            moves_per_grid: 32,
            moves_per_node: 16,
            move_settle_ms: 1_000,
            move_replace_after_ms: 60_000,
            move_abandon_after_ms: 10_000,
        }
    }
}

impl Limits {
    /// The names of all limits, as the configuration file spells them.
    pub(super) fn names() -> Vec<String> {
        match serde_json::to_value(Limits::default()) {
            Ok(serde_json::Value::Object(fields)) => fields.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}
