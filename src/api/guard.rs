//! What every gRPC call passes first: a limit on calls under way, and words for what tonic refuses
//! by itself (a message over the limit, one that cannot be read).
//!
//! In: calls of clients. Out: the same, or a status with a code. A call counts until its last reply
//! is out, so that streams count as long as they are open. Never looks into a message.

use super::wire;
use crate::config::Limits;
use crate::error::{Code, Error};
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Lets so many calls in at once.
#[derive(Clone)]
pub(super) struct Guard {
    places: Arc<Semaphore>,
    most: usize,
}

impl Guard {
    pub(super) fn new(limits: &Limits) -> Self {
        Guard { places: Arc::new(Semaphore::new(limits.max_calls)), most: limits.max_calls }
    }
}

/// The refusal of what goes over a limit of this peer.
pub(super) fn overloaded(most: usize, what: &str) -> Error {
    Error::new(Code::Overloaded, format!("this peer has {most} {what}, its limit"))
        .remedy("close what is not needed, ask another peer, or raise the limit in the [limits] table")
}

/// Lets a call in, or refuses it.
pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Ok(place) = guard.places.clone().try_acquire_owned() else {
        return wire::status(&overloaded(guard.most, "calls under way")).into_http();
    };
    let response = next.run(request).await;
    let refused = Status::from_header_map(response.headers()).and_then(|status| said_by_transport(&status));
    match refused {
        Some(error) => wire::status(&error).into_http(),
        None => response.map(|body| Body::new(Counted { body, _place: place })),
    }
}

/// The error behind a status that tonic made itself; `None` for any other.
pub(super) fn said_by_transport(status: &Status) -> Option<Error> {
    if !status.details().is_empty() {
        return None;
    }
    let text = status.message();
    if text.contains("message length too large") {
        let numbers: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
        let [found, limit] = numbers[..] else { return Some(Error::new(Code::TooLarge, text)) };
        let what = format!("the message has {found} bytes; the limit is {limit}");
        return Some(Error::new(Code::TooLarge, what).remedy(
            "send fewer entries at once; the bound is max_message_bytes in the [limits] table of the configuration file",
        ));
    }
    let unreadable = status.code() == tonic::Code::Internal && text.to_ascii_lowercase().contains("protobuf");
    unreadable.then(|| {
        let short: String = text.chars().take(200).collect();
        Error::new(Code::InvalidRequest, format!("the message cannot be read: {short}"))
            .remedy("make the client from the .proto files of this version; reflection serves them")
    })
}

/// A body that keeps its call's place until it ends.
struct Counted {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
