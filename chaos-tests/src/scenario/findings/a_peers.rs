//! A, on whole peers: a leader's power goes at each change of its disk in turn while a client counts
//! (`a-bug-no-request-ids`, `a-bug-answer-before-commit`, A-2), and a leader that is cut off from the
//! other peers, but not from clients, is read from.
//!
//! Schedules: the power of the leader's machine goes at the change that the seed names, in the middle
//! of an increment; the client goes on with the next leader under its session. And: the leader is cut
//! off, another client writes through the new one, then the old one is asked. Must hold: each increment
//! counts once and the answers rise one by one; the read gives what was written last, or an error.

use super::peers::{MAP, MENDED_AT, Peers, direct};
use super::steps::Said;
use crate::checks::Violation;
use crate::trace;
use keystead::client::Client;
use keystead::clock::sleep;
use keystead::error::{Class, Error};
use keystead::types::Value;
use std::time::Duration;

/// Changes of the disk among which the power goes.
const CHANGES: u64 = 24;

pub(super) fn power_loss(seed: u64) -> Vec<Violation> {
    direct(seed, move |peers| count(peers, 1 + seed % CHANGES))
}

pub(super) fn cut_off_leader(seed: u64) -> Vec<Violation> {
    direct(seed, read_at_the_old_leader)
}

fn is_unknown(error: &Error) -> bool {
    error.code.facts().0 == Class::OutcomeUnknown
}

/// What a client that counts has been told.
#[derive(Default)]
struct Told {
    answered: i64,
    unknown: i64,
    last: i64,
}

impl Told {
    async fn increment(&mut self, client: &Client) -> Said {
        match client.increment(MAP, "k", 1).await {
            Ok(number) => {
                self.answered += 1;
                // Those of unknown outcome may have counted meanwhile; none may count twice.
                let most = self.answered + self.unknown;
                if number.value <= self.last || number.value > most {
                    return Err(format!("after {} an increment gave {}; {most} were sent", self.last, number.value));
                }
                self.last = number.value;
            }
            Err(error) if is_unknown(&error) => self.unknown += 1,
            Err(error) => crate::event!("director", "not counted: {error}"),
        }
        Ok(())
    }
}

async fn count(peers: Peers, change: u64) -> Said {
    let client = peers.connect(&[0, 1, 2]).await;
    let leader = peers.leader(&client).await?;
    let mut told = Told::default();
    for _ in 0..5 {
        told.increment(&client).await?;
    }
    let disk = peers.machines[leader].disk().clone();
    let crashes = disk.counts().crashes;
    disk.power_off_after(change);
    let mut went = None;
    for round in 0..200 {
        told.increment(&client).await?;
        if went.is_none() && disk.counts().crashes > crashes {
            went = Some(round);
        }
        if went.is_some_and(|went| round > went + 10) {
            break;
        }
    }
    if went.is_none() {
        return Err("the scenario's moment did not come: the leader's power".to_owned());
    }
    while trace::now() < MENDED_AT + Duration::from_secs(1) {
        sleep(Duration::from_millis(50)).await;
    }
    let end = read(&client).await?;
    if !(told.answered..=told.answered + told.unknown).contains(&end) || end < told.last {
        return Err(format!("{} increments were answered, {} are unknown; k is {end}", told.answered, told.unknown));
    }
    Ok(())
}

async fn read(client: &Client) -> Result<i64, String> {
    for _ in 0..100 {
        if let Ok(Some(entry)) = client.get(MAP, "k").await {
            let data = entry.value.data.as_ref().try_into().map_err(|_| "a number of another length")?;
            return Ok(i64::from_le_bytes(data));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err("k is never read".to_owned())
}

async fn read_at_the_old_leader(peers: Peers) -> Said {
    let client = peers.connect(&[0, 1, 2]).await;
    let old = peers.leader(&client).await?;
    let others: Vec<usize> = (0..peers.machines.len()).filter(|at| *at != old).collect();
    let (reader, writer) = (peers.connect(&[old]).await, peers.connect(&others).await);
    writer.put(MAP, "k", Value::i64(1)).await.map_err(|error| error.to_string())?;
    if read(&reader).await? != 1 {
        return Err("the reader was to see the first write".to_owned());
    }
    let leaderships = peers.leaders.leaderships();
    peers.cut(old, true);
    let mut written = false;
    for _ in 0..10 {
        let put = writer.put(MAP, "k", Value::i64(7)).await;
        crate::event!("director", "a put through the others: {:?}", put.as_ref().map(|_| ()));
        written = written || put.is_ok();
    }
    if !written || peers.leaders.leaderships() <= leaderships {
        return Err("the scenario's moment did not come: a write through a new leader".to_owned());
    }
    for _ in 0..3 {
        if let Ok(entry) = reader.get(MAP, "k").await {
            let entry = entry.map(|entry| entry.value);
            if entry != Some(Value::i64(7)) {
                return Err(format!("7 was written, and a read that came later was answered with {entry:?}"));
            }
        }
    }
    peers.cut(old, false);
    match read(&reader).await? {
        7 => Ok(()),
        other => Err(format!("k ends with {other}")),
    }
}
