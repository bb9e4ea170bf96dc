//! Between a typed map's values and what the grid stores: the encoded value with its writer's schema
//! version. What cannot be read is an error that says what, where and of which versions.

use super::{Entry, TypedMap};
use crate::client::codec::Codec;
use crate::client::keys::{MapKey, shown_key};
use crate::error::{Code, Error, Result};
use crate::types::{StoredValue, Value};
use bytes::Bytes;
use std::any::type_name;

impl<K: MapKey + ?Sized, V, C: Codec<V>> TypedMap<K, V, C> {
    pub(super) fn encode(&self, key: &Bytes, value: &V) -> Result<Value> {
        let data = C::encode(value).map_err(|why| self.unreadable(key, &why, "is not encodable", self.schema))?;
        Ok(Value { codec: C::CODEC, schema: self.schema, data })
    }

    pub(super) fn rewrite(&self, key: &Bytes, value: &V, stored: &StoredValue) -> Result<Value> {
        let schema = self.schema.max(stored.value.schema);
        let data = C::rewrite(value, &stored.value.data);
        let data = data.map_err(|why| self.unreadable(key, &why, "cannot be rewritten", stored.value.schema))?;
        Ok(Value { codec: C::CODEC, schema, data })
    }

    pub(super) fn decode(&self, key: &Bytes, stored: &StoredValue) -> Result<Entry<V>> {
        let value = &stored.value;
        if value.codec != C::CODEC {
            let what = format!("the stored value is {}, this program reads {}", value.codec, C::CODEC);
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

    pub(super) fn place(&self, key: &[u8]) -> String {
        format!("map {:?}, key {:?}", self.name, shown_key(K::CODEC, key))
    }
}
