//! Errors on the wire: a version byte, then code number, sentence, place, remedy and leader in
//! MessagePack. A code that this version does not know arrives as `Internal` with its number.

use crate::error::{Code, Error};
use bytes::Bytes;

const VERSION: u8 = 1;

/// Encodes an error for another peer.
pub fn encode_error(error: &Error) -> Bytes {
    let fields = (error.code as u16, &error.what, &error.place, &error.remedy, &error.leader);
    let mut bytes = vec![VERSION];
    if let Err(problem) = rmp_serde::encode::write(&mut bytes, &fields) {
        tracing::error!(%problem, "an error could not be encoded");
    }
    bytes.into()
}

/// Decodes an error from another peer.
pub fn decode_error(bytes: &[u8]) -> Error {
    type Fields = (u16, String, String, String, Option<String>);
    let Some((&VERSION, rest)) = bytes.split_first() else {
        return Error::internal("a peer sent an error of an unknown format");
    };
    match rmp_serde::from_slice::<Fields>(rest) {
        Err(problem) => Error::internal(format!("a peer sent a damaged error: {problem}")),
        Ok((number, what, place, remedy, leader)) => match Code::from_number(number) {
            Some(code) => Error { code, what, place, remedy, leader },
            None => Error { code: Code::Internal, what: format!("KS{number:04}: {what}"), place, remedy, leader },
        },
    }
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
        ) {
            let error = Error { code: Code::ALL[at], what, place, remedy, leader };
            prop_assert_eq!(decode_error(&encode_error(&error)), error);
        }

        #[test]
        fn damage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _error: Error = decode_error(&bytes);
        }
    }
}
