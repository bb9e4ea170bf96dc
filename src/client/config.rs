//! The client's settings.

use crate::types::{AckLevel, ReadLevel};
use std::time::Duration;

/// The client's settings and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Time for a request, retries included, when the call names none. Default 10 s.
    pub deadline: Duration,
    /// Time for a scatter with typed answer, retries included. Default 60 s.
    pub scatter_deadline: Duration,
    /// How fresh a read must be when the call does not say. Default linearizable.
    pub read: ReadLevel,
    /// When a write is acknowledged when the call does not say. Default majority-fsync.
    pub ack: AckLevel,
    /// Time to find a first peer. Default 5 s.
    pub connect_deadline: Duration,
    /// How long one attempt may take before its stream is taken for broken. Default 3 s.
    pub attempt_timeout: Duration,
    /// The shortest pause before a retry; doubles up to the longest. Default 10 ms.
    pub backoff_min: Duration,
    /// The longest pause before a retry. Default 300 ms.
    pub backoff_max: Duration,
    /// Requests that may be unanswered at once; further callers wait. Default 4096.
    pub max_outstanding: usize,
    /// Most requests in one message. Default 256.
    pub max_batch_requests: usize,
    /// Bytes at which a message is sent without waiting for more. Default 64 KiB.
    pub max_batch_bytes: usize,
    /// The largest request, in bytes: larger ones are refused here, since a peer would end the
    /// stream. Default 4 MiB.
    pub max_request_bytes: usize,
    /// How long a message waits for more requests. Default 0: whatever waits when the sender gets
    /// to it travels together.
    pub linger: Duration,
    /// Whether a write to a map that does not exist creates it, with utf8 keys and the value's
    /// codec. Default no.
    pub create_maps: bool,
    /// The largest message that is taken from a peer. Default 64 MiB.
    pub max_message_bytes: usize,
    /// How often HTTP/2 asks whether a silent peer lives; `None` (the simulator's choice) never
    /// asks. Default 2 s.
    pub keepalive: Option<Duration>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            deadline: Duration::from_secs(10),
            scatter_deadline: Duration::from_secs(60),
            read: ReadLevel::Linearizable,
            ack: AckLevel::MajorityFsync,
            connect_deadline: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(300),
            max_outstanding: 4096,
            max_batch_requests: 256,
            max_batch_bytes: 64 << 10,
            max_request_bytes: 4 << 20,
            linger: Duration::ZERO,
            create_maps: false,
            max_message_bytes: 64 << 20,
            keepalive: Some(Duration::from_secs(2)),
        }
    }
}
