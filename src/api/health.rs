//! The standard gRPC health service: serving while the peer is ready.

use crate::clock;
use crate::node::GridService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often a watcher's peer is looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(500);

/// The names that may be asked for; the empty one stands for the whole peer.
const KNOWN: [&str; 4] = ["", "keystead.v1.Kv", "keystead.v1.Tasks", "keystead.v1.Cluster"];

pub(super) struct ReadyHealth {
    service: Arc<dyn GridService>,
}

pub(super) fn server(service: Arc<dyn GridService>) -> HealthServer<ReadyHealth> {
    HealthServer::new(ReadyHealth { service })
}

fn current(service: &Arc<dyn GridService>) -> HealthCheckResponse {
    let status = if service.ready().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

fn known(name: &str) -> bool {
    KNOWN.contains(&name)
}

#[tonic::async_trait]
impl Health for ReadyHealth {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !known(&request.get_ref().service) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(current(&self.service)))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let service = self.service.clone();
        let known = known(&request.get_ref().service);
        clock::spawn(async move {
            let mut told = None;
            loop {
                let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
                let now = if known { current(&service) } else { unknown };
                if told.as_ref() != Some(&now) {
                    if sender.send(Ok(now)).await.is_err() {
                        return;
                    }
                    told = Some(now);
                }
                tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    () = clock::sleep(WATCH_PERIOD) => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
