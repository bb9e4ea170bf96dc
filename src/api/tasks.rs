//! The `Tasks` service.

use super::authorize::{Action, Principal, authorize};
use super::exchange::{self, Lane, Replies};
use super::{Edge, wire};
use crate::clock;
use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::types::{JobId, JobInfo, Reply, Request};
use grid_proto::keystead::v1;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
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

/// Messages that may wait for a slow client.
const WAITING: usize = 16;

/// What comes through a channel, as a stream of messages. The channel is dropped with the stream.
fn stream<T: Send + 'static, M: Send + 'static>(
    mut from: mpsc::Receiver<T>,
    message: impl Fn(T) -> Result<M, Status> + Send + 'static,
) -> ReceiverStream<Result<M, Status>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    clock::spawn(async move {
        loop {
            let next = tokio::select! {
                biased;
                () = sender.closed() => return,
                next = from.recv() => next,
            };
            let Some(next) = next else { return };
            if sender.send(message(next)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn job_reply(outcome: Result<JobInfo>) -> Call<v1::JobReply> {
    let reply = outcome.map(|job| Response::new(v1::JobReply { job: Some(wire::job_to_wire(job)) }));
    reply.map_err(|error| wire::status(&error))
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

    type BroadcastStream = ReceiverStream<Result<v1::BroadcastReply, Status>>;

    async fn broadcast(&self, request: tonic::Request<v1::BroadcastRequest>) -> Call<Self::BroadcastStream> {
        authorize(&Principal::Anonymous, Action::Write, "").map_err(|error| wire::status(&error))?;
        let asked = wire::broadcast_from_wire(request.into_inner(), &self.limits);
        let answers = async { self.service.broadcast(asked?).await };
        let answers = answers.await.map_err(|error| wire::status(&error))?;
        Ok(Response::new(stream(answers, |answer| Ok(wire::partition_answer_to_wire(answer)))))
    }

    type ScatterStream = ReceiverStream<Result<v1::ScatterReply, Status>>;

    async fn scatter(&self, request: tonic::Request<v1::ScatterRequest>) -> Call<Self::ScatterStream> {
        authorize(&Principal::Anonymous, Action::Write, "").map_err(|error| wire::status(&error))?;
        let asked = wire::scatter_from_wire(request.into_inner(), &self.limits);
        let events = async { self.service.scatter(asked?).await };
        let events = events.await.map_err(|error| wire::status(&error))?;
        Ok(Response::new(stream(events, |event| Ok(wire::scatter_event_to_wire(event)))))
    }

    async fn start_job(&self, request: tonic::Request<v1::StartJobRequest>) -> Call<v1::JobReply> {
        authorize(&Principal::Anonymous, Action::Write, "").map_err(|error| wire::status(&error))?;
        let asked = wire::start_job_from_wire(request.into_inner(), &self.limits);
        job_reply(async { self.service.start_job(asked?).await }.await)
    }

    async fn get_job(&self, request: tonic::Request<v1::JobRequest>) -> Call<v1::JobReply> {
        job_reply(self.service.job(JobId(request.into_inner().id)).await)
    }

    async fn cancel_job(&self, request: tonic::Request<v1::JobRequest>) -> Call<v1::JobReply> {
        authorize(&Principal::Anonymous, Action::Write, "").map_err(|error| wire::status(&error))?;
        job_reply(self.service.cancel_job(JobId(request.into_inner().id)).await)
    }

    async fn list_jobs(&self, _request: tonic::Request<v1::ListJobsRequest>) -> Call<v1::ListJobsReply> {
        let jobs = self.service.jobs().await.map_err(|error| wire::status(&error))?;
        Ok(Response::new(v1::ListJobsReply { jobs: jobs.into_iter().map(wire::job_to_wire).collect() }))
    }

    async fn cancel(&self, request: tonic::Request<v1::CancelRequest>) -> Call<v1::CancelReply> {
        let id = request.into_inner().task_id;
        if id == 0 {
            let error = Error::new(Code::InvalidRequest, "a cancellation names the id of what it cancels; 0 is none");
            return Err(wire::status(&error));
        }
        authorize(&Principal::Anonymous, Action::Write, "").map_err(|error| wire::status(&error))?;
        let report = self.service.cancel(id).await;
        Ok(Response::new(v1::CancelReply { told: report.told, unreachable: report.unreachable }))
    }

    async fn list(&self, _request: tonic::Request<v1::ListTasksRequest>) -> Call<v1::ListTasksReply> {
        Ok(Response::new(v1::ListTasksReply { names: self.service.tasks() }))
    }
}
