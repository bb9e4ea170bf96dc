//! MessagePack that others wrote: read to a bounded depth.
//!
//! In: bytes from a client, a peer or the disk. Out: a value. Nesting costs the reader's stack, which is
//! small in threads; without a bound a message of a kilobyte would end the process. Pure.

use rmp_serde::Deserializer;
use rmp_serde::decode::Error;
use serde::Deserialize;

/// How deep arrays and maps may lie in each other; serde_json has the same bound for JSON.
pub const MAX_DEPTH: usize = 128;

/// Reads a value; bytes behind it are not looked at.
///
/// # Errors
/// The bytes hold no such value, or one that is nested deeper than [`MAX_DEPTH`].
pub fn from_slice<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    let mut deserializer = Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    /// Lists in each other, the innermost empty.
    fn nested(depth: usize) -> Vec<u8> {
        [vec![0x91; depth - 1], vec![0x90]].concat()
    }

    #[test]
    fn what_is_nested_too_deep_is_an_error_and_not_the_end_of_the_process() {
        for depth in [1, MAX_DEPTH - 1] {
            from_slice::<serde_json::Value>(&nested(depth)).expect("within the bound");
        }
        for depth in [MAX_DEPTH + 1, 1_000, 1_000_000] {
            let said = from_slice::<serde_json::Value>(&nested(depth)).expect_err("too deep").to_string();
            assert_eq!(said, "depth limit exceeded");
            from_slice::<IgnoredAny>(&nested(depth)).expect_err("too deep");
        }
    }
}
