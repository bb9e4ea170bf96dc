//! The embedded face: a peer inside the user's process. [`Grid::builder`] collects settings and
//! tasks, wires node, services and HTTP together, and gives a handle with clients and a shutdown.

mod builder;

pub use builder::GridBuilder;

use crate::client::{Client, ClientConfig, Codec, MapKey, TypedMap, TypedOptions, WatchBuilder};
use crate::compute;
use crate::error::Result;
use crate::node::{Ended, GridService, LocalEntry, Node, Ports};
use crate::types::PartitionId;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// A running peer, embedded.
pub struct Grid {
    node: Arc<Node>,
    ports: Ports,
    http: Option<String>,
    stop_http: CancellationToken,
    /// The client behind maps and tasks, connected when it is first used.
    own_client: OnceCell<Client>,
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

    async fn own_client(&self) -> Result<&Client> {
        compute::refuse_inside_task("a request to the grid")?;
        self.own_client.get_or_try_init(|| self.client()).await
    }

    /// A map of typed keys and values; created if there is none.
    ///
    /// # Errors
    /// As [`TypedMap::open`] and [`Grid::client`].
    pub async fn map<K, V>(&self, name: &str) -> Result<TypedMap<K, V>>
    where
        K: MapKey + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        TypedMap::open(self.own_client().await?.clone(), name).await
    }

    /// A map of typed keys and values with another codec, a schema version, or options.
    ///
    /// # Errors
    /// As [`TypedMap::open_with`] and [`Grid::client`].
    pub async fn map_with<K, V, C>(&self, name: &str, options: TypedOptions) -> Result<TypedMap<K, V, C>>
    where
        K: MapKey + ?Sized,
        C: Codec<V>,
    {
        TypedMap::open_with(self.own_client().await?.clone(), name, options).await
    }

    /// An entry of a replicated map from this peer's own copy, once that is of `at_least` this
    /// revision; 0 does not wait for any. The answer names the revision that the copy is of.
    ///
    /// # Errors
    /// `NoSuchMap`, `NoLocalCopy`, `DeadlineExceeded`.
    pub async fn get_local(
        &self,
        map: &str,
        key: impl AsRef<[u8]>,
        at_least: u64,
        at_most: Duration,
    ) -> Result<LocalEntry> {
        self.node.get_local(map, Bytes::copy_from_slice(key.as_ref()), at_least, at_most).await
    }

    /// Follows a map's changes, through this peer first.
    ///
    /// # Errors
    /// As [`Grid::client`].
    pub async fn watch(&self, map: &str) -> Result<WatchBuilder> {
        Ok(self.own_client().await?.watch(map))
    }

    /// Runs a task beside its key, wherever that is led.
    ///
    /// # Errors
    /// As [`Client::submit`] and [`Grid::client`].
    pub async fn submit<In, Out>(&self, name: &str, key: impl AsRef<[u8]>, input: &In) -> Result<Out>
    where
        In: Serialize,
        Out: DeserializeOwned,
    {
        self.own_client().await?.submit(name, key, input).await
    }

    /// Runs a partition task on every partition: once on each, whatever fails in between.
    ///
    /// # Errors
    /// As [`Client::broadcast_typed`] and [`Grid::client`].
    pub async fn broadcast<In, Out>(&self, name: &str, input: &In) -> Result<Vec<(PartitionId, Out)>>
    where
        In: Serialize,
        Out: DeserializeOwned,
    {
        self.own_client().await?.broadcast_typed(name, input).await
    }

    /// Runs a scatter: a step on every partition, reduced to one answer.
    ///
    /// # Errors
    /// As [`Client::scatter_typed`] and [`Grid::client`].
    pub async fn scatter<In: Serialize, Out: DeserializeOwned>(&self, name: &str, input: &In) -> Result<Out> {
        self.own_client().await?.scatter_typed(name, input).await
    }

    /// Runs a job task beside the leader of its key's partition, and waits for its end.
    ///
    /// # Errors
    /// As [`Client::run_job`] and [`Grid::client`].
    pub async fn run_job<In, Out>(&self, name: &str, key: impl AsRef<[u8]>, input: &In, time: Duration) -> Result<Out>
    where
        In: Serialize,
        Out: DeserializeOwned,
    {
        self.own_client().await?.run_job(name, key, input, time).await
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
