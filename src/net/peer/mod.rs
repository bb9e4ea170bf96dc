//! Connections between peers: one multiplexed stream for each ordered pair of peers and lane.
//!
//! In: calls (group, kind, payload, deadline) to a node or an address. Out: the answer, or a typed
//! error that says whether the call can have been heard: `PeerUnreachable` (not delivered),
//! `DeadlineExceeded` and `OutcomeUnknown` (perhaps delivered), or whatever the other side's
//! [`PeerHandler`] answered. Lanes are separate connections, so that a snapshot never delays a
//! heartbeat. This module never looks into a payload and never retries.
//!
//! Frames of one lane arrive in the order sent, but each is handled by a task of its own: whoever
//! needs an order has one call outstanding at a time, as the Raft adapter does for appends.

mod client;
mod error_codec;
#[cfg(test)]
mod fuzz;
mod identity;
mod lane;
mod pack;
mod server;
mod stats;
mod transport;

pub use error_codec::{decode_error, encode_error};
pub use identity::{PROTOCOL_MAX, PROTOCOL_MIN, PeerIdentity};
pub use server::PeerService;
pub use stats::KindStats;
pub use transport::PeerTransport;

use super::grpc::GrpcConfig;
use crate::error::Result;
use crate::types::{GroupId, NodeId};
use bytes::Bytes;
use std::time::Duration;

/// Which connection a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes and heartbeats: small and urgent.
    Control,
    /// Log entries.
    Append,
    /// Snapshots.
    Bulk,
    /// Requests forwarded for clients, and what tasks and jobs send.
    Request,
    /// Long polls of watches: they wait, and must not take the places of what does not.
    Watch,
}

/// A call whose answer may take long, and the question that tells in the meantime whether it can
/// still come.
#[derive(Clone, Debug)]
pub struct LongCall {
    /// What it asks.
    pub kind: u8,
    /// The rest, in the kind's own format.
    pub payload: Bytes,
    /// How long the answer is waited for.
    pub deadline: Duration,
    /// A small question that is asked on the same connection; any answer is a sign of life.
    pub sign: (u8, Bytes),
    /// The pause before each question, and the time that it has to be answered.
    pub every: Duration,
}

/// A call that has arrived.
#[derive(Clone, Debug)]
pub struct IncomingFrame {
    /// The group that it concerns.
    pub group: GroupId,
    /// What it asks.
    pub kind: u8,
    /// How long the caller waits; the handler's future is dropped after that.
    pub deadline: Duration,
    /// The rest, in the kind's own format.
    pub payload: Bytes,
}

/// Answers calls.
#[async_trait::async_trait]
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers one call. A caller without a grid (`from.grid` is `None`) may only be answered what
    /// founding and joining need. The future is dropped when the deadline is over.
    ///
    /// # Errors
    /// Any; the caller receives it as it is.
    async fn handle(&self, from: &PeerIdentity, frame: IncomingFrame) -> Result<Bytes>;
}

/// Where nodes are, according to gossip.
pub trait AddressBook: Send + Sync + 'static {
    /// The `host:port` of a node; asked at each new connection.
    fn address_of(&self, node: NodeId) -> Option<String>;
}

/// What the transport noticed; a hint, never a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A connection with this node ended without being asked to, or could not be made.
    Lost(NodeId),
    /// A connection with this node was made.
    Connected(NodeId),
}

/// Limits and timings of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The connections' own settings.
    pub grpc: GrpcConfig,
    /// How long connection and greeting may take together. Default 1 s.
    pub connect_timeout: Duration,
    /// The pause after a first failed attempt; it doubles with each further one. Default 100 ms.
    pub backoff_first: Duration,
    /// The longest pause between attempts. Default 1 s.
    pub backoff_max: Duration,
    /// A call that ends unanswered gives up its connection if nothing at all has arrived on it for
    /// so long while answers were due. Default 300 ms.
    pub stall_after: Duration,
    /// Unanswered calls per peer and lane. Default 4096.
    pub max_outstanding: usize,
    /// Bytes queued and not yet handed to the connection, per peer and lane. Default 64 MiB.
    pub max_queued_bytes: usize,
    /// The largest payload. Default 16 MiB; must lie below the largest gRPC message.
    pub max_payload_bytes: usize,
    /// Frames that wait together travel together up to this many bytes. Default 64 KiB.
    pub pack_bytes: usize,
    /// Calls from one peer and lane that are handled at once; more wait on the wire. Default 256.
    pub max_handlers: usize,
    /// Addresses of unknown nodes to which connections are kept. Default 32.
    pub max_addresses: usize,
}

impl Default for PeerConfig {
    fn default() -> Self {
        PeerConfig {
            grpc: GrpcConfig::default(),
            connect_timeout: Duration::from_secs(1),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            stall_after: Duration::from_millis(300),
            max_outstanding: 4096,
            max_queued_bytes: 64 << 20,
            max_payload_bytes: 16 << 20,
            pack_bytes: 64 << 10,
            max_handlers: 256,
            max_addresses: 32,
        }
    }
}

#[cfg(test)]
mod tests;
