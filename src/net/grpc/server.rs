//! The accept loop. It is written here rather than taken from tonic because tonic spawns each
//! connection with `tokio::spawn`, outside the node's gate.

use super::door::Door;
use super::{GatedIo, GrpcConfig, NodeExecutor};
use crate::clock;
use crate::net::{BoxIo, Listener};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Pause after a failed accept: the usual cause, too few file descriptors, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection beyond the limit may take to ask for something that is reserved.
const FIRST_CALL_CROWDED: Duration = Duration::from_secs(1);

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
    let room = Room::new(&config);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&mut listener) => accepted,
        };
        let Some(io) = accepted else { continue };
        let Some((place, only)) = room.place() else {
            tracing::debug!("a connection was closed: there is no place for it");
            continue;
        };
        let door = Door::new(routes.clone(), only);
        let connection = serve_connection(GatedIo::new(io), door, only.is_some(), config.clone(), stopping.clone());
        let alive = alive.clone();
        clock::spawn(async move {
            connection.await;
            drop((place, alive));
        });
    }
    drop((alive, listener));
    stopping.cancel();
    all_ended.recv().await;
}

/// The places for connections.
struct Room {
    any: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    /// What may be called on a connection beyond the limit, and the limit.
    only: (&'static str, usize),
}

impl Room {
    fn new(config: &GrpcConfig) -> Self {
        Room {
            any: Arc::new(Semaphore::new(config.max_connections)),
            reserved: Arc::new(Semaphore::new(config.reserved_connections)),
            only: (config.reserved, config.max_connections),
        }
    }

    /// A place, and what alone may be called there; `None` when there is none left.
    fn place(&self) -> Option<(OwnedSemaphorePermit, Option<(&'static str, usize)>)> {
        if let Ok(place) = self.any.clone().try_acquire_owned() {
            return Some((place, None));
        }
        let place = self.reserved.clone().try_acquire_owned().ok()?;
        Some((place, Some(self.only)))
    }
}

async fn accept(listener: &mut Box<dyn Listener>) -> Option<BoxIo> {
    match listener.accept().await {
        Ok((io, from)) => {
            tracing::trace!(from, "connection accepted");
            Some(io)
        }
        Err(error) => {
            tracing::warn!(%error, "no connection could be accepted");
            clock::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Waits until nothing has been asked for too long, or a call has been refused.
async fn unwanted(door: Door, within: Duration) {
    let silent = async {
        clock::sleep(within).await;
        if door.was_asked() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = door.refused() => {}
        () = silent => {}
    }
}

async fn serve_connection(io: GatedIo, door: Door, crowded: bool, config: GrpcConfig, stopping: CancellationToken) {
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
    let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(door.clone()));
    let mut connection = std::pin::pin!(connection);
    let first_call = if crowded { config.first_call.min(FIRST_CALL_CROWDED) } else { config.first_call };
    let ended = tokio::select! {
        biased;
        () = stopping.cancelled() => None,
        () = unwanted(door, first_call) => None,
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
