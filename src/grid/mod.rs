//! The embedded face: a peer inside the user's process. [`Grid::builder`] collects settings and
//! tasks, wires node, services and HTTP together, and gives a handle with clients and a shutdown.

mod builder;

pub use builder::GridBuilder;

use crate::client::{Client, ClientConfig};
use crate::compute;
use crate::error::Result;
use crate::node::{Ended, GridService, Node, Ports};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A running peer, embedded.
pub struct Grid {
    node: Arc<Node>,
    ports: Ports,
    http: Option<String>,
    stop_http: CancellationToken,
    /// Kept so that a temporary data directory lives as long as the peer.
    _directory: Option<tempfile::TempDir>,
}

impl Grid {
    /// Starts to describe a peer.
    pub fn builder() -> GridBuilder {
        GridBuilder::default()
    }

    /// Where clients and peers reach the peer.
    pub fn address(&self) -> &str {
        self.node.address()
    }

    /// Where `/healthz`, `/readyz` and `/metrics` are served, if they are.
    pub fn http_address(&self) -> Option<&str> {
        self.http.as_deref()
    }

    /// The peer itself.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Waits until the peer serves.
    ///
    /// # Errors
    /// `NotReady` with the reason, when the time is over.
    pub async fn wait_ready(&self, at_most: Duration) -> Result<()> {
        self.node.wait_ready(at_most).await
    }

    /// A client of this grid, through this peer first.
    ///
    /// # Errors
    /// `RemoteCallInTask` inside a task's handler; what connecting says.
    pub async fn client(&self) -> Result<Client> {
        compute::refuse_inside_task("connecting a client")?;
        Client::builder()
            .config(ClientConfig::default())
            .network(self.ports.network.clone())
            .random(self.ports.random.clone())
            .connect(vec![self.address().to_owned()])
            .await
    }

    /// Waits for the end of the peer's life, by failure or [`Grid::shutdown`].
    pub async fn ended(&self) -> Ended {
        self.node.ended().await
    }

    /// Hands leaderships over and stops cleanly.
    pub async fn shutdown(self) {
        self.node.shutdown().await;
        self.stop_http.cancel();
    }
}
