//! Times to live: writes that end by themselves. All of it goes by the partition's time.

use super::ops::unexpected;
use super::{Client, Conditional, Touched, Written};
use crate::error::{Error, Result};
use crate::types::{Condition, Op, ReplyBody, Value, check_ttl, whole_ms};
use bytes::Bytes;
use std::time::Duration;

impl Client {
    /// Writes an entry that lives so long (rounded up to a millisecond; zero: for good), whatever
    /// its map says. Without conditions; [`Client::put_as`] takes one.
    ///
    /// # Errors
    /// `InvalidRequest` for a time over a hundred years; as [`Client::execute`].
    pub async fn put_with_ttl(&self, map: &str, key: impl AsRef<[u8]>, value: Value, ttl: Duration) -> Result<Written> {
        match self.put_as(map, key, value, Condition::Always, Some(ttl)).await? {
            Conditional::Written(written) => Ok(written),
            Conditional::Refused { .. } => Err(Error::internal("a write without a condition was refused")),
        }
    }

    /// Writes an entry under a condition, with a time to live (`None`: its map's; zero: for good).
    ///
    /// # Errors
    /// As [`Client::put_with_ttl`].
    pub async fn put_as(
        &self,
        map: &str,
        key: impl AsRef<[u8]>,
        value: Value,
        condition: Condition,
        ttl: Option<Duration>,
    ) -> Result<Conditional> {
        let ttl_ms = ttl.map(whole_ms);
        check_ttl(ttl_ms.unwrap_or(0))?;
        let codec = value.codec;
        let key = Bytes::copy_from_slice(key.as_ref());
        let op = Op::Put { map: map.to_owned(), key, value, condition, previous: false, ttl_ms };
        let reply = self.write(op, Some(codec)).await?;
        match reply.body {
            ReplyBody::Written { revision, .. } => Ok(Conditional::Written(Written { revision, served: reply.served })),
            ReplyBody::ConditionFailed(present) => Ok(Conditional::Refused { present, served: reply.served }),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Gives an entry a new time to live from now on (`None`: its map's; zero: for good) and keeps
    /// its value. This is a write: the entry gets a new revision.
    ///
    /// # Errors
    /// As [`Client::put_with_ttl`].
    pub async fn touch(&self, map: &str, key: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<Touched> {
        let ttl_ms = ttl.map(whole_ms);
        check_ttl(ttl_ms.unwrap_or(0))?;
        let op = Op::Touch { map: map.to_owned(), key: Bytes::copy_from_slice(key.as_ref()), ttl_ms };
        let reply = self.write(op, None).await?;
        match reply.body {
            ReplyBody::Touched { existed, revision } => Ok(Touched { existed, revision, served: reply.served }),
            _ => Err(unexpected(&reply)),
        }
    }
}
