//! Client channels: tonic over a connection that the network port makes.

use super::{GatedIo, GrpcConfig, NodeExecutor};
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::net::Network;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};

/// Connects to `host:port`.
///
/// # Errors
/// `InvalidConfig` when the address is none, `PeerUnreachable` when nobody answers in time.
pub async fn channel(network: Arc<dyn Network>, address: &str, config: &GrpcConfig) -> Result<Channel> {
    let mut endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Error::new(Code::InvalidConfig, format!("not an address: {error}")).at(address))?
        .executor(NodeExecutor)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes);
    if let Some(period) = config.keepalive {
        endpoint = endpoint.http2_keep_alive_interval(period).keep_alive_timeout(period).keep_alive_while_idle(true);
    }
    let target: Arc<str> = address.into();
    let connector = tower::service_fn(move |_uri: http::Uri| {
        let (network, target) = (network.clone(), target.clone());
        async move { network.connect(&target).await.map(|io| TokioIo::new(GatedIo::new(io))) }
    });
    match clock::timeout(config.connect_timeout, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => {
            Err(Error::new(Code::PeerUnreachable, format!("no connection: {}", innermost(&error))).at(address))
        }
        Err(clock::Elapsed) => Err(Error::new(Code::PeerUnreachable, "no connection in time").at(address)),
    }
}

/// What really happened: tonic's own message says only "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
