//! The three systems behind one face: put a value, get a value's length.

mod etcd;
mod grid;
mod redis;
mod resp;

pub use etcd::{Etcd, leader as etcd_leader};
pub use grid::GridTarget;
pub use redis::Redis;

use anyhow::Result;
use std::fmt;

/// A system that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Three Keystead peers.
    Keystead,
    /// Three etcd members.
    Etcd,
    /// A Redis primary with two replicas.
    Redis,
}

impl System {
    /// What an acknowledgement promises there, and what a read does.
    pub fn promise(self) -> &'static str {
        match self {
            System::Keystead => "put: synced to disk at 2 of 3 peers; get: linearizable",
            System::Etcd => "put: synced to disk at 2 of 3 members; get: linearizable",
            System::Redis => {
                "put: synced to disk at the primary alone, 2 replicas follow without being waited for \
                 (a failover may lose it); get: from the primary, not linearizable across a failover"
            }
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::Keystead => "keystead",
            System::Etcd => "etcd",
            System::Redis => "redis",
        })
    }
}

/// A connection to a system. Clones share it.
#[derive(Clone)]
pub enum Target {
    /// Keystead.
    Grid(GridTarget),
    /// etcd.
    Etcd(Etcd),
    /// Redis.
    Redis(Redis),
}

impl Target {
    /// Writes a value; returns when it is acknowledged.
    ///
    /// # Errors
    /// What the system answers.
    pub async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        match self {
            Target::Grid(grid) => grid.put(key, value).await,
            Target::Etcd(etcd) => etcd.put(key, value).await,
            Target::Redis(redis) => redis.put(key, value).await,
        }
    }

    /// The length of a key's value.
    ///
    /// # Errors
    /// What the system answers.
    pub async fn get(&self, key: String) -> Result<Option<usize>> {
        match self {
            Target::Grid(grid) => grid.get(key).await,
            Target::Etcd(etcd) => etcd.get(key).await,
            Target::Redis(redis) => redis.get(key).await,
        }
    }
}
