//! Where a walk over a map's entries stands: what a page token says.
//!
//! In: a map, a slot, the last key that was seen there. Out: bytes that callers carry and need not
//! understand. A cursor names slots and keys, no peer, replica or snapshot, so it stays good while
//! leaders change and partitions move.

use crate::error::{Code, Error, Result};
use crate::types::{MapId, SLOTS, Slot};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// A place in a map: all of it that lies before has been seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The map; a later map of the same name has another id.
    pub map: MapId,
    /// The slot to go on in.
    pub slot: Slot,
    /// The last key seen in that slot; `None` begins it.
    pub after: Option<Bytes>,
}

const VERSION: u8 = 1;
const HEADER: usize = 1 + 4 + 2 + 1;

impl Cursor {
    /// A slot's beginning; `None` behind the last slot.
    pub fn at_slot(map: MapId, slot: u16) -> Option<Self> {
        (slot < SLOTS).then_some(Cursor { map, slot: Slot(slot), after: None })
    }

    /// Token bytes: version (1) | map (4, big-endian) | slot (2, big-endian) | 0, or 1 and the key.
    pub fn to_token(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER + self.after.as_ref().map_or(0, Bytes::len));
        out.put_u8(VERSION);
        out.put_u32(self.map.0);
        out.put_u16(self.slot.0);
        out.put_u8(u8::from(self.after.is_some()));
        out.put_slice(self.after.as_deref().unwrap_or_default());
        out.freeze()
    }

    /// Reads what [`Cursor::to_token`] wrote.
    ///
    /// # Errors
    /// `InvalidRequest` for anything else.
    pub fn from_token(token: &Bytes) -> Result<Self> {
        let bad = |what: &str| {
            Error::new(Code::InvalidRequest, format!("the page token {what}"))
                .remedy("give the token exactly as the last page named it, or none to begin anew")
        };
        match token.first() {
            Some(&VERSION) => {}
            Some(other) => return Err(bad(&format!("is of version {other}, which this peer does not know"))),
            None => return Err(bad("is empty")),
        }
        if token.len() < HEADER {
            return Err(bad("is cut off"));
        }
        let map = MapId(u32::from_be_bytes([token[1], token[2], token[3], token[4]]));
        let slot = Slot(u16::from_be_bytes([token[5], token[6]]));
        let key = token.slice(HEADER..);
        let after = match token[7] {
            0 if key.is_empty() => None,
            1 if !key.is_empty() => Some(key),
            _ => return Err(bad("is damaged")),
        };
        if slot.0 >= SLOTS {
            return Err(bad("names a slot that there is not"));
        }
        Ok(Cursor { map, slot, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_have_golden_bytes() {
        let cursor = Cursor { map: MapId(258), slot: Slot(515), after: Some(Bytes::from_static(b"ab")) };
        assert_eq!(&cursor.to_token()[..], b"\x01\0\0\x01\x02\x02\x03\x01ab");
        let begin = Cursor::at_slot(MapId(1), 7).expect("a slot");
        assert_eq!(&begin.to_token()[..], b"\x01\0\0\0\x01\0\x07\0");
        assert_eq!(Cursor::at_slot(MapId(1), SLOTS), None);
    }

    #[test]
    fn foreign_tokens_are_refused() {
        for bad in [&b""[..], b"\x02", b"\x01\0\0\0", b"\x01\0\0\0\x01\0\x07\0x", b"\x01\0\0\0\x01\0\x07\x01"] {
            let error = Cursor::from_token(&Bytes::copy_from_slice(bad)).expect_err("foreign");
            assert_eq!(error.code, Code::InvalidRequest, "{bad:?}");
        }
        assert!(Cursor::from_token(&Bytes::from_static(b"\x01\0\0\0\x01\xff\xff\0")).is_err());
    }

    proptest! {
        #[test]
        fn tokens_round_trip(map: u32, slot in 0..SLOTS, key in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..9))) {
            let cursor = Cursor { map: MapId(map), slot: Slot(slot), after: key.map(Bytes::from) };
            prop_assert_eq!(Cursor::from_token(&cursor.to_token()).expect("reads back"), cursor);
        }

        #[test]
        fn no_bytes_make_reading_a_token_panic(bytes: Vec<u8>) {
            let _ = Cursor::from_token(&Bytes::from(bytes));
        }
    }
}
