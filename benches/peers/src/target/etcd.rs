//! etcd through gRPC: a unary `Put` or a linearizable `Range` per request, over as many HTTP/2
//! connections as the other systems get. The messages are written out here, with the numbers of
//! etcd's published API, so that nothing has to be generated.

use anyhow::{Context, Result};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// Connections to etcd's members.
#[derive(Clone)]
pub struct Etcd {
    channels: Arc<Vec<Channel>>,
    next: Arc<AtomicUsize>,
}

async fn unary<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.context("etcd's connection is not ready")?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let answer = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

async fn channel(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("etcd at {address} cannot be reached"))
}

/// The address of the leader among etcd's members, once they agree on one.
///
/// # Errors
/// When a member does not answer, or none leads yet.
pub async fn leader(addresses: &[String]) -> Result<String> {
    for address in addresses {
        let status: StatusResponse =
            unary(&channel(address).await?, "/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        if status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader) {
            return Ok(address.clone());
        }
    }
    anyhow::bail!("no etcd member leads yet")
}

impl Etcd {
    /// Opens connections, to these addresses by turns.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub async fn connect(addresses: &[String], connections: usize) -> Result<Self> {
        let mut channels = Vec::new();
        for address in addresses.iter().cycle().take(connections.max(1)) {
            channels.push(channel(address).await?);
        }
        Ok(Etcd { channels: Arc::new(channels), next: Arc::default() })
    }

    fn channel(&self) -> &Channel {
        &self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()]
    }

    pub(super) async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        let request = PutRequest { key: key.into(), value: value.into() };
        let _: PutResponse = unary(self.channel(), "/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    pub(super) async fn get(&self, key: String) -> Result<Option<usize>> {
        let request = RangeRequest { key: key.into() };
        let answer: RangeResponse = unary(self.channel(), "/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.first().map(|entry| entry.value.len()))
    }
}
