//! The `Tasks` service.

use super::exchange::{self, Lane, Replies};
use super::{Edge, wire};
use crate::config::Limits;
use crate::error::Result;
use crate::types::{Reply, Request};
use grid_proto::keystead::v1;
use prost::Message;
use tonic::{Response, Status, Streaming};

struct TaskLane;

impl Lane for TaskLane {
    type In = v1::TaskBatch;
    type Out = v1::TaskBatchReply;
    type Tag = u64;
    type Item = v1::TaskReply;

    fn split(message: v1::TaskBatch, limits: &Limits) -> Vec<(u64, Result<Request>)> {
        let one = |request: v1::TaskRequest| (request.id, wire::task_request_from_wire(request.submit, limits));
        message.requests.into_iter().map(one).collect()
    }

    fn item(id: &u64, outcome: Result<Reply>) -> v1::TaskReply {
        v1::TaskReply { id: *id, result: Some(wire::task_reply_to_wire(outcome)) }
    }

    fn size(item: &v1::TaskReply) -> usize {
        item.encoded_len()
    }

    fn join(replies: Vec<v1::TaskReply>) -> v1::TaskBatchReply {
        v1::TaskBatchReply { replies }
    }
}

type Call<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::tasks_server::Tasks for Edge {
    type ExchangeStream = Replies<v1::TaskBatchReply>;

    async fn exchange(&self, request: tonic::Request<Streaming<v1::TaskBatch>>) -> Call<Self::ExchangeStream> {
        exchange::serve::<TaskLane>(request.into_inner(), self.clone()).map(Response::new)
    }

    async fn submit(&self, request: tonic::Request<v1::SubmitRequest>) -> Call<v1::SubmitReply> {
        let outcome = match wire::task_request_from_wire(Some(request.into_inner()), &self.limits) {
            Ok(request) => self.execute(request).await,
            Err(error) => Err(error),
        };
        outcome.and_then(wire::submit_reply).map(Response::new).map_err(|error| wire::status(&error))
    }

    async fn list(&self, _request: tonic::Request<v1::ListTasksRequest>) -> Call<v1::ListTasksReply> {
        Ok(Response::new(v1::ListTasksReply { names: self.service.tasks() }))
    }
}
