//! What a map is: its descriptor in the meta group, the options it was created with, and what a
//! caller asks for when it creates one.

use crate::error::{Code, Error, Result};
use crate::types::{KeyCodec, MapId, ValueCodec};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest time to live: a hundred years, far from the end of hybrid time.
pub const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3_600_000;

/// Checks a time to live.
///
/// # Errors
/// `InvalidRequest` when it is over [`MAX_TTL_MS`].
pub fn check_ttl(ttl_ms: u64) -> Result<()> {
    if ttl_ms <= MAX_TTL_MS {
        return Ok(());
    }
    let what = format!("a time to live of {ttl_ms} ms is over the limit of {MAX_TTL_MS} ms, a hundred years");
    Err(Error::new(Code::InvalidRequest, what).remedy("name a shorter time, or none: the entry then stays"))
}

/// What happens to a write that finds its map at a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eviction {
    /// It is refused.
    #[default]
    None,
    /// Entries that were not used for long make room.
    Lru,
    /// Entries that are seldom used make room.
    Lfu,
}

impl Eviction {
    /// Its name, as options and JSON spell it.
    pub fn name(self) -> &'static str {
        match self {
            Eviction::None => "none",
            Eviction::Lru => "lru",
            Eviction::Lfu => "lfu",
        }
    }
}

/// What a map was created with besides codecs. Every limit is of the whole map: each partition
/// enforces its share, the limit divided by the number of partitions, rounded up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct MapOptions {
    /// Milliseconds that an entry lives if its write names no time; 0: it stays.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl_ms: u64,
    /// Entries that the map may hold; 0: any number.
    #[serde(skip_serializing_if = "is_default")]
    pub max_entries: u64,
    /// Bytes of keys and values that the map may hold; 0: any number.
    #[serde(skip_serializing_if = "is_default")]
    pub max_bytes: u64,
    /// What happens at a limit.
    #[serde(skip_serializing_if = "is_default")]
    pub eviction: Eviction,
    /// Whether every peer keeps a copy to read from; the map's entries then live in one partition.
    #[serde(skip_serializing_if = "is_default")]
    pub replicated: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl MapOptions {
    /// Whether they are those of a map for which none were named.
    pub fn is_default(&self) -> bool {
        is_default(self)
    }

    /// Whether it has a limit.
    pub fn is_limited(&self) -> bool {
        self.max_entries != 0 || self.max_bytes != 0
    }

    /// How long an entry lives if its write names no time; rounded up to a millisecond.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl_ms = whole_ms(ttl);
        self
    }

    /// How many entries the map may hold.
    #[must_use]
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    /// How many bytes of keys and values the map may hold.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What happens at a limit.
    #[must_use]
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// Every peer keeps a copy to read from.
    #[must_use]
    pub fn replicated(mut self) -> Self {
        self.replicated = true;
        self
    }

    /// Whether they make sense together.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn check(&self) -> Result<()> {
        check_ttl(self.ttl_ms)?;
        if self.eviction != Eviction::None && !self.is_limited() {
            let what = format!("eviction {} is asked for, but neither max_entries nor max_bytes", self.eviction.name());
            return Err(Error::new(Code::InvalidRequest, what).remedy("name a limit, or leave the eviction out"));
        }
        Ok(())
    }
}

impl std::fmt::Display for MapOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |name: &str, value: u64| (value != 0).then(|| format!("{name} {value}"));
        let parts = [
            number("ttl_ms", self.ttl_ms),
            number("max_entries", self.max_entries),
            number("max_bytes", self.max_bytes),
            (self.eviction != Eviction::None).then(|| format!("eviction {}", self.eviction.name())),
            self.replicated.then(|| "replicated".to_owned()),
        ];
        let named: Vec<String> = parts.into_iter().flatten().collect();
        if named.is_empty() { f.write_str("no options") } else { f.write_str(&named.join(", ")) }
    }
}

/// A duration in whole milliseconds, rounded up: a short one is never none.
pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// What a map is: fixed in the meta group when the map is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDescriptor {
    /// Number of the map in row keys; never reused.
    pub id: MapId,
    /// The map's name, unique in the grid.
    pub name: String,
    /// How its keys are encoded.
    pub key_codec: KeyCodec,
    /// How its values are encoded.
    pub value_codec: ValueCodec,
    /// Schema version of its values, as the creator named it.
    pub schema: u32,
    /// What it was created with besides.
    #[serde(default, skip_serializing_if = "MapOptions::is_default")]
    pub options: MapOptions,
}

impl MapDescriptor {
    /// What decides where all its keys live, if the map does: a replicated map's entries live in
    /// one partition, by its name.
    pub fn affinity(&self) -> Option<bytes::Bytes> {
        self.options.replicated.then(|| bytes::Bytes::copy_from_slice(self.name.as_bytes()))
    }
}

/// A map that a caller wants to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Its name.
    pub name: String,
    /// How its keys are encoded.
    pub key_codec: KeyCodec,
    /// How its values are encoded.
    pub value_codec: ValueCodec,
    /// Schema version of its values.
    pub schema: u32,
    /// Its options; `None` takes a map with any options, and creates one with none.
    pub options: Option<MapOptions>,
}

impl MapSpec {
    /// A map with schema 0 and whatever options it has.
    pub fn new(name: impl Into<String>, key_codec: KeyCodec, value_codec: ValueCodec) -> Self {
        MapSpec { name: name.into(), key_codec, value_codec, schema: 0, options: None }
    }

    /// Names the schema version.
    #[must_use]
    pub fn schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }

    /// Names the options; a map that is there must have exactly these.
    #[must_use]
    pub fn options(mut self, options: MapOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Whether a map that is there is the one that is wanted.
    pub fn matches(&self, map: &MapDescriptor) -> bool {
        let options = self.options.as_ref().is_none_or(|options| *options == map.options);
        options && (self.key_codec, self.value_codec, self.schema) == (map.key_codec, map.value_codec, map.schema)
    }

    /// The descriptor of the map, once it has its number.
    pub fn descriptor(&self, id: MapId) -> MapDescriptor {
        MapDescriptor {
            id,
            name: self.name.clone(),
            key_codec: self.key_codec,
            value_codec: self.value_codec,
            schema: self.schema,
            options: self.options.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_together() {
        let limited = MapOptions::default().max_entries(5).eviction(Eviction::Lfu);
        assert_eq!(limited.check(), Ok(()));
        let unlimited = MapOptions::default().eviction(Eviction::Lru);
        assert_eq!(unlimited.check().map_err(|error| error.code), Err(Code::InvalidRequest));
        let endless = MapOptions { ttl_ms: MAX_TTL_MS + 1, ..MapOptions::default() };
        assert_eq!(endless.check().map_err(|error| error.code), Err(Code::InvalidRequest));
        assert_eq!(limited.to_string(), "max_entries 5, eviction lfu");
    }

    #[test]
    fn a_short_time_to_live_is_never_none() {
        assert_eq!(MapOptions::default().ttl(Duration::from_nanos(1)).ttl_ms, 1);
        assert_eq!(whole_ms(Duration::from_millis(7)), 7);
    }

    #[test]
    fn a_spec_without_options_takes_any() {
        let any = MapSpec::new("m", KeyCodec::Utf8, ValueCodec::Utf8);
        let some = any.clone().options(MapOptions::default().max_bytes(9)).descriptor(MapId(1));
        assert!(any.matches(&some));
        assert!(!any.clone().options(MapOptions::default()).matches(&some));
        assert!(!any.schema(1).matches(&some));
    }
}
