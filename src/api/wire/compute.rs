//! Broadcasts and scatters, both ways.

use super::options::{self, served_from_wire, served_to_wire};
use super::values::{bad, check_name, check_size, payload_from_wire, payload_to_wire};
use super::{error_from_wire, error_to_wire};
use crate::config::Limits;
use crate::error::Result;
use crate::node::{Broadcast, PartitionAnswer, Scatter, ScatterAnswer, ScatterEvent};
use crate::types::{AckLevel, PartitionId, ReadLevel, TaskPayload, ValueCodec};
use grid_proto::keystead::v1;
use v1::broadcast_reply::Result as WireResult;
use v1::scatter_reply::End;

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

/// Checks a scatter.
///
/// # Errors
/// `InvalidRequest`, `InvalidName`, `TooLarge`, `TaskCodec`.
pub fn scatter_from_wire(request: v1::ScatterRequest, limits: &Limits) -> Result<Scatter> {
    check_name("scatter", &request.name)?;
    let payload = payload_from_wire(request.payload)?;
    check_size("payload", payload.data.len(), limits.max_payload_bytes)?;
    let deadline_ms = match request.deadline_ms {
        0 => limits.max_scatter_deadline_ms,
        asked => asked.min(limits.max_scatter_deadline_ms),
    };
    let (partial, parts) = (request.partial, request.parts);
    Ok(Scatter { name: request.name, payload, id: request.task_id, partial, parts, deadline_ms })
}

/// A scatter, for a peer.
pub fn scatter_to_wire(request: Scatter) -> v1::ScatterRequest {
    v1::ScatterRequest {
        name: request.name,
        payload: Some(payload_to_wire(request.payload)),
        task_id: request.id,
        partial: request.partial,
        parts: request.parts,
        deadline_ms: request.deadline_ms,
    }
}

/// What comes of a scatter, for the client.
pub fn scatter_event_to_wire(event: ScatterEvent) -> v1::ScatterReply {
    let failure = |(partition, error): (PartitionId, _)| v1::PartitionFailure {
        partition: partition.0,
        error: Some(error_to_wire(&error)),
    };
    match event {
        ScatterEvent::Progress { done, of, part } => {
            let part = part.map(|data| payload_to_wire(TaskPayload { codec: ValueCodec::Msgpack, data }));
            v1::ScatterReply { done, of, part, end: None }
        }
        ScatterEvent::End(Err(error)) => {
            v1::ScatterReply { end: Some(End::Error(error_to_wire(&error))), ..Default::default() }
        }
        ScatterEvent::End(Ok(answer)) => {
            let answer = v1::ScatterAnswer {
                answer: answer.answer.map(payload_to_wire),
                failed: answer.failed.into_iter().map(failure).collect(),
            };
            v1::ScatterReply { end: Some(End::Answer(answer)), ..Default::default() }
        }
    }
}

/// What comes of a scatter, from a peer.
///
/// # Errors
/// `InvalidRequest` when the message makes no sense.
pub fn scatter_event_from_wire(reply: v1::ScatterReply) -> Result<ScatterEvent> {
    let Some(end) = reply.end else {
        let part = reply.part.map(|part| part.data);
        return Ok(ScatterEvent::Progress { done: reply.done, of: reply.of, part });
    };
    let answer = match end {
        End::Error(error) => return Ok(ScatterEvent::End(Err(error_from_wire(error)))),
        End::Answer(answer) => answer,
    };
    let failure = |failure: v1::PartitionFailure| {
        let error = failure.error.ok_or_else(|| bad("a partition's failure has no reason"))?;
        Ok((PartitionId(failure.partition), error_from_wire(error)))
    };
    let failed = answer.failed.into_iter().map(failure).collect::<Result<Vec<_>>>()?;
    let answer = answer.answer.map(|answer| payload_from_wire(Some(answer))).transpose()?;
    Ok(ScatterEvent::End(Ok(ScatterAnswer { answer, failed })))
}
