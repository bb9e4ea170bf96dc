//! Fuzz target: values as the backends that persist row by row keep them.

use super::row_value::{decode_value, encode_value};
use crate::error::Code;
use crate::fuzzing::Fuzz;

/// A value's bytes are sound only if its own key made them.
#[test]
fn backend_value() {
    let seeds = [encode_value(b"key", b"data"), encode_value(b"key", b""), encode_value(b"other", b"data")];
    Fuzz::new("backend_value", seeds).run(|input| match decode_value("a tree", b"key", input) {
        Ok(data) => {
            assert_eq!(encode_value(b"key", &data), input, "one spelling");
            "sound".to_owned()
        }
        Err(error) => {
            assert!(matches!(error.code, Code::CorruptLog | Code::UnknownFormat), "{error}");
            assert_eq!(error.code == Code::UnknownFormat, input.len() >= 5 && input[0] != 1);
            error.what
        }
    });
}
