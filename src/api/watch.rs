//! The `Watch` service: a stream of messages, pulled from the grid when the client's connection
//! has room for the next one.

use super::authorize::{Action, Principal, authorize};
use super::{Edge, wire};
use crate::error::Result;
use futures::StreamExt;
use futures::stream::BoxStream;
use grid_proto::keystead::v1;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl v1::watch_server::Watch for Edge {
    type WatchStream = BoxStream<'static, Result<v1::WatchMessage, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let begun = async {
            let request = wire::watch_request_from_wire(request.into_inner(), &self.limits)?;
            authorize(&Principal::Anonymous, Action::Read, &request.map)?;
            self.service.watch(request).await
        };
        let messages = begun.await.map_err(|error| wire::status(&error))?;
        let messages = messages.map(|message| match message {
            Ok(message) => Ok(wire::watch_message_to_wire(message)),
            Err(error) => Err(wire::status(&error)),
        });
        Ok(Response::new(messages.boxed()))
    }
}
