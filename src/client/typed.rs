//! Maps of typed keys and values over a [`Client`].
//!
//! In: keys that have a canonical, order-preserving encoding, and values of a [`Codec`]. Out: entries
//! that say their codec and the schema version of the program that wrote them. Programs of several
//! versions share a map: a field that came later has a default in the newer program and is kept by
//! the older one when it updates an entry. A stored value that is not of the expected kind is an
//! error that names map, key and versions, never a guess.

mod stored;

use super::keys::MapKey;
use super::{Client, Conditional, Size};
use crate::error::{Code, Error, Result};
use crate::types::{Codec, Condition, MapOptions, MapSpec, Msgpack, Schema};
use futures::stream::{BoxStream, StreamExt};
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
    schema: Schema,
    kinds: PhantomData<fn(&K, C) -> V>,
}

impl<K: ?Sized, V, C> Clone for TypedMap<K, V, C> {
    fn clone(&self) -> Self {
        TypedMap { client: self.client.clone(), name: self.name.clone(), schema: self.schema, kinds: PhantomData }
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
        let schema = Schema { writes: options.schema, accepts_up_to: options.accepts_up_to };
        Ok(TypedMap { client, name: map.name, schema, kinds: PhantomData })
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

    /// Deletes an entry if the condition holds of it; whether it was deleted. A value to compare with
    /// is of this map's codec: see [`TypedMap::remove_if_is`].
    ///
    /// # Errors
    /// What the grid answers.
    pub async fn remove_if(&self, key: &K, condition: Condition) -> Result<bool> {
        let removed = self.client.remove_if(&self.name, key.to_key(), condition).await?;
        Ok(matches!(removed, super::Removed::Deleted(deleted) if deleted.existed))
    }

    /// Deletes an entry if it holds exactly this value, as this program writes it; whether it was
    /// deleted. One with fields that only another version knows is another value.
    ///
    /// # Errors
    /// As [`TypedMap::put`].
    pub async fn remove_if_is(&self, key: &K, value: &V) -> Result<bool> {
        let value = self.encode(&key.to_key(), value)?;
        self.remove_if(key, Condition::Value(value)).await
    }

    /// Reads an entry of a replicated map from some peer's copy, that reflects at least the revision
    /// `at_least`; 0 takes what is there. Also gives the map's revision that the copy is of.
    ///
    /// # Errors
    /// As [`TypedMap::get`] and [`Client::get_local`].
    pub async fn get_local(&self, key: &K, at_least: u64) -> Result<(Option<V>, u64)> {
        let key = key.to_key();
        let local = self.client.get_local(&self.name, &key, at_least).await?;
        let value = local.entry.map(|stored| self.decode(&key, &stored)).transpose()?;
        Ok((value.map(|entry| entry.value), local.revision))
    }

    /// Deletes all entries; gives their number. What is written meanwhile may stay.
    ///
    /// # Errors
    /// As [`Client::clear`].
    pub async fn clear(&self) -> Result<u64> {
        self.client.clear(&self.name).await
    }

    /// All entries, by partition, slot and key: see [`Client::scan`].
    pub fn scan(&self) -> BoxStream<'static, Result<(K::Owned, V)>>
    where
        K: 'static,
        V: 'static,
    {
        self.scan_prefix(b"")
    }

    /// The entries whose encoded keys start with these bytes, as [`TypedMap::scan`]: for keys of text
    /// the text's beginning.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> BoxStream<'static, Result<(K::Owned, V)>>
    where
        K: 'static,
        V: 'static,
    {
        let map = self.clone();
        let entries = self.client.scan(&self.name, prefix);
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
}

#[cfg(test)]
mod tests;
