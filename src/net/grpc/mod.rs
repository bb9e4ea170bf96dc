//! gRPC over the [`Network`](crate::net::Network) port: one listening address for clients and
//! peers, and client channels through a connector.
//!
//! In: connections and tonic services. Out: a served address, and channels to others. Every task
//! that HTTP/2 needs is spawned by [`crate::clock::spawn`], and each connection's bytes pass a
//! [`GatedIo`], so that a node paused in the simulator neither answers nor sends. This module
//! never knows which services it serves.

mod channel;
mod door;
mod gated;
mod server;

pub use channel::channel;
pub use door::CODE_METADATA;
pub use gated::GatedIo;
pub use server::serve;
pub use tonic::service::Routes;

use crate::clock;
use std::future::Future;
use std::time::Duration;

/// Limits and timings of gRPC connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// HTTP/2 flow-control window of one stream. Default 4 MiB: the protocol's 64 KiB throttles
    /// batches.
    pub stream_window_bytes: u32,
    /// HTTP/2 flow-control window of one connection. Default 8 MiB.
    pub connection_window_bytes: u32,
    /// The largest message that is sent or accepted; each service and client is to be built with
    /// it. Default 32 MiB.
    pub max_message_bytes: usize,
    /// Concurrent streams that a client may open on one connection. Default 1024.
    pub max_streams: u32,
    /// Connections that are served at once; on further ones only `reserved` calls are. Default 4096.
    pub max_connections: usize,
    /// Calls whose path begins so have places of their own, so that no crowd of clients keeps a
    /// node's peers out. Default: what peers call.
    pub reserved: &'static str,
    /// Connections beyond `max_connections`, for reserved calls; further ones are closed at once.
    /// Default 256.
    pub reserved_connections: usize,
    /// A connection on which nothing has been asked for so long is closed. Default 10 s; 1 s on
    /// those beyond `max_connections`.
    pub first_call: Duration,
    /// How long a connection may stay silent before HTTP/2 asks whether the other side lives;
    /// `None` (the simulator's choice) never asks. Default 10 s.
    pub keepalive: Option<Duration>,
    /// How long a connection attempt may take. Default 1 s.
    pub connect_timeout: Duration,
    /// How long requests under way may take to end at shutdown. Default 2 s.
    pub shutdown_grace: Duration,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        GrpcConfig {
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 8 << 20,
            max_message_bytes: 32 << 20,
            max_streams: 1024,
            max_connections: 4096,
            reserved: "/keystead.peer.",
            reserved_connections: 256,
            first_call: Duration::from_secs(10),
            keepalive: Some(Duration::from_secs(10)),
            connect_timeout: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(2),
        }
    }
}

/// Lets HTTP/2 spawn its tasks where the node's own run.
#[derive(Clone, Copy, Debug)]
struct NodeExecutor;

impl<F> hyper::rt::Executor<F> for NodeExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(clock::spawn(future));
    }
}

#[cfg(test)]
mod tests;
