//! The `Kv` service.

use super::Edge;
use super::exchange::{self, Lane, Replies};
use super::wire::{self, Kind};
use crate::config::Limits;
use crate::error::Result;
use crate::types::{Reply, Request};
use grid_proto::keystead::v1;
use prost::Message;
use tonic::{Response, Status, Streaming};
use v1::kv_request::Op;

struct KvLane;

impl Lane for KvLane {
    type In = v1::KvBatch;
    type Out = v1::KvBatchReply;
    type Tag = (u64, Kind);
    type Item = v1::KvReply;

    fn split(message: v1::KvBatch, limits: &Limits) -> Vec<((u64, Kind), Result<Request>)> {
        let one = |request: v1::KvRequest| match wire::kv_request_from_wire(request.op, limits) {
            Ok((kind, checked)) => ((request.id, kind), Ok(checked)),
            // The kind is not looked at when the request has failed.
            Err(error) => ((request.id, Kind::Get), Err(error)),
        };
        message.requests.into_iter().map(one).collect()
    }

    fn item((id, kind): &(u64, Kind), outcome: Result<Reply>) -> v1::KvReply {
        v1::KvReply { id: *id, result: Some(wire::kv_reply_to_wire(*kind, outcome)) }
    }

    fn size(item: &v1::KvReply) -> usize {
        item.encoded_len()
    }

    fn join(replies: Vec<v1::KvReply>) -> v1::KvBatchReply {
        v1::KvBatchReply { replies }
    }
}

impl Edge {
    async fn unary<T: Message>(&self, op: Op, reply: fn(Reply) -> Result<T>) -> Result<Response<T>, Status> {
        let outcome = match wire::kv_request_from_wire(Some(op), &self.limits) {
            Ok((_, request)) => self.execute(request).await,
            Err(error) => Err(error),
        };
        let reply = outcome.and_then(reply).and_then(|reply| {
            self.check_answer(reply.encoded_len())?;
            Ok(reply)
        });
        reply.map(Response::new).map_err(|error| wire::status(&error))
    }
}

type Call<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::kv_server::Kv for Edge {
    type ExchangeStream = Replies<v1::KvBatchReply>;

    async fn exchange(&self, request: tonic::Request<Streaming<v1::KvBatch>>) -> Call<Self::ExchangeStream> {
        exchange::serve::<KvLane>(request.into_inner(), self.clone()).map(Response::new)
    }

    async fn get(&self, request: tonic::Request<v1::GetRequest>) -> Call<v1::GetReply> {
        self.unary(Op::Get(request.into_inner()), wire::get_reply).await
    }

    async fn put(&self, request: tonic::Request<v1::PutRequest>) -> Call<v1::PutReply> {
        self.unary(Op::Put(request.into_inner()), wire::put_reply).await
    }

    async fn delete(&self, request: tonic::Request<v1::DeleteRequest>) -> Call<v1::DeleteReply> {
        self.unary(Op::Delete(request.into_inner()), wire::delete_reply).await
    }

    async fn touch(&self, request: tonic::Request<v1::TouchRequest>) -> Call<v1::TouchReply> {
        self.unary(Op::Touch(request.into_inner()), wire::touch_reply).await
    }

    async fn increment(&self, request: tonic::Request<v1::IncrementRequest>) -> Call<v1::IncrementReply> {
        self.unary(Op::Increment(request.into_inner()), wire::increment_reply).await
    }

    async fn get_many(&self, request: tonic::Request<v1::GetManyRequest>) -> Call<v1::GetManyReply> {
        self.unary(Op::GetMany(request.into_inner()), wire::get_many_reply).await
    }

    async fn put_many(&self, request: tonic::Request<v1::PutManyRequest>) -> Call<v1::PutManyReply> {
        self.unary(Op::PutMany(request.into_inner()), wire::put_many_reply).await
    }

    async fn transact(&self, request: tonic::Request<v1::TransactRequest>) -> Call<v1::TransactReply> {
        self.unary(Op::Transact(request.into_inner()), wire::transact_reply).await
    }

    async fn scan(&self, request: tonic::Request<v1::ScanRequest>) -> Call<v1::ScanReply> {
        self.unary(Op::Scan(request.into_inner()), wire::scan_reply).await
    }

    async fn size(&self, request: tonic::Request<v1::SizeRequest>) -> Call<v1::SizeReply> {
        self.unary(Op::Size(request.into_inner()), wire::size_reply).await
    }

    async fn clear(&self, request: tonic::Request<v1::ClearRequest>) -> Call<v1::ClearReply> {
        self.unary(Op::Clear(request.into_inner()), wire::clear_reply).await
    }
}
