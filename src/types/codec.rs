//! How a typed map's values become bytes, and how a program rewrites a value of which it does not
//! know every field.
//!
//! In: Rust values, bytes that another version may have written. Out: the other. A rewrite keeps the
//! fields that the reader has no name for, at whatever depth below maps of fields; inside lists there
//! is nothing to tell them apart by, and a list is written as the program has it. Pure.

use super::tree::{Path, Tree};
use crate::types::ValueCodec;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How values of type `V` become bytes. The errors are sentences without the place.
pub trait Codec<V>: Send + Sync + 'static {
    /// The codec of maps with such values.
    const CODEC: ValueCodec;

    /// The value's bytes.
    ///
    /// # Errors
    /// Why it has none.
    fn encode(value: &V) -> Result<Bytes, String>;

    /// The value of these bytes.
    ///
    /// # Errors
    /// Why they are none.
    fn decode(data: &Bytes) -> Result<V, String>;

    /// The bytes of a value that takes the place of `before`: fields of it that `V` does not know
    /// stay.
    ///
    /// # Errors
    /// As the others.
    fn rewrite(value: &V, _before: &Bytes) -> Result<Bytes, String> {
        Self::encode(value)
    }
}

/// MessagePack with field names: the default for serde types.
#[derive(Clone, Copy, Debug)]
pub struct Msgpack;

/// JSON text.
#[derive(Clone, Copy, Debug)]
pub struct Json;

/// Text, raw bytes and counters as they are: `String`, `Bytes`, `Vec<u8>` and `i64`.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

fn to_msgpack<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(value).map_err(|error| error.to_string())
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

impl<V: Serialize + DeserializeOwned> Codec<V> for Msgpack {
    const CODEC: ValueCodec = ValueCodec::Msgpack;

    fn encode(value: &V) -> Result<Bytes, String> {
        to_msgpack(value).map(Bytes::from)
    }

    fn decode(data: &Bytes) -> Result<V, String> {
        super::msgpack::from_slice(data).map_err(|error| error.to_string())
    }

    fn rewrite(value: &V, before: &Bytes) -> Result<Bytes, String> {
        let from = |data: &[u8]| super::msgpack::from_slice(data).map_err(|error| error.to_string());
        rewrite::<V, Self>(value, before, from, to_msgpack)
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    const CODEC: ValueCodec = ValueCodec::Json;

    fn encode(value: &V) -> Result<Bytes, String> {
        to_json(value).map(Bytes::from)
    }

    fn decode(data: &Bytes) -> Result<V, String> {
        serde_json::from_slice(data).map_err(|error| error.to_string())
    }

    fn rewrite(value: &V, before: &Bytes) -> Result<Bytes, String> {
        let from = |data: &[u8]| serde_json::from_slice(data).map_err(|error| error.to_string());
        rewrite::<V, Self>(value, before, from, to_json)
    }
}

impl Codec<String> for Plain {
    const CODEC: ValueCodec = ValueCodec::Utf8;

    fn encode(value: &String) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(data: &Bytes) -> Result<String, String> {
        String::from_utf8(data.to_vec()).map_err(|error| error.to_string())
    }
}

impl Codec<Bytes> for Plain {
    const CODEC: ValueCodec = ValueCodec::Bytes;

    fn encode(value: &Bytes) -> Result<Bytes, String> {
        Ok(value.clone())
    }

    fn decode(data: &Bytes) -> Result<Bytes, String> {
        Ok(data.clone())
    }
}

impl Codec<Vec<u8>> for Plain {
    const CODEC: ValueCodec = ValueCodec::Bytes;

    fn encode(value: &Vec<u8>) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(data: &Bytes) -> Result<Vec<u8>, String> {
        Ok(data.to_vec())
    }
}

impl Codec<i64> for Plain {
    const CODEC: ValueCodec = ValueCodec::I64;

    fn encode(value: &i64) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(&value.to_le_bytes()))
    }

    fn decode(data: &Bytes) -> Result<i64, String> {
        let bytes = data[..].try_into().map_err(|_| format!("{} bytes are no i64", data.len()))?;
        Ok(i64::from_le_bytes(bytes))
    }
}

/// The new value's fields, and those of `before` that `V` does not know.
fn rewrite<V, C: Codec<V>>(
    value: &V,
    before: &Bytes,
    from: impl Fn(&[u8]) -> Result<Tree, String>,
    to: impl Fn(&Tree) -> Result<Vec<u8>, String>,
) -> Result<Bytes, String> {
    let plain = C::encode(value)?;
    let old = from(before)?;
    let known = C::encode(&C::decode(before)?)?;
    let mut missing = old.missing_in(&from(&known)?);
    if missing.is_empty() {
        return Ok(plain);
    }
    // A field may be missing because `V` writes it under another name, or not at all: it knows it.
    // It does not know what makes no difference when it is gone.
    let unknown = |gone: &[(Path, Tree)]| {
        let mut without = old.clone();
        gone.iter().for_each(|(path, _)| without.remove(path));
        let again = to(&without).and_then(|data| C::encode(&C::decode(&data.into())?));
        again.is_ok_and(|again| again == known)
    };
    if !unknown(&missing) {
        missing.retain(|field| unknown(std::slice::from_ref(field)));
    }
    let mut new = from(&plain)?;
    for (path, value) in missing {
        new.add(&path, value);
    }
    to(&new).map(Bytes::from)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Address {
        town: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Person {
        name: String,
        address: Address,
        #[serde(default, alias = "phone", skip_serializing_if = "Option::is_none")]
        mobile: Option<String>,
    }

    fn rewritten<C: Codec<Person>>(before: &Bytes, change: impl FnOnce(&mut Person)) -> Bytes {
        let mut person = C::decode(before).expect("a person");
        change(&mut person);
        C::rewrite(&person, before).expect("rewritten")
    }

    fn later() -> serde_json::Value {
        json!({
            "name": "Ann", "age": 40, "address": {"town": "Ulm", "zip": "89073", "geo": {"x": 1.5}},
            "tags": ["a", {"b": null}], "phone": "1",
        })
    }

    fn check(now: serde_json::Value) {
        assert_eq!(
            now,
            json!({
                "name": "Eve", "age": 40, "address": {"town": "Bonn", "zip": "89073", "geo": {"x": 1.5}},
                "tags": ["a", {"b": null}], "mobile": "1",
            }),
            "unknown fields stay, at every depth; what is known under an old name is not kept twice"
        );
    }

    fn move_and_rename(person: &mut Person) {
        person.name = "Eve".to_owned();
        person.address.town = "Bonn".to_owned();
    }

    #[test]
    fn unknown_fields_survive_a_rewrite_in_json() {
        let before = Bytes::from(later().to_string());
        let now = rewritten::<Json>(&before, move_and_rename);
        check(serde_json::from_slice(&now).expect("JSON"));
    }

    #[test]
    fn unknown_fields_survive_a_rewrite_in_messagepack() {
        let before = Bytes::from(rmp_serde::to_vec_named(&later()).expect("encodes"));
        let now = rewritten::<Msgpack>(&before, move_and_rename);
        check(rmp_serde::from_slice(&now).expect("MessagePack"));
    }

    #[test]
    fn a_known_field_that_was_cleared_does_not_come_back() {
        let before = Bytes::from(later().to_string());
        let now = rewritten::<Json>(&before, |person| person.mobile = None);
        let now: serde_json::Value = serde_json::from_slice(&now).expect("JSON");
        assert!(now.get("mobile").is_none() && now.get("phone").is_none(), "{now}");
        assert_eq!(now["age"], 40);
    }

    #[test]
    fn a_value_without_unknown_fields_is_written_as_it_is() {
        let person = Person { name: "A".into(), address: Address { town: "B".into() }, mobile: None };
        let before = <Msgpack as Codec<Person>>::encode(&person).expect("encodes");
        assert_eq!(<Msgpack as Codec<Person>>::rewrite(&person, &before).expect("rewrites"), before);
    }
}
