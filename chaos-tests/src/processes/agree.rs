//! Once all is mended and quiet, every replica holds what the leader says: all entries of the map, those of
//! earlier rounds too. What else a replica has (sessions, dead entries) no call shows; the crash suite and
//! the simulator compare that.
//!
//! In: the peers, each asked by itself for what it has applied (a local read is for the peer that is
//! named). Out: replicas that stay different. A write of unknown outcome may still arrive meanwhile, so
//! both sides are asked again until they agree or the time is over.

use super::clients;
use super::pulse::Pulse;
use super::workload::MAP;
use crate::checks::Violation;
use bytes::Bytes;
use keystead::client::Client;
use keystead::error::Result;
use keystead::types::{ReadLevel, StoredValue};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a follower may lag behind.
const WITHIN: Duration = Duration::from_secs(30);

type Entries = BTreeMap<Bytes, StoredValue>;

/// Compares what each peer holds of the map with what the leaders say.
pub async fn agree(peers: &[(String, String)], from: Ipv4Addr, judge: &Client, pulse: &Pulse) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, endpoint) in peers {
        let disagrees = || async {
            let client = match clients::connect(from, vec![endpoint.clone()]).await {
                Ok(client) => client,
                Err(error) => return Some(format!("{name} cannot be asked: {error}")),
            };
            match (entries(&client, ReadLevel::Local).await, entries(judge, ReadLevel::Linearizable).await) {
                (Ok(here), Ok(there)) => difference(&here, &there).map(|what| format!("{name} {what}")),
                (Err(error), _) => Some(format!("{name} does not say what it holds: {error}")),
                (_, Err(error)) => Some(format!("the leaders do not say what they hold: {error}")),
            }
        };
        if let Err(what) = pulse.until(WITHIN, disagrees).await {
            violations.push(Violation { check: "replicas agree", what });
        }
    }
    violations
}

/// All entries of the map.
async fn entries(client: &Client, read: ReadLevel) -> Result<Entries> {
    let (mut all, mut from) = (Entries::new(), None);
    loop {
        let page = client.scan_page(MAP, "", from, 0, read).await?;
        all.extend(page.entries);
        match page.next {
            Some(next) => from = Some(next),
            None => return Ok(all),
        }
    }
}

fn difference(here: &Entries, there: &Entries) -> Option<String> {
    let key = here.keys().chain(there.keys()).find(|key| here.get(*key) != there.get(*key))?;
    let (of_here, of_there) = (here.get(key), there.get(key));
    Some(format!("holds {of_here:?} of {}, its leader {of_there:?}", String::from_utf8_lossy(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead::types::Value;

    #[test]
    fn an_entry_that_is_missing_too_many_or_another_is_found() {
        let entry = |key: &'static str, revision| {
            (Bytes::from(key), StoredValue { value: Value::i64(7), revision, expires_ms: 0 })
        };
        let whole = Entries::from([entry("a", 1), entry("b", 2)]);
        assert_eq!(difference(&whole, &whole), None);
        for other in [Entries::from([entry("a", 1)]), Entries::from([entry("a", 1), entry("b", 3)])] {
            assert!(difference(&whole, &other).is_some_and(|what| what.contains(" of b,")));
            assert!(difference(&other, &whole).is_some_and(|what| what.contains(" of b,")));
        }
    }
}
