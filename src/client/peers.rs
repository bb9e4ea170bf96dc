//! Connections to peers, shared by streams and unary calls.

use super::config::ClientConfig;
use super::core::Peer;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::net::Network;
use crate::net::grpc::{self, GrpcConfig};
use crate::node::PlacementTable;
use crate::types::HybridTime;
use grid_proto::keystead::v1;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;
use v1::cluster_client::ClusterClient;

/// The most time for one request to a peer about the grid.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The time for one of the requests of a round, of which `further` peers are still to be asked: a
/// peer that hangs leaves at least half of what there is to the next.
pub(super) fn share(give_up: Instant, further: usize) -> Duration {
    let left = give_up.saturating_duration_since(Instant::now());
    if further == 0 { left } else { left / 2 }
}

/// Connections by address, made when first asked for.
pub(super) struct Peers {
    network: Arc<dyn Network>,
    grpc: GrpcConfig,
    max_message_bytes: usize,
    channels: Mutex<BTreeMap<Peer, Channel>>,
}

impl Peers {
    pub(super) fn new(network: Arc<dyn Network>, config: &ClientConfig) -> Self {
        let grpc = GrpcConfig { keepalive: config.keepalive, ..GrpcConfig::default() };
        let channels = Mutex::new(BTreeMap::new());
        Peers { network, grpc, max_message_bytes: config.max_message_bytes, channels }
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<Peer, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a peer.
    pub(super) async fn channel(&self, peer: &Peer) -> Result<Channel> {
        if let Some(channel) = self.channels().get(peer) {
            return Ok(channel.clone());
        }
        let channel = grpc::channel(self.network.clone(), peer, &self.grpc).await?;
        Ok(self.channels().entry(peer.clone()).or_insert(channel).clone())
    }

    /// Forgets the connection to a peer: the next request makes a new one.
    pub(super) fn forget(&self, peer: &Peer) {
        self.channels().remove(peer);
    }

    pub(super) async fn kv(&self, peer: &Peer) -> Result<v1::kv_client::KvClient<Channel>> {
        let client = v1::kv_client::KvClient::new(self.channel(peer).await?);
        Ok(client.max_decoding_message_size(self.max_message_bytes).max_encoding_message_size(usize::MAX))
    }

    pub(super) async fn tasks(&self, peer: &Peer) -> Result<v1::tasks_client::TasksClient<Channel>> {
        let client = v1::tasks_client::TasksClient::new(self.channel(peer).await?);
        Ok(client.max_decoding_message_size(self.max_message_bytes).max_encoding_message_size(usize::MAX))
    }

    pub(super) async fn watch(&self, peer: &Peer) -> Result<v1::watch_client::WatchClient<Channel>> {
        let client = v1::watch_client::WatchClient::new(self.channel(peer).await?);
        Ok(client.max_decoding_message_size(self.max_message_bytes).max_encoding_message_size(usize::MAX))
    }

    /// One call to a peer's `Cluster` service, within this time and [`CALL_TIMEOUT`].
    pub(super) async fn cluster<T, F>(
        &self,
        peer: &Peer,
        within: Duration,
        call: impl FnOnce(ClusterClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let asked = async {
            let client = ClusterClient::new(self.channel(peer).await?);
            let client = client.max_decoding_message_size(self.max_message_bytes);
            let answer = call(client).await.map_err(|status| crate::api::wire::error_from_status(&status))?;
            Ok(answer.into_inner())
        };
        let outcome = match clock::timeout(within.min(CALL_TIMEOUT), asked).await {
            Ok(outcome) => outcome,
            Err(clock::Elapsed) => Err(Error::new(Code::PeerUnreachable, "no answer in time").at(&**peer)),
        };
        if outcome.as_ref().is_err_and(|error| error.code == Code::PeerUnreachable) {
            self.forget(peer);
        }
        outcome
    }

    pub(super) async fn placement(&self, peer: &Peer, within: Duration) -> Result<PlacementTable> {
        let ask = |mut client: ClusterClient<Channel>| async move { client.placement(v1::PlacementRequest {}).await };
        self.cluster(peer, within, ask).await.and_then(crate::api::wire::placement_from_wire)
    }

    pub(super) async fn time(&self, peer: &Peer, within: Duration) -> Result<HybridTime> {
        let ask = |mut client: ClusterClient<Channel>| async move { client.time(v1::TimeRequest {}).await };
        self.cluster(peer, within, ask).await.map(|reply| HybridTime(reply.time))
    }
}
