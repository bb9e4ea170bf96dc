//! What a typed map's key can be: encodings that are the same everywhere and keep the keys' order.

use crate::types::KeyCodec;
use bytes::Bytes;

/// What a map's key can be: its encoding is the same everywhere and keeps the keys' order.
pub trait MapKey {
    /// The codec of maps with such keys.
    const CODEC: KeyCodec;
    /// The key as a scan gives it.
    type Owned: Send + 'static;

    /// The key's bytes.
    fn to_key(&self) -> Bytes;
    /// The key of these bytes; `None` if they are none.
    fn read_key(bytes: &[u8]) -> Option<Self::Owned>;
}

impl MapKey for str {
    const CODEC: KeyCodec = KeyCodec::Utf8;
    type Owned = String;

    fn to_key(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }

    fn read_key(bytes: &[u8]) -> Option<String> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl MapKey for String {
    const CODEC: KeyCodec = KeyCodec::Utf8;
    type Owned = String;

    fn to_key(&self) -> Bytes {
        self.as_str().to_key()
    }

    fn read_key(bytes: &[u8]) -> Option<String> {
        str::read_key(bytes)
    }
}

impl MapKey for i64 {
    const CODEC: KeyCodec = KeyCodec::I64;
    type Owned = i64;

    /// Big-endian with the sign bit flipped: so negative numbers come first.
    fn to_key(&self) -> Bytes {
        Bytes::copy_from_slice(&((*self as u64) ^ (1 << 63)).to_be_bytes())
    }

    fn read_key(bytes: &[u8]) -> Option<i64> {
        Some((u64::from_be_bytes(bytes.try_into().ok()?) ^ (1 << 63)) as i64)
    }
}

impl MapKey for u64 {
    const CODEC: KeyCodec = KeyCodec::Bytes;
    type Owned = u64;

    /// Big-endian, in a map of raw bytes.
    fn to_key(&self) -> Bytes {
        Bytes::copy_from_slice(&self.to_be_bytes())
    }

    fn read_key(bytes: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    }
}

impl MapKey for [u8] {
    const CODEC: KeyCodec = KeyCodec::Bytes;
    type Owned = Vec<u8>;

    fn to_key(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }

    fn read_key(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

impl MapKey for Vec<u8> {
    const CODEC: KeyCodec = KeyCodec::Bytes;
    type Owned = Vec<u8>;

    fn to_key(&self) -> Bytes {
        self.as_slice().to_key()
    }

    fn read_key(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

impl<K: MapKey + ?Sized> MapKey for &K {
    const CODEC: KeyCodec = K::CODEC;
    type Owned = K::Owned;

    fn to_key(&self) -> Bytes {
        (**self).to_key()
    }

    fn read_key(bytes: &[u8]) -> Option<K::Owned> {
        K::read_key(bytes)
    }
}

/// A key for people, as its map's codec has it.
pub fn shown_key(codec: KeyCodec, key: &[u8]) -> String {
    match (codec, i64::read_key(key)) {
        (KeyCodec::I64, Some(number)) => number.to_string(),
        _ => String::from_utf8_lossy(key).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_have_golden_bytes() {
        assert_eq!(&(-2i64).to_key()[..], [0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE]);
        assert_eq!(&1i64.to_key()[..], [0x80, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(&258u64.to_key()[..], [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(&"é".to_key()[..], [0xC3, 0xA9]);
        assert_eq!(&vec![0u8, 255].to_key()[..], [0, 255]);
        assert_eq!((i64::read_key(b"short"), str::read_key(&[0xFF])), (None, None));
        assert_eq!(shown_key(KeyCodec::I64, &(-7i64).to_key()), "-7");
        assert_eq!(shown_key(KeyCodec::Utf8, b"12345678"), "12345678");
    }

    proptest! {
        #[test]
        fn encodings_keep_the_order_and_read_back(a: i64, b: i64, c: String, d: String, e: u64, f: u64) {
            prop_assert_eq!(a.cmp(&b), a.to_key().cmp(&b.to_key()));
            prop_assert_eq!(c.cmp(&d), c.to_key().cmp(&d.to_key()));
            prop_assert_eq!(e.cmp(&f), e.to_key().cmp(&f.to_key()));
            prop_assert_eq!((i64::read_key(&a.to_key()), u64::read_key(&e.to_key())), (Some(a), Some(e)));
            prop_assert_eq!(String::read_key(&c.to_key()), Some(c));
        }
    }
}
