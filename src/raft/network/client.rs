//! The calling side: openraft's requests to one replica.

use super::gather::gathered;
use super::{Shared, kind, snapshot};
use crate::error::{Code, Error, Result};
use crate::net::peer::Lane;
use crate::raft::rpc_codec as codec;
use crate::raft::snapshot::SnapshotData;
use crate::raft::types::{TypeConfig, Vote};
use crate::types::{GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use futures::Stream;
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RPCTypes, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The longest pause before a replica that cannot be reached is tried again, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 500;

/// openraft's client for one replica.
pub struct ReplicaClient {
    pub(super) shared: Arc<Shared>,
    pub(super) target: ReplicaId,
    pub(super) node: NodeId,
}

type Failed = RPCError<TypeConfig>;
type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Failed>>;

/// A call before its payload.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) lane: Lane,
    pub(super) kind: u8,
    pub(super) deadline: Duration,
    pub(super) action: RPCTypes,
}

impl ReplicaClient {
    pub(super) fn new(shared: Arc<Shared>, target: ReplicaId, node: NodeId) -> Self {
        ReplicaClient { shared, target, node }
    }

    pub(super) async fn send(&self, call: Call, payload: Bytes) -> Result<Bytes> {
        let Shared { transport, group, .. } = &*self.shared;
        transport.call(self.node, call.lane, *group, call.kind, payload, call.deadline).await
    }

    /// What an error means for openraft: whether to wait (unreachable), or try again at once.
    pub(super) fn rpc_error(&self, call: Call, error: &Error) -> RPCError<TypeConfig> {
        match error.code {
            Code::PeerUnreachable
            | Code::NotReady
            | Code::ShuttingDown
            | Code::Overloaded
            | Code::ForeignGrid
            | Code::ProtocolMismatch
            | Code::DiskFull => RPCError::Unreachable(Unreachable::new(error)),
            Code::DeadlineExceeded => RPCError::Timeout(Timeout {
                action: call.action,
                id: self.shared.replica,
                target: self.target,
                timeout: call.deadline,
            }),
            _ => RPCError::Network(NetworkError::new(error)),
        }
    }

    /// A small request on the control lane.
    async fn control<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: u8,
        action: RPCTypes,
        request: &Q,
    ) -> Result<A, RPCError<TypeConfig>> {
        let call = Call { lane: Lane::Control, kind, deadline: self.shared.config.vote_timeout, action };
        let answer = async {
            let payload = codec::encode_request(self.target, request)?;
            codec::decode_answer(self.send(call, payload).await?)
        };
        answer.await.map_err(|error| self.rpc_error(call, &error))
    }
}

impl RaftNetworkV2<TypeConfig> for ReplicaClient {
    type SnapshotData = SnapshotData;

    /// The first pauses are short: a new replica is often asked for a moment before it runs.
    fn backoff(&self) -> Option<Backoff> {
        let pauses = [20, 40, 80, 160].into_iter().chain(std::iter::repeat(LONGEST_PAUSE_MS));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let config = &self.shared.config;
        let (lane, kind, deadline) = match request.entries.is_empty() {
            true => (Lane::Control, kind::HEARTBEAT, config.heartbeat_timeout),
            false => (Lane::Append, kind::APPEND, config.append_timeout),
        };
        let call = Call { lane, kind, deadline, action: RPCTypes::AppendEntries };
        let count = codec::fitting(&request.entries, config.max_append_bytes);
        let answer = async {
            let payload = codec::encode_append(self.target, &request, count)?;
            codec::decode_append_answer(self.send(call, payload).await?)
        };
        match answer.await {
            // openraft sends the rest next when it hears how far this one went.
            Ok(AppendEntriesResponse::Success) if count < request.entries.len() => {
                let last_sent = request.entries.get(count.wrapping_sub(1)).map(|entry| entry.log_id);
                Ok(AppendEntriesResponse::PartialSuccess(last_sent))
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.rpc_error(call, &error)),
        }
    }

    fn stream_append<'s, S>(&'s mut self, appends: S, option: RPCOption) -> BoxFuture<'s, Result<Answers<'s>, Failed>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let meta = self.shared.group == GroupId::META;
        let patience = if meta { Duration::ZERO } else { self.shared.config.commit_patience };
        stream_append_sequential(self, gathered(appends, patience), option)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.control(kind::VOTE, RPCTypes::Vote, &request).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.control(kind::PRE_VOTE, RPCTypes::Vote, &request).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = snapshot::send(self, vote, snapshot) => sent.map(SnapshotResponse::new).map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.control(kind::TRANSFER, RPCTypes::TransferLeader, &request).await
    }
}
