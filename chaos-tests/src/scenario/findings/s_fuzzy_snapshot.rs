//! S: a snapshot is a scan that runs while entries are applied (`s-bug-serves-at-once`,
//! `s-fence-row-scanned`, and the text of S-2).
//!
//! Schedule: replica 3 is away while its log is forgotten, and comes back; of the snapshot that is sent
//! to it some pieces have come when leader 1 commits entries that overwrite, add and delete rows, both
//! scanned and not, one of which is fenced; then the rest of the scan comes, and no entry. Now 3 holds
//! a state that never was. Must hold: it serves nothing, also when it loses power there and starts
//! again; and what travels with the index, the fence, is of the scan's beginning, so that the log's
//! entries all take effect and 3 becomes equal to the others.

use super::Said;
use super::ask::{delete, put, stamp};
use super::replica::{Rows, batch};
use super::trio::{Death, Trio, direct};
use super::wire::{Fate, Half, LOG};
use crate::checks::Violation;
use keystead::raft::network::kind;
use std::collections::BTreeMap;

const KEYS: u64 = 24;

pub(super) fn serves_after_the_scan(seed: u64) -> Vec<Violation> {
    direct(seed, |trio| script(trio, false))
}

pub(super) fn scan_end_survives(seed: u64) -> Vec<Violation> {
    direct(seed, |trio| script(trio, true))
}

pub(super) fn fence_is_no_row(seed: u64) -> Vec<Violation> {
    direct(seed, fence)
}

async fn script(mut trio: Trio, restart: bool) -> Said {
    let states = install_while_writing(&mut trio).await?;
    must_not_serve(&trio, &states)?;
    if restart {
        let death = *trio.dice.pick(&[Death::Kill, Death::Power, Death::PowerHard]);
        trio.crash(3, death);
        trio.start(3).await?;
        must_not_serve(&trio, &states)?;
    }
    let end = trio.at(1)?.applied();
    trio.wire.let_go(1, 3, &LOG, Half::Question);
    trio.until("3 has passed the scan's end", |trio| trio.at(3).is_ok_and(|at| at.applied() >= end)).await?;
    if !trio.at(3)?.state.may_serve() {
        return Err("3 has passed the scan's end and does not serve".to_owned());
    }
    super::ends_with(&mut trio, "k0", Some(2)).await
}

async fn fence(mut trio: Trio) -> Said {
    let states = install_while_writing(&mut trio).await?;
    let applied = trio.at(3)?.applied();
    if states.range(applied + 1..).count() < 3 {
        return Err("several entries were to take effect between the scan's start and its end".to_owned());
    }
    trio.wire.let_go(1, 3, &LOG, Half::Question);
    super::ends_with(&mut trio, "k0", Some(2)).await
}

/// 3 holds a mixture, knows it, and serves nothing.
fn must_not_serve(trio: &Trio, states: &BTreeMap<u64, Rows>) -> Said {
    let at = trio.at(3)?;
    let (applied, rows) = (at.applied(), at.rows()?);
    let Some(truth) = states.get(&applied) else {
        return Err(format!("3 was to have applied up to the scan's start, and is at {applied}"));
    };
    if *truth == rows || states.values().any(|state| *state == rows) {
        return Err("3 was to hold a state that never was".to_owned());
    }
    if at.state.may_serve() {
        return Err(format!("3 serves a state that never was, at index {applied}"));
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("k{number}")
}

/// Gives the leader's rows at each index since the scan began.
async fn install_while_writing(trio: &mut Trio) -> Result<BTreeMap<u64, Rows>, String> {
    let mut number = 0;
    let mut next = || {
        number += 1;
        stamp(number)
    };
    for at in 0..KEYS {
        trio.ask(1, put(&key(at), 1, next()))?.done().await?;
    }
    // Nothing is sent to it before it is there.
    trio.wire.set(1, 3, &[kind::SNAPSHOT_CHUNK], Half::Question, Fate::Held);
    trio.crash(3, Death::Power);
    trio.ask(1, put("gone", 1, next()))?.done().await?;
    let applied = trio.at(1)?.applied();
    trio.until("2 has applied the same", |trio| trio.at(2).is_ok_and(|at| at.applied() >= applied)).await?;
    trio.checkpoint(2).await?;
    trio.checkpoint(1).await?;
    trio.leads(1).await?;
    let start = trio.at(1)?.state.checkpoint_index().ok_or("1 has no checkpoint")?;
    let mut states = BTreeMap::from([(start, trio.at(1)?.rows()?)]);

    let pieces = trio.dice.between(1, 4) as u32;
    trio.start(3).await?;
    trio.wire.set(1, 3, &[kind::SNAPSHOT_CHUNK], Half::Question, Fate::Few(pieces));
    trio.until("some pieces have come", |trio| {
        trio.wire.waiting(1, 3, kind::SNAPSHOT_CHUNK, Half::Question) == 1
            && trio.wire.passed(1, 3, kind::SNAPSHOT_CHUNK, Half::Question) == u64::from(pieces)
    })
    .await?;
    // One batch each, so that the leader's rows after it are those of its index.
    for at in 0..KEYS {
        let request = match at % 5 {
            3 => delete(&key(at), next()),
            _ => put(&key(at), 2, next()),
        };
        trio.ask(1, request)?.done().await?;
        states.insert(trio.at(1)?.applied(), trio.at(1)?.rows()?);
        if at == KEYS / 2 {
            let (term, (run, last)) = (trio.at(1)?.term(), trio.at(1)?.last_batch().await?);
            let fenced = trio.at(1)?.propose(term, batch(term, run, last + 2, "k0", 100)).await?;
            if fenced != Some(false) {
                return Err(format!("batch {} after {last}: took effect {fenced:?}", last + 2));
            }
        }
    }
    trio.ask(1, put("new", 2, next()))?.done().await?;
    states.insert(trio.at(1)?.applied(), trio.at(1)?.rows()?);
    trio.wire.set(1, 3, &LOG, Half::Question, Fate::Held);
    trio.wire.let_go(1, 3, &[kind::SNAPSHOT_CHUNK], Half::Question);
    trio.until("3 has installed the snapshot", |trio| {
        trio.wire.passed(1, 3, kind::SNAPSHOT_END, Half::Answer) == 1
            && trio.at(3).is_ok_and(|at| at.applied() >= start)
    })
    .await?;
    if trio.at(3)?.applied() != start {
        return Err(format!("3 is at {}, the scan began at {start}", trio.at(3)?.applied()));
    }
    Ok(states)
}
