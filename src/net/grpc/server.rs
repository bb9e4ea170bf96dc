//! The accept loop. It is written here rather than taken from tonic because tonic spawns each
//! connection with `tokio::spawn`, outside the node's gate.

use super::{GatedIo, GrpcConfig, NodeExecutor};
use crate::clock;
use crate::net::{BoxIo, Listener};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Pause after a failed accept: the usual cause, too few file descriptors, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves connections until `shutdown`, then lets requests under way end within the configured
/// grace. A long-lived stream takes all of it unless its service ends it.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    routes: Routes,
    config: GrpcConfig,
    shutdown: impl Future<Output = ()> + Send,
) {
    let routes = routes.prepare();
    let stopping = CancellationToken::new();
    // Ends when every connection's clone of the sender is gone.
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let room = Arc::new(Semaphore::new(config.max_connections));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&mut listener, &room) => accepted,
        };
        let Some((io, permit)) = accepted else { continue };
        let connection = serve_connection(GatedIo::new(io), routes.clone(), config.clone(), stopping.clone());
        let alive = alive.clone();
        clock::spawn(async move {
            connection.await;
            drop((permit, alive));
        });
    }
    drop((alive, listener));
    stopping.cancel();
    all_ended.recv().await;
}

async fn accept(
    listener: &mut Box<dyn Listener>,
    room: &Arc<Semaphore>,
) -> Option<(BoxIo, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((io, from)) => {
            tracing::trace!(from, "connection accepted");
            Some((io, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "no connection could be accepted");
            clock::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_connection(io: GatedIo, routes: Routes, config: GrpcConfig, stopping: CancellationToken) {
    let mut builder = Builder::new(NodeExecutor).http2_only();
    builder
        .http2()
        // The machine's clock would be read behind the port, and gRPC has no use for the header.
        .auto_date_header(false)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_concurrent_streams(config.max_streams);
    if let Some(period) = config.keepalive {
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(period).keep_alive_timeout(period);
    }
    let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = stopping.cancelled() => None,
        ended = connection.as_mut() => Some(ended),
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            clock::timeout(config.shutdown_grace, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
}
