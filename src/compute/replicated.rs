//! What a handler sees of replicated maps: the copy that its peer holds. The one way to read
//! beyond one's slot; it never leaves the process, and nothing is written this way.

use super::context::place;
use crate::error::{Error, Result};
use crate::partition::SlotView;
use crate::types::{Schema, Value, read_value};
use serde::de::DeserializeOwned;

/// A replicated map, as this peer's copy has it at the moment of each read. A task that runs again
/// after a failure may find a newer copy: what depends on it is fixed by the first run's commit.
pub struct Replicated<'a> {
    pub(super) view: &'a dyn SlotView,
    pub(super) map: String,
}

impl Replicated<'_> {
    /// The value of a key, and the revision of the map that the copy is of.
    ///
    /// # Errors
    /// `NoSuchMap`; `NoLocalCopy` for a map that is not replicated, or not yet here.
    pub fn get_value(&self, key: &[u8]) -> Result<(Option<Value>, u64)> {
        let (entry, revision) = self.view.replicated(&self.map, key)?;
        Ok((entry.map(|entry| entry.value), revision))
    }

    /// The value of a key, decoded by its own codec.
    ///
    /// # Errors
    /// As [`Replicated::get_value`]; `ValueMismatch` when the value is not a `T`; `WrongCodec` for raw bytes.
    pub fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        let (value, _) = self.get_value(key)?;
        let place = |error: Error| error.at(place(&self.map, key));
        value.map(|value| read_value(Schema::default(), &value).map_err(place)).transpose()
    }
}
