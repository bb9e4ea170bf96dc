//! What every call of a connection passes: it notes that something was asked, and on a connection
//! beyond the limit lets only reserved calls through.
//!
//! In: HTTP requests of one connection. Out: the same to the routes, or a refusal with a code.

use crate::error::{Code, Error};
use futures::future::{Either, Ready, ready};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::sync::Notify;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic::service::Routes;

/// The metadata key that carries the `KSnnnn` code of a refused call.
pub const CODE_METADATA: &str = "keystead-code";

/// A connection's door to the routes.
#[derive(Clone)]
pub(super) struct Door {
    routes: Routes,
    /// Over the limit: only calls of this path may pass, and this is the limit.
    only: Option<(&'static str, usize)>,
    asked: Arc<AtomicBool>,
    refused: Arc<Notify>,
}

impl Door {
    pub(super) fn new(routes: Routes, only: Option<(&'static str, usize)>) -> Self {
        Door { routes, only, asked: Arc::default(), refused: Arc::default() }
    }

    /// Whether anything that may pass was asked.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits until a call has been refused.
    pub(super) async fn refused(&self) {
        self.refused.notified().await;
    }
}

type Answer = http::Response<tonic::body::Body>;

impl<B> tower::Service<http::Request<B>> for Door
where
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Either<<Routes as tower::Service<http::Request<B>>>::Future, Ready<Result<Answer, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        tower::Service::<http::Request<B>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if let Some((path, most)) = self.only
            && !request.uri().path().starts_with(path)
        {
            self.refused.notify_one();
            return Either::Right(ready(Ok(refusal(most))));
        }
        self.asked.store(true, Ordering::Relaxed);
        Either::Left(self.routes.call(request))
    }
}

fn refusal(most: usize) -> Answer {
    let error = Error::new(Code::Overloaded, format!("this peer serves {most} connections, its limit"))
        .remedy("use one connection for many calls, ask another peer, or raise max_connections in the [limits] table");
    let mut status = Status::new(tonic::Code::from_i32(error.code.grpc()), error.to_string());
    if let Ok(code) = MetadataValue::try_from(error.code.to_string()) {
        status.metadata_mut().insert(CODE_METADATA, code);
    }
    status.into_http()
}
