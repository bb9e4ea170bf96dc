//! Between a typed map's values and what the grid stores: the encoded value with its writer's schema
//! version. What cannot be read is an error that says what, where and of which versions.

use super::{Entry, TypedMap};
use crate::client::keys::{MapKey, shown_key};
use crate::error::{Code, Error, Result};
use crate::types::{Codec, StoredValue, Value};
use bytes::Bytes;

impl<K: MapKey + ?Sized, V, C: Codec<V>> TypedMap<K, V, C> {
    pub(super) fn encode(&self, key: &Bytes, value: &V) -> Result<Value> {
        let data = self.schema.encoded::<V>(C::encode(value)).map_err(|error| error.at(self.place(key)))?;
        Ok(Value { codec: C::CODEC, schema: self.schema.writes, data })
    }

    pub(super) fn rewrite(&self, key: &Bytes, value: &V, stored: &StoredValue) -> Result<Value> {
        let data = C::rewrite(value, &stored.value.data);
        self.schema.rewritten::<V>(&stored.value, data).map_err(|error| error.at(self.place(key)))
    }

    pub(super) fn decode(&self, key: &Bytes, stored: &StoredValue) -> Result<Entry<V>> {
        let value = &stored.value;
        if value.codec != C::CODEC {
            let what = format!("the stored value is {}, this program reads {}", value.codec, C::CODEC);
            return Err(Error::new(Code::WrongCodec, what)
                .at(self.place(key))
                .remedy("open the map with the codec that it holds, or delete the entry"));
        }
        let decoded = self.schema.decoded(value, || C::decode(&value.data));
        let value = decoded.map_err(|error| error.at(self.place(key)))?;
        Ok(Entry { value, revision: stored.revision, schema: stored.value.schema })
    }

    pub(super) fn place(&self, key: &[u8]) -> String {
        format!("map {:?}, key {:?}", self.name, shown_key(K::CODEC, key))
    }
}
