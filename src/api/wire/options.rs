//! Levels, stamps, affinity and deadline of a request; who served a reply.

use super::values::{bad, check_key};
use crate::config::Limits;
use crate::error::Result;
use crate::types::{
    AckLevel, HybridTime, MAX_GIVEN_UP, NodeId, NumberRange, ReadLevel, Request, Served, SessionId, SessionStamp,
};
use bytes::Bytes;
use grid_proto::keystead::v1;

/// A request without its operation.
pub(super) struct Checked {
    pub(super) affinity: Option<Bytes>,
    pub(super) read: ReadLevel,
    pub(super) ack: AckLevel,
    pub(super) stamp: Option<SessionStamp>,
    pub(super) deadline_ms: u32,
}

pub(super) fn from_wire(options: Option<v1::RequestOptions>, limits: &Limits) -> Result<Checked> {
    let options = options.unwrap_or_default();
    if let Some(affinity) = &options.affinity {
        check_key("affinity", affinity, limits)?;
    }
    let read = match v1::ReadLevel::try_from(options.read) {
        Ok(v1::ReadLevel::Unspecified | v1::ReadLevel::Linearizable) => ReadLevel::Linearizable,
        Ok(v1::ReadLevel::Local) => ReadLevel::Local,
        Err(_) => return Err(bad(format!("there is no read level {}", options.read))),
    };
    let ack = match v1::AckLevel::try_from(options.ack) {
        Ok(v1::AckLevel::Unspecified | v1::AckLevel::MajorityFsync) => AckLevel::MajorityFsync,
        Ok(v1::AckLevel::Accepted) => AckLevel::Accepted,
        Err(_) => return Err(bad(format!("there is no acknowledgement level {}", options.ack))),
    };
    let deadline_ms = match options.deadline_ms {
        0 => limits.default_deadline_ms,
        asked => asked.min(limits.max_deadline_ms),
    };
    let stamp = options.stamp.map(stamp_from_wire).transpose()?;
    Ok(Checked { affinity: options.affinity, read, ack, stamp, deadline_ms })
}

fn stamp_from_wire(stamp: v1::SessionStamp) -> Result<SessionStamp> {
    if stamp.session == 0 || stamp.number == 0 {
        return Err(bad("a session stamp needs a session and a number from 1"));
    }
    if stamp.lowest_unanswered == 0 || stamp.lowest_unanswered > stamp.number {
        return Err(bad("a session stamp's lowest unanswered number is not within 1 to its number"));
    }
    if stamp.previous >= stamp.number {
        return Err(bad("a session stamp's previous number is not below its number"));
    }
    let given_up: Vec<NumberRange> = stamp.given_up.iter().map(|range| (range.first, range.last)).collect();
    let ascending = given_up.windows(2).all(|two| two[0].1 < two[1].0);
    let whole = given_up.iter().all(|(first, last)| (1..=*last).contains(first) && *last < stamp.number);
    if !ascending || !whole || given_up.len() > MAX_GIVEN_UP {
        return Err(bad(
            "a session stamp's ranges of numbers given up are too many, or not ascending below its number",
        ));
    }
    Ok(SessionStamp {
        session: SessionId(stamp.session),
        number: stamp.number,
        lowest_unanswered: stamp.lowest_unanswered,
        previous: Some(stamp.previous).filter(|previous| *previous != 0),
        first_sent: HybridTime(stamp.first_sent),
        given_up,
    })
}

pub(super) fn to_wire(request: &Request) -> Option<v1::RequestOptions> {
    let options = plain(request.read, request.ack, request.stamp.as_ref(), request.deadline_ms)?;
    Some(v1::RequestOptions { affinity: request.affinity.clone(), ..options })
}

/// Options without an affinity.
pub(super) fn plain(
    read: ReadLevel,
    ack: AckLevel,
    stamp: Option<&SessionStamp>,
    deadline_ms: u32,
) -> Option<v1::RequestOptions> {
    let read = match read {
        ReadLevel::Linearizable => v1::ReadLevel::Linearizable,
        ReadLevel::Local => v1::ReadLevel::Local,
    };
    Some(v1::RequestOptions {
        affinity: None,
        read: read.into(),
        ack: ack_to_wire(ack),
        stamp: stamp.map(|stamp| v1::SessionStamp {
            session: stamp.session.0,
            number: stamp.number,
            lowest_unanswered: stamp.lowest_unanswered,
            previous: stamp.previous.unwrap_or(0),
            first_sent: stamp.first_sent.0,
            given_up: stamp.given_up.iter().map(|&(first, last)| v1::NumberRange { first, last }).collect(),
        }),
        deadline_ms,
    })
}

fn ack_to_wire(ack: AckLevel) -> i32 {
    let level = match ack {
        AckLevel::MajorityFsync => v1::AckLevel::MajorityFsync,
        AckLevel::Accepted => v1::AckLevel::Accepted,
    };
    level.into()
}

/// `wrote` is false for reads, whose level would mean nothing.
pub(super) fn served_to_wire(served: &Served, wrote: bool) -> Option<v1::Served> {
    Some(v1::Served {
        served_by: served.node.to_string(),
        term: served.term,
        hops: served.hops,
        time: served.time.0,
        applied_index: served.applied,
        ack: if wrote { ack_to_wire(served.ack) } else { v1::AckLevel::Unspecified.into() },
    })
}

pub(super) fn served_from_wire(served: Option<v1::Served>) -> Result<Served> {
    let served = served.unwrap_or_default();
    let node: NodeId = match served.served_by.as_str() {
        "" => NodeId::default(),
        text => text.parse().map_err(|_| bad("served_by is no node id"))?,
    };
    let ack = match v1::AckLevel::try_from(served.ack) {
        Ok(v1::AckLevel::Accepted) => AckLevel::Accepted,
        _ => AckLevel::MajorityFsync,
    };
    Ok(Served {
        node,
        term: served.term,
        hops: served.hops,
        time: HybridTime(served.time),
        applied: served.applied_index,
        ack,
    })
}
