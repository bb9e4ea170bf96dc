//! Broadcasts, both ways.

use super::options::{self, served_from_wire, served_to_wire};
use super::values::{bad, check_name, check_size, payload_from_wire, payload_to_wire};
use super::{error_from_wire, error_to_wire};
use crate::config::Limits;
use crate::error::Result;
use crate::node::{Broadcast, PartitionAnswer};
use crate::types::{AckLevel, PartitionId, ReadLevel};
use grid_proto::keystead::v1;
use v1::broadcast_reply::Result as WireResult;

/// Checks a broadcast.
///
/// # Errors
/// `InvalidRequest`, `InvalidName`, `TooLarge`, `TaskCodec`.
pub fn broadcast_from_wire(request: v1::BroadcastRequest, limits: &Limits) -> Result<Broadcast> {
    check_name("task", &request.name)?;
    let payload = payload_from_wire(request.payload)?;
    check_size("payload", payload.data.len(), limits.max_payload_bytes)?;
    let checked = options::from_wire(request.options, limits)?;
    Ok(Broadcast {
        name: request.name,
        payload,
        id: request.task_id,
        stamp: checked.stamp,
        deadline_ms: checked.deadline_ms,
    })
}

/// A broadcast, for a peer.
pub fn broadcast_to_wire(request: Broadcast) -> v1::BroadcastRequest {
    let stamp = request.stamp.as_ref();
    v1::BroadcastRequest {
        options: options::plain(ReadLevel::default(), AckLevel::default(), stamp, request.deadline_ms),
        name: request.name,
        payload: Some(payload_to_wire(request.payload)),
        task_id: request.id,
    }
}

/// One partition's answer, for the client.
pub fn partition_answer_to_wire(answer: PartitionAnswer) -> v1::BroadcastReply {
    let result = match answer.outcome {
        Ok(payload) => WireResult::Answer(payload_to_wire(payload)),
        Err(error) => WireResult::Error(error_to_wire(&error)),
    };
    v1::BroadcastReply {
        partition: answer.partition.0,
        done: answer.done,
        of: answer.of,
        served: answer.served.as_ref().and_then(|served| served_to_wire(served, true)),
        result: Some(result),
    }
}

/// One partition's answer, from a peer.
///
/// # Errors
/// `InvalidRequest` when the message makes no sense.
pub fn partition_answer_from_wire(reply: v1::BroadcastReply) -> Result<PartitionAnswer> {
    let outcome = match reply.result {
        Some(WireResult::Answer(payload)) => Ok(payload_from_wire(Some(payload))?),
        Some(WireResult::Error(error)) => Err(error_from_wire(error)),
        None => return Err(bad("a partition's answer says nothing")),
    };
    let served = reply.served.map(|served| served_from_wire(Some(served))).transpose()?;
    Ok(PartitionAnswer { partition: PartitionId(reply.partition), done: reply.done, of: reply.of, outcome, served })
}
