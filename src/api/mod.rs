//! The gRPC services of `keystead.v1`, health, reflection, and the HTTP endpoints: thin
//! translations over a [`GridService`].
//!
//! In: calls and streams of clients. Out: requests to the grid, and its replies and errors in the
//! client's terms. Never decides where a request runs, never keeps state of its own, and bounds
//! what one stream may have in flight ([`Limits`]).

pub mod authorize;
mod cluster;
mod exchange;
mod guard;
mod health;
pub mod http;
mod kv;
mod tasks;
mod under_way;
mod watch;
pub mod wire;

#[cfg(test)]
mod compute_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod testing_compute;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::node::{GridService, StreamReply};
use crate::types::{GroupId, Reply, Request};
use authorize::{Action, Principal, authorize};
use axum::middleware::from_fn_with_state;
use grid_proto::keystead::v1;
use guard::Guard;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use v1::cluster_server::ClusterServer;
use v1::kv_server::KvServer;
use v1::tasks_server::TasksServer;
use v1::watch_server::WatchServer;

/// Time after a request's deadline at which the edge answers for a grid that did not: a stream's
/// place is never lost to a request that hangs.
const DEADLINE_GRACE: Duration = Duration::from_millis(200);

/// What the services share: the grid behind them, and the bounds.
#[derive(Clone)]
struct Edge {
    service: Arc<dyn GridService>,
    limits: Arc<Limits>,
    /// Places for streams, over all connections.
    streams: Arc<Semaphore>,
}

impl Edge {
    /// Executes a request that came from a client.
    async fn execute(&self, request: Request) -> Result<Reply> {
        let resource = request.op.map().unwrap_or_default();
        let action = if request.op.is_read() { Action::Read } else { Action::Write };
        authorize(&Principal::Anonymous, action, resource)?;
        let is_read = request.op.is_read();
        let deadline = Duration::from_millis(request.deadline_ms.into()) + DEADLINE_GRACE;
        match clock::timeout(deadline, self.service.execute(request, 0)).await {
            Ok(outcome) => outcome,
            Err(clock::Elapsed) if is_read => Err(Error::new(Code::DeadlineExceeded, "no answer within the deadline")),
            Err(clock::Elapsed) => Err(Error::new(Code::OutcomeUnknown, "no answer within the deadline")),
        }
    }

    /// Takes a stream's request that the grid can execute here at once, and names its group.
    ///
    /// # Errors
    /// Gives it back otherwise.
    fn submit_here(&self, request: Request, reply: StreamReply) -> std::result::Result<GroupId, Box<Request>> {
        let resource = request.op.map().unwrap_or_default();
        let action = if request.op.is_read() { Action::Read } else { Action::Write };
        let refused = match authorize(&Principal::Anonymous, action, resource) {
            Ok(()) => match self.service.submit_here(request, reply) {
                Ok(group) => return Ok(group),
                Err(refused) => refused,
            },
            Err(_) => Box::new((request, reply)),
        };
        let (request, reply) = *refused;
        reply.withdraw();
        Err(Box::new(request))
    }

    /// Whether an answer of this size may be sent.
    fn check_answer(&self, bytes: usize) -> Result<()> {
        if bytes <= self.limits.max_answer_bytes {
            return Ok(());
        }
        let what = format!("the answer has {bytes} bytes; the limit is {}", self.limits.max_answer_bytes);
        Err(Error::new(Code::TooLarge, what)
            .remedy("ask for fewer keys at once, or raise max_answer_bytes in the config"))
    }
}

/// The services that clients use: Kv, Tasks, Cluster, health, reflection. A node adds its peer
/// service with [`Routes::add_service`] and serves the whole on one port.
///
/// # Errors
/// `Internal` when the embedded descriptors are not readable.
pub fn routes(service: Arc<dyn GridService>, limits: &Limits) -> Result<Routes> {
    let streams = Arc::new(Semaphore::new(limits.max_streams));
    let edge = Edge { service: service.clone(), limits: Arc::new(limits.clone()), streams };
    let bytes = limits.max_message_bytes;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(grid_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let unreadable = |error| Error::internal(format!("the embedded descriptors are not readable: {error}"));
    let current = reflection().build_v1().map_err(unreadable)?;
    // Python's reflection package, for one, knows nothing newer than this.
    let older = reflection().build_v1alpha().map_err(unreadable)?;
    // What is sent is bounded by the limits of keys and values, not by this size.
    let kv = KvServer::new(edge.clone()).max_decoding_message_size(bytes).max_encoding_message_size(usize::MAX);
    let tasks = TasksServer::new(edge.clone()).max_decoding_message_size(bytes).max_encoding_message_size(usize::MAX);
    let watch = WatchServer::new(edge.clone()).max_decoding_message_size(bytes).max_encoding_message_size(usize::MAX);
    let cluster = ClusterServer::new(edge).max_decoding_message_size(bytes).max_encoding_message_size(usize::MAX);
    let all = Routes::new(kv)
        .add_service(watch)
        .add_service(tasks)
        .add_service(cluster)
        .add_service(health::server(service))
        .add_service(current)
        .add_service(older);
    let guarded = from_fn_with_state(Guard::new(limits), guard::admit);
    Ok(all.into_axum_router().layer(guarded).into())
}
