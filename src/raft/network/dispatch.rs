//! The answering side: one arrived frame for one group's `Raft`.

use super::{Receptions, kind};
use crate::error::{Code, Error, Result};
use crate::raft::rpc_codec as codec;
use crate::raft::snapshot::SnapshotData;
use crate::raft::types::TypeConfig;
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use openraft::storage::RaftStateMachine;

/// Answers a frame of one of Raft's kinds.
///
/// # Errors
/// `NotReady` when the frame is for another replica than this, or its snapshot must be sent again;
/// `ShuttingDown` when the group has stopped; `ProtocolMismatch` when the frame is damaged.
pub async fn dispatch<SM>(
    raft: &Raft<TypeConfig, SM>,
    receptions: &Receptions,
    group: GroupId,
    kind: u8,
    payload: Bytes,
) -> Result<Bytes>
where
    SM: RaftStateMachine<TypeConfig, SnapshotData = SnapshotData>,
{
    match kind {
        kind::HEARTBEAT | kind::APPEND => {
            let request = meant_for(raft.node_id(), codec::decode_append(payload)?)?;
            Ok(codec::encode_append_answer(&raft.append_entries(request).await.map_err(stopped)?))
        }
        kind::VOTE => {
            let request: VoteRequest<TypeConfig> = meant_for(raft.node_id(), codec::decode_request(payload)?)?;
            codec::encode_answer(&raft.vote(request).await.map_err(stopped)?)
        }
        kind::PRE_VOTE => {
            let request: VoteRequest<TypeConfig> = meant_for(raft.node_id(), codec::decode_request(payload)?)?;
            codec::encode_answer(&raft.pre_vote(request).await.map_err(stopped)?)
        }
        kind::TRANSFER => {
            let request: TransferLeaderRequest<TypeConfig> =
                meant_for(raft.node_id(), codec::decode_request(payload)?)?;
            codec::encode_answer(&raft.handle_transfer_leader(request).await.map_err(stopped)?)
        }
        kind::SNAPSHOT_CHUNK => snapshot_piece(raft, receptions, group, payload).await,
        kind::SNAPSHOT_END => snapshot_end(raft, receptions, group, payload).await,
        other => Err(Error::new(Code::ProtocolMismatch, format!("{other} is no kind of Raft message"))),
    }
}

fn meant_for<T>(here: &ReplicaId, (target, request): (ReplicaId, T)) -> Result<T> {
    if target == *here {
        return Ok(request);
    }
    Err(Error::new(Code::NotReady, format!("replica {target} is not here, but replica {here}")))
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::new(Code::ShuttingDown, format!("the group has stopped: {error}"))
}

async fn snapshot_piece<SM>(
    raft: &Raft<TypeConfig, SM>,
    receptions: &Receptions,
    group: GroupId,
    payload: Bytes,
) -> Result<Bytes>
where
    SM: RaftStateMachine<TypeConfig, SnapshotData = SnapshotData>,
{
    let part = meant_for(raft.node_id(), codec::decode_part(payload)?)?;
    let vote = raft.metrics().borrow_watched().vote;
    // A leader that is none any more learns it here instead of sending all the rest.
    // Votes of one term may be incomparable; openraft itself decides at the end.
    let superseded = vote > part.vote;
    if !superseded {
        receptions.piece(group, *raft.node_id(), part).await?;
    }
    codec::encode_answer(&vote)
}

async fn snapshot_end<SM>(
    raft: &Raft<TypeConfig, SM>,
    receptions: &Receptions,
    group: GroupId,
    payload: Bytes,
) -> Result<Bytes>
where
    SM: RaftStateMachine<TypeConfig, SnapshotData = SnapshotData>,
{
    let part = meant_for(raft.node_id(), codec::decode_part(payload)?)?;
    let vote = part.vote;
    let snapshot = receptions.end(group, *raft.node_id(), part)?;
    let response = raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
    codec::encode_answer(&response.vote)
}
