//! Once all is mended and quiet, every replica holds what the leader says.
//!
//! In: the peers, each asked by itself for what it has applied (a local read is for the peer that is
//! named). Out: replicas that stay different. A write of unknown outcome may still arrive meanwhile, so
//! both sides are asked again until they agree or the time is over.

use super::clients;
use super::pulse::Pulse;
use super::workload::MAP;
use crate::checks::Violation;
use keystead::client::{CallOptions, Client};
use keystead::error::Result;
use keystead::types::{Op, ReadLevel, ReplyBody, StoredValue};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a follower may lag behind.
const WITHIN: Duration = Duration::from_secs(30);

/// Compares what each peer holds of these keys with what the leaders say.
pub async fn agree(
    peers: &[(String, String)],
    from: Ipv4Addr,
    judge: &Client,
    keys: &[String],
    pulse: &Pulse,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, endpoint) in peers {
        let disagrees = || async {
            let client = match clients::connect(from, vec![endpoint.clone()]).await {
                Ok(client) => client,
                Err(error) => return Some(format!("{name} cannot be asked: {error}")),
            };
            for key in keys {
                match (read(&client, key, ReadLevel::Local).await, read(judge, key, ReadLevel::Linearizable).await) {
                    (Ok(here), Ok(there)) if here == there => {}
                    (here, there) => return Some(format!("{name} holds {here:?} of {key}, its leader {there:?}")),
                }
            }
            None
        };
        if let Err(what) = pulse.until(WITHIN, disagrees).await {
            violations.push(Violation { check: "replicas agree", what });
        }
    }
    violations
}

async fn read(client: &Client, key: &str, read: ReadLevel) -> Result<Option<StoredValue>> {
    let op = Op::Get { map: MAP.to_owned(), key: bytes::Bytes::copy_from_slice(key.as_bytes()) };
    let reply = client.execute(op, CallOptions { read, ..CallOptions::default() }).await?;
    match reply.body {
        ReplyBody::Entry(entry) => Ok(entry),
        other => Err(keystead::error::Error::internal(format!("a reply of another kind: {other:?}"))),
    }
}
