//! Tasks on all partitions, and cancelling tasks.
//!
//! In: a task's name and payload. Out: an answer per partition, with progress on the way. A
//! submission has one stamp, with which it is sent again to another peer when one is lost: it
//! runs once on each partition all the same.

use super::core::Peer;
use super::peers::share;
use super::{Client, TaskAnswer};
use crate::api::wire;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result, Retry};
use crate::node::{Broadcast, CancelReport, PartitionAnswer, Scatter, ScatterAnswer, ScatterEvent};
use crate::types::{Op, PartitionId, Reach, ReplyBody, TaskPayload, ValueCodec};
use bytes::Bytes;
use grid_proto::keystead::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;
use v1::tasks_client::TasksClient;

/// How far a submission is, as far as the asked peer has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Partitions that are done.
    pub done: u32,
    /// Partitions in all.
    pub of: u32,
}

/// Told of progress.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// How a task is to be submitted.
#[derive(Clone, Copy, Default)]
pub struct SubmitOptions<'a> {
    /// What [`Client::cancel`] names it by; 0 when nobody will cancel it. Choose it at random.
    pub id: u64,
    /// Time for it, retries included. `None`: the client's.
    pub deadline: Option<Duration>,
    /// Told of progress, for what runs on many partitions.
    pub progress: Option<OnProgress<'a>>,
}

/// A typed payload, as MessagePack with field names.
pub(super) fn encode<In: Serialize>(input: &In) -> Result<TaskPayload> {
    let data = rmp_serde::to_vec_named(input)
        .map_err(|error| Error::new(Code::TaskCodec, format!("the payload cannot be encoded: {error}")))?;
    Ok(TaskPayload { codec: ValueCodec::Msgpack, data: data.into() })
}

/// A typed answer.
pub(super) fn decode<Out: DeserializeOwned>(answer: &TaskPayload) -> Result<Out> {
    let bad = |error: String| Error::new(Code::TaskCodec, format!("the answer cannot be decoded: {error}"));
    match answer.codec {
        ValueCodec::Json => serde_json::from_slice(&answer.data).map_err(|error| bad(error.to_string())),
        _ => crate::types::msgpack::from_slice(&answer.data).map_err(|error| bad(error.to_string())),
    }
}

/// A peer has not answered in the time that it had.
fn silent(peer: &Peer) -> Error {
    Error::new(Code::PeerUnreachable, "no answer in time").at(&**peer)
}

impl Client {
    /// Runs a partition task on every partition, at its leader: once on each, whatever fails in
    /// between. Gives each partition's answer or error, by partition.
    ///
    /// # Errors
    /// What the grid answers to the whole; `DeadlineExceeded` and `OutcomeUnknown` stand in the
    /// partitions' own answers.
    pub async fn broadcast(
        &self,
        name: &str,
        payload: TaskPayload,
        options: SubmitOptions<'_>,
    ) -> Result<Vec<PartitionAnswer>> {
        let expires = Instant::now() + options.deadline.unwrap_or(self.shared.config.deadline);
        let now = self.time().await?;
        let stamped = self.shared.submissions.stamp(now, Reach::new())?;
        let mut answers = BTreeMap::new();
        let mut turn = 0;
        loop {
            let left = expires.saturating_duration_since(Instant::now());
            let request = Broadcast {
                name: name.to_owned(),
                payload: payload.clone(),
                id: options.id,
                stamp: Some(stamped.stamp()),
                deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1),
            };
            let before = turn > 0;
            let peer = self.peer(turn)?;
            let asked = self.broadcast_once(peer.clone(), request, before, &mut answers, options.progress);
            let error = match clock::timeout_at(expires, asked).await {
                Ok(Ok(())) => {
                    let answers: Vec<PartitionAnswer> = answers.into_values().collect();
                    stamped.answered_by_all(answers.iter().filter_map(|answer| answer.outcome.as_ref().err()));
                    return Ok(answers);
                }
                Ok(Err(error)) => error,
                Err(clock::Elapsed) => {
                    self.lost(&peer, silent(&peer));
                    Error::new(Code::OutcomeUnknown, "not all partitions answered in time")
                }
            };
            if error.code.retry() == Retry::Never || Instant::now() >= expires {
                return Err(if before { error.of_unsure_write() } else { error });
            }
            turn += 1;
            clock::sleep(self.shared.config.backoff_max).await;
        }
    }

    /// One attempt through one peer; what came before it broke stays in `answers`. `again`: an
    /// earlier attempt may have reached partitions whose answers are not known.
    async fn broadcast_once(
        &self,
        peer: Peer,
        request: Broadcast,
        again: bool,
        answers: &mut BTreeMap<PartitionId, PartitionAnswer>,
        progress: Option<OnProgress<'_>>,
    ) -> Result<()> {
        let failed = |status: tonic::Status| wire::error_from_status(&status);
        let mut tasks = self.shared.peers.tasks(&peer).await?;
        let opened = tasks.broadcast(wire::broadcast_to_wire(request)).await;
        let mut stream = opened.map_err(|status| self.lost(&peer, failed(status)))?.into_inner();
        let mut of = None;
        while let Some(message) = stream.message().await.map_err(|status| self.lost(&peer, failed(status)))? {
            let mut answer = wire::partition_answer_from_wire(message)?;
            of = Some(answer.of);
            if let Some(progress) = progress {
                progress(Progress { done: answer.done, of: answer.of });
            }
            // What has run stays so, whatever became of the partition since.
            if answers.get(&answer.partition).is_none_or(|known| known.outcome.is_err()) {
                if again {
                    answer.outcome = answer.outcome.map_err(Error::of_unsure_write);
                }
                answers.insert(answer.partition, answer);
            }
        }
        match of {
            Some(of) if answers.len() >= of as usize => Ok(()),
            _ => Err(Error::new(Code::PeerUnreachable, "the peer ended before all partitions had answered").at(&*peer)),
        }
    }

    /// Runs a scatter: a step on every partition, reduced to one answer. With `partial` the answer
    /// may lack partitions, which it then names.
    ///
    /// # Errors
    /// What the scatter answers; `PartitionsFailed` when partitions gave nothing.
    pub async fn scatter(
        &self,
        name: &str,
        payload: TaskPayload,
        partial: bool,
        options: SubmitOptions<'_>,
    ) -> Result<ScatterAnswer> {
        let request = Scatter { name: name.to_owned(), payload, id: options.id, partial, parts: false, deadline_ms: 0 };
        self.scatter_parts(request, options, &mut |_| ()).await
    }

    /// Runs a scatter with typed payload and answer; all partitions must give something.
    ///
    /// # Errors
    /// As [`Client::scatter`]; `TaskCodec` when payload or answer cannot be encoded or decoded.
    pub async fn scatter_typed<In: Serialize, Out: DeserializeOwned>(&self, name: &str, input: &In) -> Result<Out> {
        let options = SubmitOptions { deadline: Some(self.shared.config.scatter_deadline), ..SubmitOptions::default() };
        let answer = self.scatter(name, encode(input)?, false, options).await?.answer;
        decode(&answer.ok_or_else(|| Error::internal("a scatter ended without an answer"))?)
    }

    /// Runs a scatter whose parts this process reduces: each peer's combined parts, decoded, in
    /// any order. Partitions that gave nothing are named.
    ///
    /// # Errors
    /// As [`Client::scatter`]; `TaskCodec` when a part cannot be decoded.
    pub async fn scatter_to_parts<In: Serialize, Part: DeserializeOwned>(
        &self,
        name: &str,
        input: &In,
        partial: bool,
        options: SubmitOptions<'_>,
    ) -> Result<(Vec<Part>, Vec<(PartitionId, Error)>)> {
        let payload = encode(input)?;
        let request = Scatter { name: name.to_owned(), payload, id: options.id, partial, parts: true, deadline_ms: 0 };
        let mut parts = Vec::new();
        let mut take = |part: Option<Bytes>| match part {
            Some(part) => parts.push(TaskPayload { codec: ValueCodec::Msgpack, data: part }),
            None => parts.clear(),
        };
        let answer = self.scatter_parts(request, options, &mut take).await?;
        let parts = parts.iter().map(decode).collect::<Result<Vec<Part>>>()?;
        Ok((parts, answer.failed))
    }

    /// Asks peers by turns; `take` is given each part, and `None` when it all begins again: a
    /// scatter only reads, so that running it again does no harm.
    async fn scatter_parts(
        &self,
        mut request: Scatter,
        options: SubmitOptions<'_>,
        take: &mut (dyn FnMut(Option<Bytes>) + Send),
    ) -> Result<ScatterAnswer> {
        let expires = Instant::now() + options.deadline.unwrap_or(self.shared.config.deadline);
        let (mut turn, mut lacking) = (0, None);
        loop {
            let peer = self.peer(turn)?;
            let left = expires.saturating_duration_since(Instant::now());
            request.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
            take(None);
            let asked = self.scatter_once(&peer, request.clone(), options.progress, take);
            let error = match clock::timeout_at(expires, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => self.lost(&peer, error),
                Err(clock::Elapsed) => {
                    self.lost(&peer, silent(&peer));
                    Error::new(Code::DeadlineExceeded, "not all partitions answered in time")
                }
            };
            turn += 1;
            match error.code {
                Code::TaskNotCarried => lacking = Some(error.clone()),
                Code::PeerUnreachable => {}
                _ => lacking = None,
            }
            // Every peer was asked twice, and those that are there say that it takes another.
            let in_vain = lacking.is_some() && turn >= 2 * self.known_peers();
            if error.code.retry() == Retry::Never {
                return Err(error);
            }
            if in_vain || Instant::now() >= expires {
                return Err(lacking.unwrap_or(error));
            }
            clock::sleep(self.shared.config.backoff_max).await;
        }
    }

    async fn scatter_once(
        &self,
        peer: &Peer,
        request: Scatter,
        progress: Option<OnProgress<'_>>,
        take: &mut (dyn FnMut(Option<Bytes>) + Send),
    ) -> Result<ScatterAnswer> {
        let failed = |status: tonic::Status| wire::error_from_status(&status);
        let opened = self.shared.peers.tasks(peer).await?.scatter(wire::scatter_to_wire(request)).await;
        let mut stream = opened.map_err(failed)?.into_inner();
        while let Some(message) = stream.message().await.map_err(failed)? {
            match wire::scatter_event_from_wire(message)? {
                ScatterEvent::End(end) => return end,
                ScatterEvent::Progress { done, of, part } => {
                    if let Some(progress) = progress {
                        progress(Progress { done, of });
                    }
                    if part.is_some() {
                        take(part);
                    }
                }
            }
        }
        Err(Error::new(Code::PeerUnreachable, "the peer ended before the scatter did").at(&**peer))
    }

    fn known_peers(&self) -> usize {
        self.shared.sight.read().map_or(0, |sight| sight.peers.len())
    }

    /// The peer of a turn.
    pub(super) fn peer(&self, turn: usize) -> Result<Peer> {
        let peers: Vec<Peer> = self.shared.sight.read().map(|sight| sight.peers.clone()).unwrap_or_default();
        let none = || Error::new(Code::PeerUnreachable, "no peer is known");
        if peers.is_empty() { Err(none()) } else { Ok(peers[turn % peers.len()].clone()) }
    }

    /// Forgets the connection to a peer that is gone, or silent.
    pub(super) fn lost(&self, peer: &Peer, error: Error) -> Error {
        if error.code == Code::PeerUnreachable {
            self.shared.peers.forget(peer);
        }
        error
    }

    /// Asks peers by turns, as the codes advise, until one answers or the time is over.
    pub(super) async fn ask_tasks<T, F>(
        &self,
        expires: Instant,
        call: impl Fn(TasksClient<tonic::transport::Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut turn = 0;
        loop {
            let peer = self.peer(turn)?;
            let asked = async {
                let answer = call(self.shared.peers.tasks(&peer).await?).await;
                answer.map(tonic::Response::into_inner).map_err(|status| wire::error_from_status(&status))
            };
            // A peer that hangs leaves half of the time to the next, and its connection goes: it may be
            // one to a machine that has lost its power.
            let further = self.known_peers().saturating_sub(turn + 1);
            let error = match clock::timeout(share(expires, further), asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => self.lost(&peer, error),
                Err(clock::Elapsed) => self.lost(&peer, silent(&peer)),
            };
            if Instant::now() >= expires && error.code == Code::PeerUnreachable {
                return Err(Error::new(Code::DeadlineExceeded, "no answer in time").at(&*peer));
            }
            if error.code.retry() == Retry::Never || Instant::now() >= expires {
                return Err(error);
            }
            turn += 1;
            clock::sleep(self.shared.config.backoff_max).await;
        }
    }

    /// Runs a partition task on every partition, with typed payload and answers; the first
    /// failure of a partition is the whole's.
    ///
    /// # Errors
    /// As [`Client::broadcast`]; `PartitionsFailed` when it failed on some partitions.
    pub async fn broadcast_typed<In: Serialize, Out: DeserializeOwned>(
        &self,
        name: &str,
        input: &In,
    ) -> Result<Vec<(PartitionId, Out)>> {
        let answers = self.broadcast(name, encode(input)?, SubmitOptions::default()).await?;
        let failed: Vec<&PartitionAnswer> = answers.iter().filter(|answer| answer.outcome.is_err()).collect();
        if let Some(PartitionAnswer { partition, outcome: Err(first), .. }) = failed.first() {
            let what =
                format!("{} of {} partitions failed; partition {partition}: {first}", failed.len(), answers.len());
            return Err(Error::new(Code::PartitionsFailed, what).at(format!("task {name}")));
        }
        let answer = |answer: PartitionAnswer| Ok((answer.partition, decode(&answer.outcome?)?));
        answers.into_iter().map(answer).collect()
    }

    /// Runs a task beside its key that can be cancelled by an id.
    ///
    /// # Errors
    /// As [`Client::execute`]; `TaskCancelled`.
    pub async fn task_with_id(
        &self,
        name: &str,
        key: impl AsRef<[u8]>,
        payload: TaskPayload,
        id: u64,
    ) -> Result<TaskAnswer> {
        let op = Op::Task { name: name.to_owned(), key: Bytes::copy_from_slice(key.as_ref()), payload, id };
        let reply = self.execute(op, Default::default()).await?;
        match reply.body {
            ReplyBody::Task(payload) => Ok(TaskAnswer { payload, served: reply.served }),
            _ => Err(Error::internal("a task got an answer of another kind")),
        }
    }

    /// Cancels whatever was submitted under an id: what has not run does not run, and of what is
    /// running nothing takes effect unless it was committed already. Its caller is told which.
    ///
    /// # Errors
    /// `InvalidRequest` for id 0; `PeerUnreachable`.
    pub async fn cancel(&self, id: u64) -> Result<CancelReport> {
        let expires = Instant::now() + self.shared.config.deadline;
        let ask = |mut tasks: TasksClient<tonic::transport::Channel>| async move {
            tasks.cancel(v1::CancelRequest { task_id: id }).await
        };
        let reply = self.ask_tasks(expires, ask).await?;
        Ok(CancelReport { told: reply.told, unreachable: reply.unreachable })
    }
}
