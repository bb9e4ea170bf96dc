//! Bounds of a node, each with its default; the `[limits]` table of the configuration file.

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// Bounds of a node. Every one can be set in the `[limits]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest key or affinity, in bytes. Default 64 KiB, which is also the most.
    pub max_key_bytes: usize,
    /// The longest value, in bytes. Default 512 KiB, at most 768 KiB: with its key, of which every
    /// byte may have to be escaped, it must fit into one log entry of 1 MiB.
    pub max_value_bytes: usize,
    /// The longest task payload, in bytes. Default 512 KiB.
    pub max_payload_bytes: usize,
    /// Keys and values of one request that writes several entries, in bytes: they become one log
    /// entry. Default 960 KiB, which is also the most.
    pub max_write_bytes: usize,
    /// Most keys or entries of one request. Default 4096.
    pub max_keys_per_request: usize,
    /// Most entries of a page of a scan, and of one piece of clearing a map. Default 4096.
    pub max_page_entries: usize,
    /// Bytes of keys and values at which a page of a scan is full. Default 1 MiB.
    pub max_page_bytes: usize,
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
    /// Longest time that a scatter may take, in milliseconds. Default 10 min.
    pub max_scatter_deadline_ms: u32,
    /// Longest time that a job task may take, in milliseconds. Default a day.
    pub max_job_time_ms: u64,
    /// History of changes that is kept per partition for watches, in bytes. Default 64 MiB.
    pub feed_bytes_per_partition: usize,
    /// History of changes of all partitions that a peer holds, in bytes; the largest give way first.
    /// Default 256 MiB; beside a memory limit never more than a sixteenth of that.
    pub feed_bytes_per_node: usize,
    /// Watches that a peer serves at once. Default 1024.
    pub max_watches: usize,
    /// Bytes of events at which a message of a watch is full; at most the half of
    /// `max_message_bytes`. Default 1 MiB.
    pub watch_message_bytes: usize,
    /// A watch hears at least so often how far it has come, in milliseconds. Default 2 s.
    pub watch_progress_ms: u32,
    /// Pulls of other peers' watches that a peer answers at once. Default 1024.
    pub max_watch_pulls: usize,
    /// Bytes of keys and values that a replicated map may hold; every peer has a copy. Default 64 MiB.
    pub replicated_map_bytes: usize,
    /// Bytes of RAM that a peer's copies of all replicated maps may take. Default 512 MiB; beside a
    /// memory limit never more than a quarter of that. A copy for which there is no room is given up.
    pub replicated_bytes_per_node: usize,
    /// Client streams (`Exchange`) served at once, over all connections; further ones are refused.
    /// Default 4096.
    pub max_streams: usize,
    /// Unary calls under way at once, over all connections; further ones are refused. Default 8192.
    pub max_calls: usize,
    /// Streams and calls that one connection may have open; HTTP/2 tells the client. Default 1024.
    pub max_streams_per_connection: u32,
    /// Connections of clients; further ones are refused. Connections of peers have places of their
    /// own. Default 4096, and never more than half of the files that the process may open.
    pub max_connections: usize,
    /// A client that takes no replies for so long loses its stream, in milliseconds. Default 30 s.
    pub slow_client_ms: u32,
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

/// A log entry's own share of 1 MiB.
const MAX_WRITE: usize = (1 << 20) - (64 << 10);

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_key_bytes: 64 << 10,
            max_value_bytes: 512 << 10,
            max_payload_bytes: 512 << 10,
            max_write_bytes: MAX_WRITE,
            max_keys_per_request: 4096,
            max_page_entries: 4096,
            max_page_bytes: 1 << 20,
            max_message_bytes: 16 << 20,
            stream_in_flight: 4096,
            stream_reply_batch: 256,
            stream_reply_bytes: 1 << 20,
            max_answer_bytes: 32 << 20,
            default_deadline_ms: 10_000,
            max_deadline_ms: 60_000,
            max_scatter_deadline_ms: 600_000,
            max_job_time_ms: 86_400_000,
            feed_bytes_per_partition: 64 << 20,
            feed_bytes_per_node: 256 << 20,
            max_watches: 1024,
            watch_message_bytes: 1 << 20,
            watch_progress_ms: 2_000,
            max_watch_pulls: 1024,
            replicated_map_bytes: 64 << 20,
            replicated_bytes_per_node: 512 << 20,
            max_streams: 4096,
            max_calls: 8192,
            max_streams_per_connection: 1024,
            max_connections: 4096,
            slow_client_ms: 30_000,
            moves_per_grid: 32,
            moves_per_node: 16,
            move_settle_ms: 1_000,
            move_replace_after_ms: 60_000,
            move_abandon_after_ms: 10_000,
        }
    }
}

impl Limits {
    /// Refuses limits with which the peer could not serve.
    ///
    /// # Errors
    /// `InvalidConfig` names the limit and its bounds.
    pub fn check(&self) -> Result<()> {
        const GIB: u64 = 1 << 30;
        let bounds: [(&str, u64, u64, u64); 16] = [
            ("max_key_bytes", self.max_key_bytes as u64, 1, 64 << 10),
            ("max_value_bytes", self.max_value_bytes as u64, 1, 768 << 10),
            ("max_payload_bytes", self.max_payload_bytes as u64, 1, 8 << 20),
            ("max_write_bytes", self.max_write_bytes as u64, 1, MAX_WRITE as u64),
            ("max_keys_per_request", self.max_keys_per_request as u64, 1, 1 << 20),
            ("max_message_bytes", self.max_message_bytes as u64, 1 << 10, GIB),
            ("stream_in_flight", self.stream_in_flight as u64, 1, 1 << 20),
            ("stream_reply_batch", self.stream_reply_batch as u64, 1, 1 << 20),
            ("stream_reply_bytes", self.stream_reply_bytes as u64, 1, GIB),
            ("max_answer_bytes", self.max_answer_bytes as u64, 1 << 10, GIB),
            ("default_deadline_ms", self.default_deadline_ms.into(), 1, self.max_deadline_ms.into()),
            ("max_streams", self.max_streams as u64, 1, 1 << 20),
            ("max_calls", self.max_calls as u64, 1, 1 << 20),
            ("max_streams_per_connection", self.max_streams_per_connection.into(), 1, 1 << 20),
            ("max_connections", self.max_connections as u64, 1, 1 << 20),
            ("slow_client_ms", self.slow_client_ms.into(), 100, 3_600_000),
        ];
        for (name, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(Error::new(Code::InvalidConfig, format!("{value} is not within {least} to {most}"))
                    .at(format!("option limits.{name}")));
            }
        }
        Ok(())
    }

    /// The names of all limits, as the configuration file spells them.
    pub(super) fn names() -> Vec<String> {
        match serde_json::to_value(Limits::default()) {
            Ok(serde_json::Value::Object(fields)) => fields.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}
