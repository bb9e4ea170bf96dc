//! Maps of typed keys and values over a [`Client`].
//!
//! In: keys that have a canonical, order-preserving encoding, and serde values. Out: entries in
//! MessagePack with field names, so that a reader of another version finds the fields that it
//! knows. A stored value that is not of the expected kind is an error, never a guess.

use super::Client;
use crate::error::{Code, Error, Result};
use crate::types::{KeyCodec, StoredValue, Value, ValueCodec};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::marker::PhantomData;

/// What a map's key can be: its encoding is the same everywhere and keeps the keys' order.
pub trait MapKey {
    /// The codec of maps with such keys.
    const CODEC: KeyCodec;

    /// The key's bytes.
    fn to_key(&self) -> Bytes;
}

impl MapKey for str {
    const CODEC: KeyCodec = KeyCodec::Utf8;
    fn to_key(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}

impl MapKey for String {
    const CODEC: KeyCodec = KeyCodec::Utf8;
    fn to_key(&self) -> Bytes {
        self.as_str().to_key()
    }
}

impl MapKey for i64 {
    const CODEC: KeyCodec = KeyCodec::I64;
    /// Big-endian with the sign bit flipped: so negative numbers come first.
    fn to_key(&self) -> Bytes {
        Bytes::copy_from_slice(&((*self as u64) ^ (1 << 63)).to_be_bytes())
    }
}

impl MapKey for [u8] {
    const CODEC: KeyCodec = KeyCodec::Bytes;
    fn to_key(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl MapKey for Vec<u8> {
    const CODEC: KeyCodec = KeyCodec::Bytes;
    fn to_key(&self) -> Bytes {
        self.as_slice().to_key()
    }
}

impl<K: MapKey + ?Sized> MapKey for &K {
    const CODEC: KeyCodec = K::CODEC;
    fn to_key(&self) -> Bytes {
        (**self).to_key()
    }
}

/// A map whose keys are `K` and whose values are `V`. Clones share the client.
pub struct TypedMap<K: ?Sized, V> {
    client: Client,
    name: String,
    schema: u32,
    kinds: PhantomData<fn(&K) -> V>,
}

impl<K: ?Sized, V> Clone for TypedMap<K, V> {
    fn clone(&self) -> Self {
        TypedMap { client: self.client.clone(), name: self.name.clone(), schema: self.schema, kinds: PhantomData }
    }
}

impl<K: ?Sized, V> TypedMap<K, V> {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn map_name(&self) -> &str {
        &self.name
    }
}

impl<K: MapKey + ?Sized, V: Serialize + DeserializeOwned> TypedMap<K, V> {
    /// The map of that name; created if there is none.
    ///
    /// # Errors
    /// `MapExists` when there is one whose keys or values are of other codecs; what else the grid
    /// answers.
    pub async fn open(client: Client, name: &str) -> Result<Self> {
        let map = client.create_map(name, K::CODEC, ValueCodec::Msgpack, 0).await?;
        if map.key_codec != K::CODEC || map.value_codec != ValueCodec::Msgpack {
            let what = format!("its keys are {:?} and its values {:?}", map.key_codec, map.value_codec);
            return Err(Error::new(Code::MapExists, what).at(format!("map {name:?}")));
        }
        Ok(TypedMap { client, name: map.name, schema: map.schema, kinds: PhantomData })
    }

    /// The map's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads an entry, linearizably.
    ///
    /// # Errors
    /// `WrongCodec` when the stored value is not a `V`; what else the grid answers.
    pub async fn get(&self, key: &K) -> Result<Option<V>> {
        let stored = self.client.get(&self.name, key.to_key()).await?;
        stored.map(|stored| self.decode(&stored)).transpose()
    }

    /// Writes an entry; returns its revision.
    ///
    /// # Errors
    /// `WrongCodec` when the value cannot be encoded; what else the grid answers.
    pub async fn put(&self, key: &K, value: &V) -> Result<u64> {
        Ok(self.client.put(&self.name, key.to_key(), self.encode(value)?).await?.revision)
    }

    /// Writes an entry if there is none; whether it was written.
    ///
    /// # Errors
    /// As [`TypedMap::put`].
    pub async fn put_if_absent(&self, key: &K, value: &V) -> Result<bool> {
        Ok(self.client.put_if_absent(&self.name, key.to_key(), self.encode(value)?).await?.is_written())
    }

    /// Deletes an entry; whether there was one.
    ///
    /// # Errors
    /// What the grid answers.
    pub async fn delete(&self, key: &K) -> Result<bool> {
        Ok(self.client.delete(&self.name, key.to_key()).await?.existed)
    }

    fn encode(&self, value: &V) -> Result<Value> {
        let data = rmp_serde::to_vec_named(value)
            .map_err(|error| self.wrong(format!("the {} cannot be encoded: {error}", type_name::<V>())))?;
        Ok(Value { codec: ValueCodec::Msgpack, schema: self.schema, data: data.into() })
    }

    fn decode(&self, stored: &StoredValue) -> Result<V> {
        let value = &stored.value;
        if value.codec != ValueCodec::Msgpack {
            return Err(self.wrong(format!("the stored value is {:?}, not Msgpack", value.codec)));
        }
        rmp_serde::from_slice(&value.data).map_err(|error| {
            let what = format!("the stored value (schema {}) is no {}: {error}", value.schema, type_name::<V>());
            self.wrong(what)
        })
    }

    fn wrong(&self, what: String) -> Error {
        Error::new(Code::WrongCodec, what).at(format!("map {:?}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{FakePeer, World};
    use crate::client::ClientConfig;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        item: String,
        pieces: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct LaterOrder {
        pieces: u32,
        #[serde(default)]
        gift: bool,
    }

    fn order() -> Order {
        Order { item: "mug".to_owned(), pieces: 3 }
    }

    async fn client(address: String) -> Client {
        Client::connect(vec![address], ClientConfig::default()).await.expect("connects")
    }

    #[tokio::test]
    async fn entries_are_typed() {
        let (address, _stop) = FakePeer::new(&World::new()).serve().await;
        let client = client(address.to_string()).await;
        let orders: TypedMap<i64, Order> = TypedMap::open(client.clone(), "orders").await.expect("opens");
        assert_eq!(orders.get(&-7).await, Ok(None));
        orders.put(&-7, &order()).await.expect("put");
        assert_eq!(orders.put_if_absent(&-7, &order()).await, Ok(false));
        assert_eq!(orders.get(&-7).await, Ok(Some(order())));

        let later: TypedMap<i64, LaterOrder> = TypedMap::open(client.clone(), "orders").await.expect("opens");
        assert_eq!(later.get(&-7).await, Ok(Some(LaterOrder { pieces: 3, gift: false })), "other fields are skipped");

        let wrong: TypedMap<i64, Vec<String>> = TypedMap::open(client.clone(), "orders").await.expect("opens");
        let error = wrong.get(&-7).await.expect_err("an order is no list");
        assert_eq!(error.code, Code::WrongCodec);
        assert!(error.what.contains("Vec<") && error.place.contains("orders"), "{error}");

        assert_eq!(orders.delete(&-7).await, Ok(true));
        assert_eq!(orders.delete(&-7).await, Ok(false));
    }

    #[tokio::test]
    async fn a_map_of_other_codecs_is_refused() {
        let (address, _stop) = FakePeer::new(&World::new()).serve().await;
        // "m" holds utf8 under utf8.
        let opened = TypedMap::<str, Order>::open(client(address.to_string()).await, "m").await;
        assert_eq!(opened.err().expect("values are utf8").code, Code::MapExists);
    }

    #[test]
    fn keys_have_golden_bytes() {
        assert_eq!(&(-2i64).to_key()[..], [0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE]);
        assert_eq!(&1i64.to_key()[..], [0x80, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(&"é".to_key()[..], [0xC3, 0xA9]);
        assert_eq!(&vec![0u8, 255].to_key()[..], [0, 255]);
    }

    proptest! {
        #[test]
        fn encodings_keep_the_order(a: i64, b: i64, c: String, d: String) {
            prop_assert_eq!(a.cmp(&b), a.to_key().cmp(&b.to_key()));
            prop_assert_eq!(c.cmp(&d), c.to_key().cmp(&d.to_key()));
        }
    }
}
