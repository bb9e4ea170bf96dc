//! Watches: requests, messages and events, both ways.

use super::values::{bad, check_key, check_name, stored_from_wire, stored_to_wire, value_from_wire, value_to_wire};
use crate::config::Limits;
use crate::error::Result;
use crate::node::LocalEntry;
use crate::types::{
    PartitionId, RemovalCause, WatchEvent, WatchKeys, WatchKind, WatchMessage, WatchRequest, WatchStart, WatchToken,
};
use grid_proto::keystead::v1;
use v1::watch_event::Kind;
use v1::watch_request::Keys;

/// A checked request for a watch.
///
/// # Errors
/// `InvalidRequest`, `InvalidName`, `TooLarge`, `InvalidToken`.
pub fn watch_request_from_wire(request: v1::WatchRequest, limits: &Limits) -> Result<WatchRequest> {
    check_name("map", &request.map)?;
    let keys = match request.keys {
        None => WatchKeys::All,
        Some(Keys::Prefix(prefix)) if prefix.is_empty() => WatchKeys::All,
        Some(Keys::Prefix(prefix)) => {
            check_key("prefix", &prefix, limits)?;
            WatchKeys::Prefix(prefix)
        }
        Some(Keys::Key(key)) => {
            check_key("key", &key, limits)?;
            WatchKeys::Key(key)
        }
    };
    if let Some(affinity) = &request.affinity {
        check_key("affinity", affinity, limits)?;
    }
    let start = match (&request.token, request.snapshot) {
        (Some(token), _) => WatchStart::Token(WatchToken::decode(token)?),
        (None, true) => WatchStart::Snapshot,
        (None, false) => WatchStart::Now,
    };
    Ok(WatchRequest { map: request.map, keys, affinity: request.affinity, start, resnapshot: request.snapshot })
}

/// A request for a watch on the wire.
pub fn watch_request_to_wire(request: &WatchRequest) -> v1::WatchRequest {
    let keys = match &request.keys {
        WatchKeys::All => None,
        WatchKeys::Prefix(prefix) => Some(Keys::Prefix(prefix.clone())),
        WatchKeys::Key(key) => Some(Keys::Key(key.clone())),
    };
    let token = match &request.start {
        WatchStart::Token(token) => Some(token.encode()),
        WatchStart::Now | WatchStart::Snapshot => None,
    };
    let snapshot = request.resnapshot || request.start == WatchStart::Snapshot;
    v1::WatchRequest { map: request.map.clone(), keys, affinity: request.affinity.clone(), token, snapshot }
}

fn event_to_wire(event: WatchEvent) -> v1::WatchEvent {
    let kind = match event.kind {
        WatchKind::Entry(value) => Kind::Entry(value_to_wire(value)),
        WatchKind::Put(value) => Kind::Put(value_to_wire(value)),
        WatchKind::Removed(cause) => Kind::Removed(cause_to_wire(cause).into()),
        WatchKind::Reset => Kind::Reset(true),
    };
    v1::WatchEvent {
        partition: event.partition.0,
        key: event.key,
        revision: event.revision,
        time_ms: event.time_ms,
        kind: Some(kind),
    }
}

fn cause_to_wire(cause: RemovalCause) -> v1::RemovalCause {
    match cause {
        RemovalCause::Deleted => v1::RemovalCause::Deleted,
        RemovalCause::Expired => v1::RemovalCause::Expired,
        RemovalCause::Evicted => v1::RemovalCause::Evicted,
    }
}

fn cause_from_wire(number: i32) -> Result<RemovalCause> {
    match v1::RemovalCause::try_from(number) {
        Ok(v1::RemovalCause::Deleted) => Ok(RemovalCause::Deleted),
        Ok(v1::RemovalCause::Expired) => Ok(RemovalCause::Expired),
        Ok(v1::RemovalCause::Evicted) => Ok(RemovalCause::Evicted),
        Ok(v1::RemovalCause::Unspecified) | Err(_) => Err(bad(format!("there is no removal cause {number}"))),
    }
}

fn event_from_wire(event: v1::WatchEvent) -> Result<WatchEvent> {
    let kind = match event.kind {
        Some(Kind::Entry(value)) => WatchKind::Entry(value_from_wire(value)?),
        Some(Kind::Put(value)) => WatchKind::Put(value_from_wire(value)?),
        Some(Kind::Removed(cause)) => WatchKind::Removed(cause_from_wire(cause)?),
        Some(Kind::Reset(_)) => WatchKind::Reset,
        None => return Err(bad("a watch's event says nothing")),
    };
    Ok(WatchEvent {
        partition: PartitionId(event.partition),
        key: event.key,
        revision: event.revision,
        time_ms: event.time_ms,
        kind,
    })
}

/// A message on the wire.
pub fn watch_message_to_wire(message: WatchMessage) -> v1::WatchMessage {
    v1::WatchMessage {
        events: message.events.into_iter().map(event_to_wire).collect(),
        token: message.token.encode(),
        live: message.live,
    }
}

/// A message from the wire.
///
/// # Errors
/// `InvalidRequest`, `InvalidToken`: the peer speaks otherwise than this client.
pub fn watch_message_from_wire(message: v1::WatchMessage) -> Result<WatchMessage> {
    Ok(WatchMessage {
        events: message.events.into_iter().map(event_from_wire).collect::<Result<Vec<_>>>()?,
        token: WatchToken::decode(&message.token)?,
        live: message.live,
    })
}

/// An entry of a copy on the wire.
pub fn local_entry_to_wire(found: LocalEntry) -> v1::GetLocalReply {
    v1::GetLocalReply { entry: found.entry.map(stored_to_wire), revision: found.revision }
}

/// An entry of a copy from the wire.
///
/// # Errors
/// `InvalidRequest`.
pub fn local_entry_from_wire(reply: v1::GetLocalReply) -> Result<LocalEntry> {
    Ok(LocalEntry { entry: reply.entry.map(stored_from_wire).transpose()?, revision: reply.revision })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::types::{MapId, Position, Value};
    use bytes::Bytes;

    #[test]
    fn requests_and_messages_round_trip() {
        let token = WatchToken { map: MapId(3), positions: [(PartitionId(1), Position::Live { revision: 9 })].into() };
        for (keys, start, resnapshot) in [
            (WatchKeys::All, WatchStart::Now, false),
            (WatchKeys::Prefix(Bytes::from_static(b"p")), WatchStart::Snapshot, true),
            (WatchKeys::Key(Bytes::from_static(b"k")), WatchStart::Token(token.clone()), false),
        ] {
            let request = WatchRequest { map: "m".into(), keys, affinity: None, start, resnapshot };
            let back = watch_request_from_wire(watch_request_to_wire(&request), &Limits::default());
            assert_eq!(back, Ok(request));
        }
        let kinds = [
            WatchKind::Entry(Value::utf8("a")),
            WatchKind::Put(Value::i64(1)),
            WatchKind::Removed(RemovalCause::Deleted),
            WatchKind::Removed(RemovalCause::Expired),
            WatchKind::Removed(RemovalCause::Evicted),
            WatchKind::Reset,
        ];
        let event = |kind| WatchEvent { partition: PartitionId(1), key: "k".into(), revision: 2, time_ms: 3, kind };
        let message = WatchMessage { events: kinds.map(event).into(), token, live: true };
        assert_eq!(watch_message_from_wire(watch_message_to_wire(message.clone())), Ok(message));
    }

    #[test]
    fn a_bad_request_is_refused_with_its_code() {
        let good = || v1::WatchRequest { map: "m".into(), ..Default::default() };
        let code = |request| watch_request_from_wire(request, &Limits::default()).expect_err("bad").code;
        assert_eq!(code(v1::WatchRequest { map: String::new(), ..good() }), Code::InvalidName);
        assert_eq!(code(v1::WatchRequest { token: Some(Bytes::from_static(b"?")), ..good() }), Code::InvalidToken);
        let long = Some(Keys::Key(Bytes::from(vec![b'k'; 70_000])));
        assert_eq!(code(v1::WatchRequest { keys: long, ..good() }), Code::TooLarge);
    }
}
