//! The `--http` endpoints, for probes and Prometheus: `/healthz` (the process answers), `/readyz`
//! (the peer serves; else 503 and why not), `/metrics`.
//!
//! In: HTTP requests without a body. Out: text. Never changes anything.

use crate::net::{BoxIo, Listener};
use crate::node::GridService;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::future::Future;
use std::io;
use std::sync::Arc;

/// The content type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves the endpoints until `shutdown`.
///
/// # Errors
/// What the network says.
pub async fn serve(
    listener: Box<dyn Listener>,
    service: Arc<dyn GridService>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(Port { listener }, router(service)).with_graceful_shutdown(shutdown).await
}

fn router(service: Arc<dyn GridService>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(service)
}

async fn ready(State(service): State<Arc<dyn GridService>>) -> impl IntoResponse {
    match service.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(service): State<Arc<dyn GridService>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, PROMETHEUS)], service.metrics())
}

/// The network port's listener, as axum wants it.
struct Port {
    listener: Box<dyn Listener>,
}

impl axum::serve::Listener for Port {
    type Io = BoxIo;
    type Addr = String;

    async fn accept(&mut self) -> (BoxIo, String) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    // The usual cause, too few file descriptors, does not pass at once.
                    crate::clock::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.listener.local_addr())
    }
}
