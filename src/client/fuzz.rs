//! Fuzz targets: keys of typed maps.

use super::*;
use crate::fuzzing::Fuzz;
use crate::types::KeyCodec;

#[test]
fn typed_key() {
    let seeds = [(-7i64).to_key(), u64::MAX.to_key(), "käse".to_key(), [0u8, 255][..].to_key()];
    Fuzz::new("typed_key", seeds).run(|input| {
        if let Some(key) = i64::read_key(input) {
            assert_eq!(key.to_key(), input);
        }
        if let Some(key) = u64::read_key(input) {
            assert_eq!(key.to_key(), input);
        }
        if let Some(key) = String::read_key(input) {
            assert_eq!(key.to_key(), input);
        }
        for codec in [KeyCodec::Bytes, KeyCodec::Utf8, KeyCodec::I64] {
            shown_key(codec, input);
        }
        format!("{} {}", i64::read_key(input).is_some(), String::read_key(input).is_some())
    });
}
