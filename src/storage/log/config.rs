//! The log's settings, each with its default and the bound that it sets.

use crate::error::{Code, Error, Result};
use std::time::Duration;

/// Settings of the shared log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment this large is closed and the next one begun; later, if the checkpoint at its start
    /// would be more than a quarter of it. Default 64 MiB.
    pub segment_bytes: u64,
    /// Bytes that may wait to be written; writers wait beyond it. Also the largest write. Default 32 MiB.
    pub queue_bytes: u32,
    /// Requests that may wait to be written; writers wait beyond it. Default 16 384.
    pub queue_requests: u32,
    /// So many of the latest bytes of entries are kept in RAM for reads. Default 64 MiB.
    pub cache_bytes: u64,
    /// So many zeros are written behind a batch that reaches the file's end, at most a segment's bytes;
    /// 0 for none. Default 1 MiB.
    pub prepare_bytes: u32,
    /// While several requests share each sync, syncs begin at least so far apart. Default 100 µs.
    pub sync_spacing: Duration,
    /// After so long without a write the tail is sealed. Default 100 ms.
    pub seal_after: Duration,
    /// The files may hold twice the live bytes and this much more; at least four segments. Default 1 GiB.
    pub slack_bytes: u64,
    /// How many bytes of live entries one clean-up step moves, between two writes. Default 4 MiB.
    pub move_bytes: u64,
    /// While the disk is full, how often it is probed for room. Default 1 s.
    pub probe_every: Duration,
    /// The disk counts as full until so many bytes can be written to it. Default 1 MiB.
    pub probe_bytes: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 64 << 20,
            queue_bytes: 32 << 20,
            queue_requests: 16_384,
            cache_bytes: 64 << 20,
            prepare_bytes: 1 << 20,
            sync_spacing: Duration::from_micros(100),
            seal_after: Duration::from_millis(100),
            slack_bytes: 1 << 30,
            move_bytes: 4 << 20,
            probe_every: Duration::from_secs(1),
            probe_bytes: 1 << 20,
        }
    }
}

impl LogConfig {
    /// Zeros to write ahead.
    pub(super) fn ahead(&self) -> u64 {
        u64::from(self.prepare_bytes).min(self.segment_bytes)
    }

    /// Refuses settings with which the log could not work: offsets within a segment are 32 bits.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: &str, place: &str| Err(Error::new(Code::InvalidConfig, what).at(place));
        if !(1024..=(1 << 30)).contains(&self.segment_bytes) {
            return wrong("a segment must have 1 KiB to 1 GiB", "segment_bytes");
        }
        if !(1024..=(1 << 30)).contains(&self.queue_bytes) {
            return wrong("the queue must have 1 KiB to 1 GiB", "queue_bytes");
        }
        if self.queue_requests == 0 || self.queue_requests > self.queue_bytes {
            return wrong("the queue must take at least one request, and at most one a byte", "queue_requests");
        }
        if self.slack_bytes / 4 < self.segment_bytes {
            return wrong("the slack must have room for four segments", "slack_bytes");
        }
        if self.move_bytes == 0 || self.seal_after.is_zero() || self.probe_every.is_zero() {
            return wrong("move_bytes, seal_after and probe_every must not be zero", "log");
        }
        Ok(())
    }
}
