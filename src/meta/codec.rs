//! How meta rows become bytes: a format version (1), then JSON. Fields that this version does not
//! know are kept in the row's `extra` and written back, so that an older peer does not undo a newer one.

use crate::error::{Code, Error, Result};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Fields of a row that this version does not know.
pub(super) type Extra = serde_json::Map<String, serde_json::Value>;

/// A kind of meta row.
pub trait Row: Serialize + DeserializeOwned {
    /// Its format version; raised only when older peers must not read it.
    const VERSION: u8 = 1;

    /// The row's bytes.
    ///
    /// # Errors
    /// `Internal`: a row that is no JSON is a bug.
    fn encode(&self) -> Result<Bytes> {
        let mut bytes = vec![Self::VERSION];
        serde_json::to_writer(&mut bytes, self)
            .map_err(|error| Error::internal(format!("a meta row cannot be encoded: {error}")))?;
        Ok(bytes.into())
    }

    /// Reads what [`Row::encode`] wrote.
    ///
    /// # Errors
    /// [`Code::CorruptRow`] when the version is unknown or the bytes are not such a row.
    fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::new(Code::CorruptRow, format!("a meta row {what}"));
        match bytes.split_first() {
            None => Err(bad("is empty".to_owned())),
            Some((version, json)) if *version == Self::VERSION => {
                serde_json::from_slice(json).map_err(|error| bad(format!("cannot be read: {error}")))
            }
            Some((version, _)) => Err(bad(format!("has format version {version}"))),
        }
    }
}

/// Identifiers as the text that people see: a JSON number cannot hold all of them everywhere.
pub(super) mod text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(in crate::meta) fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(in crate::meta) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Replicas with their nodes, as `[[replica, "node"], ...]`.
pub(super) mod placed {
    use super::text;
    use crate::types::{NodeId, ReplicaId};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Placed(ReplicaId, #[serde(with = "text")] NodeId);

    pub(in crate::meta) fn serialize<S: Serializer>(
        replicas: &[(ReplicaId, NodeId)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(replicas.iter().map(|(replica, node)| Placed(*replica, *node)))
    }

    pub(in crate::meta) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(ReplicaId, NodeId)>, D::Error> {
        let read = Vec::<Placed>::deserialize(deserializer)?;
        Ok(read.into_iter().map(|Placed(replica, node)| (replica, node)).collect())
    }
}
