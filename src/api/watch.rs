//! The `Watch` service: a stream of messages, pulled from the grid when the client's connection
//! has room for the next one.

use super::authorize::{Action, Principal, authorize};
use super::{Edge, wire};
use crate::error::Result;
use futures::StreamExt;
use futures::stream::BoxStream;
use grid_proto::keystead::v1;
use std::time::Duration;
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

    async fn get_local(&self, request: Request<v1::GetLocalRequest>) -> Result<Response<v1::GetLocalReply>, Status> {
        let request = request.into_inner();
        let asked = async {
            wire::check_name("map", &request.map)?;
            wire::check_key("key", &request.key, &self.limits)?;
            authorize(&Principal::Anonymous, Action::Read, &request.map)?;
            let deadline = match request.deadline_ms {
                0 => self.limits.default_deadline_ms,
                asked => asked.min(self.limits.max_deadline_ms),
            };
            let at_most = Duration::from_millis(u64::from(deadline));
            self.service.get_local(&request.map, request.key, request.at_least, at_most).await
        };
        match asked.await {
            Ok(found) => Ok(Response::new(wire::local_entry_to_wire(found))),
            Err(error) => Err(wire::status(&error)),
        }
    }
}
