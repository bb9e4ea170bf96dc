//! Errors on the wire: a version byte, then code number, sentence, place, remedy, leader and, if
//! there is one, the number to resend from, in MessagePack. A code that this version does not know
//! arrives as `Internal` with its number.

use crate::error::{Code, Error};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Fields<'a>(
    u16,
    Cow<'a, str>,
    Cow<'a, str>,
    Cow<'a, str>,
    Option<Cow<'a, str>>,
    // Left out when there is none: so older peers wrote all errors, and read most.
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<u64>,
);

/// Encodes an error for another peer.
pub fn encode_error(error: &Error) -> Bytes {
    let leader = error.leader.as_deref().map(Cow::from);
    let (what, place, remedy) = ((&error.what).into(), (&error.place).into(), (&error.remedy).into());
    let fields = Fields(error.code as u16, what, place, remedy, leader, error.resend_from);
    let mut bytes = vec![VERSION];
    if let Err(problem) = rmp_serde::encode::write(&mut bytes, &fields) {
        tracing::error!(%problem, "an error could not be encoded");
    }
    bytes.into()
}

/// Decodes an error from another peer.
pub fn decode_error(bytes: &[u8]) -> Error {
    let Some((&VERSION, rest)) = bytes.split_first() else {
        return Error::internal("a peer sent an error of an unknown format");
    };
    let Fields(number, what, place, remedy, leader, resend_from) = match crate::types::msgpack::from_slice(rest) {
        Ok(fields) => fields,
        Err(problem) => return Error::internal(format!("a peer sent a damaged error: {problem}")),
    };
    let (code, what) = match Code::from_number(number) {
        Some(code) => (code, what.into_owned()),
        None => (Code::Internal, format!("KS{number:04}: {what}")),
    };
    let (place, remedy) = (place.into_owned(), remedy.into_owned());
    Error { code, what, place, remedy, leader: leader.map(Cow::into_owned), resend_from }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_format_is_fixed() {
        let error = Error::new(Code::NotLeader, "a").at("b").remedy("c").leader("d");
        let golden: &[u8] = &[1, 0x95, 0xCD, 0x0B, 0xB9, 0xA1, b'a', 0xA1, b'b', 0xA1, b'c', 0xA1, b'd'];
        assert_eq!(encode_error(&error), golden);
        assert_eq!(decode_error(golden), error);
        let resend = Error { leader: None, ..error }.resend_from(7);
        let golden: &[u8] = &[1, 0x96, 0xCD, 0x0B, 0xB9, 0xA1, b'a', 0xA1, b'b', 0xA1, b'c', 0xC0, 7];
        assert_eq!(encode_error(&resend), golden);
        assert_eq!(decode_error(golden), resend);
    }

    #[test]
    fn an_unknown_code_keeps_its_number_and_sentence() {
        let future: &[u8] = &[1, 0x95, 0xCD, 0x1F, 0x40, 0xA1, b'a', 0xA0, 0xA0, 0xC0];
        let error = decode_error(future);
        assert_eq!((error.code, error.what.as_str()), (Code::Internal, "KS8000: a"));
    }

    proptest! {
        #[test]
        fn any_error_comes_back(
            at in 0..Code::ALL.len(), what in ".*", place in ".*", remedy in ".*", leader in proptest::option::of(".*"),
            resend_from: Option<u64>,
        ) {
            let error = Error { code: Code::ALL[at], what, place, remedy, leader, resend_from };
            prop_assert_eq!(decode_error(&encode_error(&error)), error);
        }

        #[test]
        fn damage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _error: Error = decode_error(&bytes);
        }
    }
}
