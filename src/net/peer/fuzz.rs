//! Fuzz targets: what peers send each other: messages with frames, greetings, errors.

use super::*;
use crate::error::{Code, Error};
use crate::fuzzing::Fuzz;
use crate::types::{GridId, Incarnation};
use grid_proto::keystead::peer::v1::response_frame::Outcome;
use grid_proto::keystead::peer::v1::{RequestFrame, Requests, ResponseFrame, Responses, ToCallee, ToCaller};
use grid_proto::keystead::peer::v1::{to_callee, to_caller};
use prost::Message;

fn me() -> PeerIdentity {
    PeerIdentity { grid: Some(GridId(7)), node: NodeId(1), incarnation: Incarnation(2), name: "n1".into() }
}

fn error() -> Error {
    Error::new(Code::NotLeader, "another peer leads").at("partition 3").remedy("ask it").leader("h:1")
}

#[test]
fn peer_message() {
    let frame = RequestFrame { id: 1, group: 3, kind: 32, deadline_ms: 500, payload: "payload".into() };
    let requests = Requests { frames: vec![frame.clone(), RequestFrame { kind: 900, ..frame }] };
    let answer = |id, outcome| ResponseFrame { id, outcome };
    let frames = vec![
        answer(1, Some(Outcome::Payload("answer".into()))),
        answer(2, Some(Outcome::Error(encode_error(&error())))),
        answer(3, None),
    ];
    let seeds = [
        ToCallee { content: Some(to_callee::Content::Greeting(me().greeting())) }.encode_to_vec(),
        ToCallee { content: Some(to_callee::Content::Requests(requests)) }.encode_to_vec(),
        ToCaller { content: Some(to_caller::Content::Responses(Responses { frames })) }.encode_to_vec(),
    ];
    Fuzz::new("peer_message", seeds).protobuf().bytes_per_byte(256).run(|input| {
        let callee = match ToCallee::decode(input) {
            Ok(ToCallee { content: Some(to_callee::Content::Greeting(greeting)) }) => greeted(&greeting),
            Ok(ToCallee { content: Some(to_callee::Content::Requests(requests)) }) => {
                // Kinds beyond a byte are refused, not cut.
                let known = requests.frames.iter().filter(|frame| u8::try_from(frame.kind).is_ok()).count();
                format!("requests {} {}", known.min(2), requests.frames.len().min(2))
            }
            Ok(ToCallee { content: None }) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        };
        let caller = match ToCaller::decode(input) {
            Ok(ToCaller { content: Some(to_caller::Content::Responses(responses)) }) => {
                let errors = responses.frames.into_iter().filter_map(|frame| match frame.outcome {
                    Some(Outcome::Error(bytes)) => Some(decode_error(&bytes).code),
                    _ => None,
                });
                format!("errors {:?}", errors.take(3).collect::<Vec<_>>())
            }
            Ok(ToCaller { content }) => format!("{}", content.is_some()),
            Err(_) => String::new(),
        };
        format!("{callee} | {caller}")
    });
}

fn greeted(greeting: &grid_proto::keystead::peer::v1::Greeting) -> String {
    match me().accept(greeting) {
        Ok(peer) => {
            assert!(peer.grid.is_none_or(|grid| grid == GridId(7)), "a peer of another grid");
            let back = peer.greeting();
            assert_eq!((back.node, &back.grid, &back.name), (greeting.node, &greeting.grid, &greeting.name));
            format!("accepted, {}", peer.grid.is_some())
        }
        Err(error) => {
            assert!(matches!(error.code, Code::ProtocolMismatch | Code::ForeignGrid), "{error}");
            format!("{}", error.code)
        }
    }
}

#[test]
fn peer_error() {
    let resend = Error { resend_from: Some(4), ..Error::new(Code::ResendFrom, "resend") };
    Fuzz::new("peer_error", [error(), resend].map(|error| encode_error(&error))).run(|input| {
        let error = decode_error(input);
        assert_eq!(decode_error(&encode_error(&error)), error, "it is passed on as it came");
        format!("{} {}", error.code, if error.code == Code::Internal { error.what } else { String::new() })
    });
}
