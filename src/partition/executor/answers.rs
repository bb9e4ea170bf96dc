//! Answers: kept ones as rows, refusals when another replica leads.

use super::Job;
use crate::error::{Code, Error, Result};
use crate::raft::Leadership;
use crate::types::ReplyBody;
use bytes::Bytes;

/// A kept answer: version (1), then MessagePack of `Result<ReplyBody, Error>`.
const VERSION: u8 = 1;

pub(super) fn encode(answer: &Result<ReplyBody>) -> Result<Bytes> {
    let mut out = vec![VERSION];
    rmp_serde::encode::write(&mut out, answer)
        .map_err(|error| Error::internal(format!("an answer cannot be encoded: {error}")))?;
    Ok(out.into())
}

pub(super) fn decode(row: &[u8]) -> Result<Result<ReplyBody>> {
    let body = row.strip_prefix(&[VERSION]).ok_or_else(|| {
        Error::new(Code::UnknownFormat, format!("a kept answer has format version {:?}", row.first()))
    })?;
    crate::types::msgpack::from_slice(body)
        .map_err(|error| Error::new(Code::CorruptRow, format!("a kept answer cannot be read: {error}")))
}

/// Why commands are not executed here, and who may.
pub(super) fn led_elsewhere(now: &Leadership) -> Error {
    match now.leader {
        Some((_, node)) if !now.is_me => {
            Error::new(Code::NotLeader, "this peer does not lead the partition").leader(node.to_string())
        }
        _ => Error::new(Code::NoLeader, "the partition has no leader at the moment"),
    }
}

/// Answers a command that is not executed here. Of a write that is on its way through the log nobody
/// here can say any more whether it takes effect.
pub(super) fn refuse(job: Job, why: Error) {
    let error = match job.flown {
        true => Error { leader: why.leader, ..lost() },
        false => why,
    };
    job.reply.send(Err(error), job.request);
}

/// The answer to a write whose batch went to the log, and of which nothing was heard.
pub(super) fn lost() -> Error {
    Error::new(Code::OutcomeUnknown, "the leadership ended while the write was on its way")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_answers_have_golden_bytes() {
        let answer = Ok(ReplyBody::Written { revision: 300, previous: None });
        let row = encode(&answer).expect("encodes");
        assert_eq!(&row[..], b"\x01\x81\xa2Ok\x81\xa7Written\x91\xcd\x01\x2c");
        assert_eq!(decode(&row), Ok(answer));
        let failed: Result<ReplyBody> = Err(Error::new(Code::TaskFailed, "no"));
        assert_eq!(decode(&encode(&failed).expect("encodes")), Ok(failed));
        assert!(decode(b"\x02").is_err());
    }
}
