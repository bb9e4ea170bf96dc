//! Maps of typed keys and values over a [`Client`].
//!
//! In: keys that have a canonical, order-preserving encoding, and values of a [`Codec`]. Out: entries
//! that say their codec and the schema version of the program that wrote them. Programs of several
//! versions share a map: a field that came later has a default in the newer program and is kept by
//! the older one when it updates an entry. A stored value that is not of the expected kind is an
//! error that names map, key and versions, never a guess.

use super::codec::{Codec, Msgpack};
use super::keys::{MapKey, shown_key};
use super::{Client, Conditional, Size};
use crate::error::{Code, Error, Result};
use crate::types::{Condition, MapOptions, MapSpec, StoredValue, Value};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use std::any::type_name;
use std::marker::PhantomData;
use std::time::Duration;

/// How often an update is worked out again when other writes come first.
const UPDATE_ATTEMPTS: usize = 1000;

/// How a program stands to a map's values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypedOptions {
    /// The schema version of the values that this program writes. Default 0.
    pub schema: u32,
    /// The newest schema version that it reads. Default: any, since fields are found by name.
    pub accepts_up_to: Option<u32>,
    /// What the map is to be if it has to be created; `None`: without limits.
    pub map: Option<MapOptions>,
}

/// An entry with what is known of its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<V> {
    /// The value.
    pub value: V,
    /// Revision of the write that made it.
    pub revision: u64,
    /// Schema version of the program that wrote it.
    pub schema: u32,
}

/// A map whose keys are `K` and whose values are `V`, encoded as `C` says. Clones share the client.
pub struct TypedMap<K: ?Sized, V, C = Msgpack> {
    client: Client,
    name: String,
    schema: u32,
    accepts_up_to: Option<u32>,
    kinds: PhantomData<fn(&K, C) -> V>,
}

impl<K: ?Sized, V, C> Clone for TypedMap<K, V, C> {
    fn clone(&self) -> Self {
        TypedMap {
            client: self.client.clone(),
            name: self.name.clone(),
            schema: self.schema,
            accepts_up_to: self.accepts_up_to,
            kinds: PhantomData,
        }
    }
}

impl<K: ?Sized, V, C> TypedMap<K, V, C> {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn map_name(&self) -> &str {
        &self.name
    }
}

impl<K: MapKey + ?Sized, V> TypedMap<K, V>
where
    Msgpack: Codec<V>,
{
    /// The map of that name, with values in MessagePack; created if there is none.
    ///
    /// # Errors
    /// `MapExists` when there is one whose keys or values are of other codecs; what else the grid
    /// answers.
    pub async fn open(client: Client, name: &str) -> Result<Self> {
        Self::open_with(client, name, TypedOptions::default()).await
    }
}

impl<K: MapKey + ?Sized, V, C: Codec<V>> TypedMap<K, V, C> {
    /// The map of that name; created if there is none. One that was created by a program with another
    /// schema version is taken as it is.
    ///
    /// # Errors
    /// As [`TypedMap::open`].
    pub async fn open_with(client: Client, name: &str, options: TypedOptions) -> Result<Self> {
        let mut spec = MapSpec::new(name, K::CODEC, C::CODEC).schema(options.schema);
        spec.options = options.map;
        let map = match client.create_map_as(&spec).await {
            Err(error) if error.code == Code::MapExists => {
                let known = client.maps().await?.into_iter().find(|map| map.name == name);
                let same = |map: &crate::types::MapDescriptor| {
                    map.key_codec == K::CODEC
                        && map.value_codec == C::CODEC
                        && spec.options.as_ref().is_none_or(|options| *options == map.options)
                };
                known.filter(same).ok_or(error)?
            }
            created => created?,
        };
        let (schema, accepts_up_to) = (options.schema, options.accepts_up_to);
        Ok(TypedMap { client, name: map.name, schema, accepts_up_to, kinds: PhantomData })
    }

    /// The map's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads an entry, linearizably.
    ///
    /// # Errors
    /// `WrongCodec`, `NewerSchema`, `ValueMismatch` when the stored value is not what this program
    /// reads; what else the grid answers.
    pub async fn get(&self, key: &K) -> Result<Option<V>> {
        Ok(self.entry(key).await?.map(|entry| entry.value))
    }

    /// Reads an entry with its revision and its writer's schema version.
    ///
    /// # Errors
    /// As [`TypedMap::get`].
    pub async fn entry(&self, key: &K) -> Result<Option<Entry<V>>> {
        let key = key.to_key();
        let stored = self.client.get(&self.name, &key).await?;
        stored.map(|stored| self.decode(&key, &stored)).transpose()
    }

    /// Writes an entry, whatever was there; returns its revision. Fields that only another version
    /// knows are gone: see [`TypedMap::update`].
    ///
    /// # Errors
    /// `ValueMismatch` when the value cannot be encoded; what else the grid answers.
    pub async fn put(&self, key: &K, value: &V) -> Result<u64> {
        let key = key.to_key();
        let value = self.encode(&key, value)?;
        Ok(self.client.put(&self.name, key, value).await?.revision)
    }

    /// Writes an entry that lives so long (zero: for good), whatever the map says; returns its revision.
    ///
    /// # Errors
    /// As [`TypedMap::put`].
    pub async fn put_with_ttl(&self, key: &K, value: &V, ttl: Duration) -> Result<u64> {
        let key = key.to_key();
        let value = self.encode(&key, value)?;
        Ok(self.client.put_with_ttl(&self.name, key, value, ttl).await?.revision)
    }

    /// Gives an entry a new time to live (`None`: the map's; zero: for good); whether there was one.
    ///
    /// # Errors
    /// What the grid answers.
    pub async fn touch(&self, key: &K, ttl: Option<Duration>) -> Result<bool> {
        Ok(self.client.touch(&self.name, key.to_key(), ttl).await?.existed)
    }

    /// Writes an entry if there is none; whether it was written.
    ///
    /// # Errors
    /// As [`TypedMap::put`].
    pub async fn put_if_absent(&self, key: &K, value: &V) -> Result<bool> {
        let key = key.to_key();
        let value = self.encode(&key, value)?;
        Ok(self.client.put_if_absent(&self.name, key, value).await?.is_written())
    }

    /// Writes an entry if there is one; whether it was written.
    ///
    /// # Errors
    /// As [`TypedMap::put`].
    pub async fn replace(&self, key: &K, value: &V) -> Result<bool> {
        let key = key.to_key();
        let value = self.encode(&key, value)?;
        Ok(self.client.replace(&self.name, key, value).await?.is_written())
    }

    /// Writes an entry if the present one has this revision; whether it was written.
    ///
    /// # Errors
    /// As [`TypedMap::put`].
    pub async fn compare_and_set(&self, key: &K, revision: u64, value: &V) -> Result<bool> {
        let key = key.to_key();
        let value = self.encode(&key, value)?;
        Ok(self.client.compare_and_set_revision(&self.name, key, revision, value).await?.is_written())
    }

    /// Writes an entry and gives the value that was there before.
    ///
    /// # Errors
    /// As [`TypedMap::put`] and [`TypedMap::get`]; the write stands even if the old value is not
    /// readable.
    pub async fn get_and_put(&self, key: &K, value: &V) -> Result<Option<V>> {
        let key = key.to_key();
        let replaced = self.client.get_and_put(&self.name, &key, self.encode(&key, value)?).await?;
        replaced.previous.map(|stored| Ok(self.decode(&key, &stored)?.value)).transpose()
    }

    /// Reads an entry, changes it, and writes it back, again and again until no other write came
    /// between. `None` in is no entry, `None` out deletes it. What the present value holds beside
    /// what `V` knows stays, and with it the newer of the two schema versions: so an older program
    /// updates entries of a newer one without harm. Its time to live begins anew, as with a put. Gives
    /// what was written.
    ///
    /// # Errors
    /// As [`TypedMap::get`]; `Overloaded` when other writes always come first.
    pub async fn update(&self, key: &K, change: impl Fn(Option<V>) -> Option<V>) -> Result<Option<V>> {
        let key = key.to_key();
        for _ in 0..UPDATE_ATTEMPTS {
            let stored = self.client.get(&self.name, &key).await?;
            let present = stored.as_ref().map(|stored| self.decode(&key, stored)).transpose()?;
            let Some(value) = change(present.map(|entry| entry.value)) else {
                let Some(stored) = stored else { return Ok(None) };
                let condition = Condition::Revision(stored.revision);
                match self.client.remove_if(&self.name, &key, condition).await? {
                    super::Removed::Deleted(_) => return Ok(None),
                    super::Removed::Refused { .. } => continue,
                }
            };
            let written = match &stored {
                None => self.client.put_if_absent(&self.name, &key, self.encode(&key, &value)?).await?,
                Some(stored) => {
                    let new = self.rewrite(&key, &value, stored)?;
                    self.client.compare_and_set_revision(&self.name, &key, stored.revision, new).await?
                }
            };
            if matches!(written, Conditional::Written(_)) {
                return Ok(Some(value));
            }
        }
        Err(Error::new(Code::Overloaded, "other writes always came first").at(self.place(&key)))
    }

    /// Deletes an entry; whether there was one.
    ///
    /// # Errors
    /// What the grid answers.
    pub async fn delete(&self, key: &K) -> Result<bool> {
        Ok(self.client.delete(&self.name, key.to_key()).await?.existed)
    }

    /// Deletes an entry and gives its value.
    ///
    /// # Errors
    /// As [`TypedMap::get`]; the deletion stands even if the value is not readable.
    pub async fn get_and_delete(&self, key: &K) -> Result<Option<V>> {
        let key = key.to_key();
        let deleted = self.client.get_and_delete(&self.name, &key).await?;
        deleted.map(|stored| Ok(self.decode(&key, &stored)?.value)).transpose()
    }

    /// All entries, by partition, slot and key: see [`Client::scan`].
    pub fn scan(&self) -> BoxStream<'static, Result<(K::Owned, V)>>
    where
        K: 'static,
        V: 'static,
    {
        let map = self.clone();
        let entries = self.client.scan(&self.name, "");
        entries
            .map(move |found| {
                let (key, stored) = found?;
                let wrong =
                    || Error::new(Code::ValueMismatch, "the key is not of the expected type").at(map.place(&key));
                Ok((K::read_key(&key).ok_or_else(wrong)?, map.decode(&key, &stored)?.value))
            })
            .boxed()
    }

    /// Counts the entries.
    ///
    /// # Errors
    /// What the grid answers.
    pub async fn size(&self) -> Result<Size> {
        self.client.size(&self.name).await
    }

    fn encode(&self, key: &Bytes, value: &V) -> Result<Value> {
        let data = C::encode(value).map_err(|why| self.unreadable(key, &why, "is not encodable", self.schema))?;
        Ok(Value { codec: C::CODEC, schema: self.schema, data })
    }

    fn rewrite(&self, key: &Bytes, value: &V, stored: &StoredValue) -> Result<Value> {
        let schema = self.schema.max(stored.value.schema);
        let data = C::rewrite(value, &stored.value.data);
        let data = data.map_err(|why| self.unreadable(key, &why, "cannot be rewritten", stored.value.schema))?;
        Ok(Value { codec: C::CODEC, schema, data })
    }

    fn decode(&self, key: &Bytes, stored: &StoredValue) -> Result<Entry<V>> {
        let value = &stored.value;
        if value.codec != C::CODEC {
            let what = format!("the stored value is {:?}, this program reads {:?}", value.codec, C::CODEC);
            return Err(Error::new(Code::WrongCodec, what)
                .at(self.place(key))
                .remedy("open the map with the codec that it holds, or delete the entry"));
        }
        if let Some(newest) = self.accepts_up_to.filter(|newest| value.schema > *newest) {
            let what = format!("the stored value has schema {}, this program accepts up to {newest}", value.schema);
            return Err(Error::new(Code::NewerSchema, what).at(self.place(key)));
        }
        let decoded = C::decode(&value.data);
        let decoded = decoded.map_err(|why| self.unreadable(key, &why, "cannot be read", value.schema))?;
        Ok(Entry { value: decoded, revision: stored.revision, schema: value.schema })
    }

    fn unreadable(&self, key: &Bytes, why: &str, what: &str, schema: u32) -> Error {
        let kind = type_name::<V>();
        let what = format!("a value of schema {schema} {what} as {kind} of schema {}: {why}", self.schema);
        Error::new(Code::ValueMismatch, what).at(self.place(key))
    }

    fn place(&self, key: &[u8]) -> String {
        format!("map {:?}, key {:?}", self.name, shown_key(K::CODEC, key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Json, Plain};
    use super::*;
    use crate::api::testing::{FakePeer, World};
    use crate::client::ClientConfig;
    use futures::TryStreamExt;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        item: String,
        pieces: u32,
    }

    /// A later version: one field more, one less.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

    fn of_schema(schema: u32) -> TypedOptions {
        TypedOptions { schema, ..TypedOptions::default() }
    }

    #[tokio::test]
    async fn entries_are_typed() {
        let (address, _stop) = FakePeer::new(&World::new()).serve().await;
        let client = client(address.to_string()).await;
        let orders: TypedMap<i64, Order> = TypedMap::open(client.clone(), "orders").await.expect("opens");
        assert_eq!(orders.get(&-7).await, Ok(None));
        assert_eq!(orders.replace(&-7, &order()).await, Ok(false));
        let revision = orders.put(&-7, &order()).await.expect("put");
        assert_eq!(orders.put_if_absent(&-7, &order()).await, Ok(false));
        assert_eq!(orders.entry(&-7).await, Ok(Some(Entry { value: order(), revision, schema: 0 })));
        assert_eq!(orders.compare_and_set(&-7, revision + 1, &order()).await, Ok(false));
        let two = Order { pieces: 2, ..order() };
        assert_eq!(orders.get_and_put(&-7, &two).await, Ok(Some(order())));
        orders.put(&5, &order()).await.expect("put");
        let all: Vec<(i64, Order)> = orders.scan().try_collect().await.expect("scans");
        assert_eq!(all, [(-7, two.clone()), (5, order())]);
        assert_eq!(orders.size().await.expect("sizes").entries, 2);
        assert_eq!(orders.get_and_delete(&-7).await, Ok(Some(two)));
        assert_eq!(orders.delete(&5).await, Ok(true));
        assert_eq!(orders.delete(&5).await, Ok(false));
    }

    #[tokio::test]
    async fn programs_of_two_versions_share_a_map() {
        let (address, _stop) = FakePeer::new(&World::new()).serve().await;
        let client = client(address.to_string()).await;
        let old = TypedMap::<i64, Order>::open_with(client.clone(), "orders", of_schema(1)).await.expect("opens");
        let new = TypedMap::<i64, LaterOrder>::open_with(client.clone(), "orders", of_schema(2)).await.expect("opens");

        // An old writer beside a new reader, and the other way round.
        old.put(&1, &order()).await.expect("put");
        let read = new.entry(&1).await.expect("reads").expect("there");
        assert_eq!((read.value, read.schema), (LaterOrder { pieces: 3, gift: false }, 1));
        let given = new.update(&1, |present| present.map(|order| LaterOrder { gift: true, ..order })).await;
        assert_eq!(given, Ok(Some(LaterOrder { pieces: 3, gift: true })));
        // The removed field stayed for the old reader.
        assert_eq!(old.get(&1).await, Ok(Some(order())));

        // The old program's update leaves what the new one has written.
        old.update(&1, |present| present.map(|order| Order { pieces: 9, ..order })).await.expect("updates");
        let read = new.entry(&1).await.expect("reads").expect("there");
        assert_eq!((read.value, read.schema), (LaterOrder { pieces: 9, gift: true }, 2));

        // A new entry without the removed field is none to the old program: it says what, where and
        // of which versions.
        new.put(&2, &LaterOrder { pieces: 1, gift: false }).await.expect("put");
        let error = old.get(&2).await.expect_err("no item");
        assert_eq!(error.code, Code::ValueMismatch);
        for part in ["schema 2", "schema 1", "Order", "item"] {
            assert!(error.what.contains(part), "{part} in {error}");
        }
        assert_eq!(error.place, "map \"orders\", key \"2\"");

        let options = TypedOptions { schema: 1, accepts_up_to: Some(1), map: None };
        let strict = TypedMap::<i64, Order>::open_with(client, "orders", options).await.expect("opens");
        let error = strict.get(&1).await.expect_err("newer");
        assert_eq!(error.code, Code::NewerSchema);
        assert!(error.what.contains("schema 2") && error.what.contains("up to 1"), "{error}");
        assert!(error.place.contains("orders") && error.place.contains('1'), "{error}");
        let error = strict.update(&1, |present| present).await.expect_err("newer");
        assert_eq!(error.code, Code::NewerSchema, "what is not read is not rewritten");
    }

    #[tokio::test]
    async fn updates_race_without_loss_and_may_delete() {
        let (address, _stop) = FakePeer::new(&World::new()).serve().await;
        let client = client(address.to_string()).await;
        let open = || TypedMap::<str, i64, Plain>::open_with(client.clone(), "n", TypedOptions::default());
        let counts = open().await.expect("opens");
        let add = |map: TypedMap<str, i64, Plain>| async move {
            for _ in 0..20 {
                map.update("k", |present| Some(present.unwrap_or(0) + 1)).await.expect("updates");
            }
        };
        futures::future::join_all((0..4).map(|_| add(counts.clone()))).await;
        assert_eq!(counts.get("k").await, Ok(Some(80)));
        assert_eq!(counts.update("k", |_| None).await, Ok(None));
        assert_eq!(counts.get("k").await, Ok(None));
        assert_eq!(counts.update("k", |_| None).await, Ok(None));
    }

    #[tokio::test]
    async fn each_codec_holds_its_values() {
        let (address, _stop) = FakePeer::new(&World::new()).serve().await;
        let client = client(address.to_string()).await;
        let defaults = TypedOptions::default;
        let json = TypedMap::<str, Order, Json>::open_with(client.clone(), "j", defaults()).await.expect("opens");
        json.put("k", &order()).await.expect("put");
        assert_eq!(json.get("k").await, Ok(Some(order())));
        let text = TypedMap::<u64, String, Plain>::open_with(client.clone(), "t", defaults()).await.expect("opens");
        text.put(&7, &"x".to_owned()).await.expect("put");
        let all: Vec<(u64, String)> = text.scan().try_collect().await.expect("scans");
        assert_eq!(all, [(7, "x".to_owned())]);
        let raw = TypedMap::<[u8], Bytes, Plain>::open_with(client.clone(), "b", defaults()).await.expect("opens");
        raw.put(b"k", &Bytes::from_static(b"\0")).await.expect("put");
        assert_eq!(raw.get(b"k").await, Ok(Some(Bytes::from_static(b"\0"))));

        let wrong: TypedMap<str, Vec<String>, Json> =
            TypedMap::open_with(client.clone(), "j", defaults()).await.expect("opens");
        let error = wrong.get("k").await.expect_err("an order is no list");
        assert!(error.code == Code::ValueMismatch && error.what.contains("Vec<"), "{error}");
        let opened = TypedMap::<str, Order>::open(client.clone(), "j").await;
        assert_eq!(opened.err().expect("values are JSON").code, Code::MapExists);
        // "m" holds utf8 under utf8.
        let opened = TypedMap::<i64, String, Plain>::open_with(client, "m", defaults()).await;
        assert_eq!(opened.err().expect("keys are utf8").code, Code::MapExists);
    }
}
