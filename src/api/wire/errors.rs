//! Errors: as messages on streams, as status with details in unary calls.

use crate::error::{Code, Error, Retry};
use grid_proto::keystead::v1;
use prost::Message;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

/// The metadata key that carries a unary call's `KSnnnn` code.
pub use crate::net::grpc::CODE_METADATA;

/// An error, for a stream or a status' details.
pub fn error_to_wire(error: &Error) -> v1::Error {
    let retry = match error.code.retry() {
        Retry::Never => v1::Retry::Never,
        Retry::SamePeer => v1::Retry::SamePeer,
        Retry::OtherPeer => v1::Retry::OtherPeer,
    };
    v1::Error {
        code: error.code.to_string(),
        what: error.what.clone(),
        place: error.place.clone(),
        remedy: error.remedy.clone(),
        retry: retry.into(),
        leader: error.leader.clone().unwrap_or_default(),
        resend_from: error.resend_from.unwrap_or(0),
    }
}

/// The error that a message carries. A code that this version does not know keeps its retry
/// advice: `Overloaded` and `PeerUnreachable` stand for "same peer" and "other peer".
pub fn error_from_wire(error: v1::Error) -> Error {
    let number = error.code.strip_prefix("KS").and_then(|number| number.parse().ok());
    let known = number.and_then(Code::from_number);
    let code = known.unwrap_or(match v1::Retry::try_from(error.retry) {
        Ok(v1::Retry::SamePeer) => Code::Overloaded,
        Ok(v1::Retry::OtherPeer) => Code::PeerUnreachable,
        _ => Code::Internal,
    });
    let what = if known.is_some() { error.what } else { format!("{}: {}", error.code, error.what) };
    Error {
        code,
        what,
        place: error.place,
        remedy: error.remedy,
        leader: Some(error.leader).filter(|leader| !leader.is_empty()),
        resend_from: Some(error.resend_from).filter(|number| *number != 0),
    }
}

/// The status of a unary call that failed.
pub fn status(error: &Error) -> Status {
    let mut metadata = MetadataMap::new();
    if let Ok(code) = MetadataValue::try_from(error.code.to_string()) {
        metadata.insert(CODE_METADATA, code);
    }
    let details = error_to_wire(error).encode_to_vec().into();
    Status::with_details_and_metadata(tonic::Code::from(error.code.grpc()), error.to_string(), details, metadata)
}

/// The error of a status: the one in its details, else the nearest to its gRPC code.
pub fn error_from_status(status: &Status) -> Error {
    if let Ok(error) = v1::Error::decode(status.details())
        && !error.code.is_empty()
    {
        return error_from_wire(error);
    }
    // A refusal at the door has no details: its code stands beside its words.
    let named = status.metadata().get(CODE_METADATA).and_then(|code| code.to_str().ok());
    let known = named.and_then(|code| code.strip_prefix("KS")?.parse().ok()).and_then(Code::from_number);
    if let (Some(named), Some(code)) = (named, known) {
        let said = status.message();
        let what = said.strip_prefix(named).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(said);
        return Error::new(code, what).remedy("");
    }
    let code = match status.code() {
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::ResourceExhausted => Code::Overloaded,
        tonic::Code::OutOfRange => Code::TooLarge,
        tonic::Code::InvalidArgument => Code::InvalidRequest,
        tonic::Code::Unimplemented => Code::ProtocolMismatch,
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Code::Unauthorized,
        // What tonic itself says when a connection breaks is one of these.
        tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unknown | tonic::Code::Internal => {
            Code::PeerUnreachable
        }
        _ => Code::Internal,
    };
    Error::new(code, status.message().to_owned())
}
