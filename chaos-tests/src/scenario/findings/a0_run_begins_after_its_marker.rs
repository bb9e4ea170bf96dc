//! A, confirmed: a run begins only when its own term's first entry is applied (`a-bug-start-early`).
//!
//! Schedule: an increment is acknowledged by leader 1 and stored by 2, which does not hear that it
//! has committed; 1 loses power; 2 is elected, and 3 gets no entry of the new term. 2 leads and has
//! not applied the increment when it is asked for another. Must hold: it computes nothing before its
//! marker is applied, so that the second increment counts on from the first.

use super::Said;
use super::ask::{increment, stamp};
use super::trio::{Death, Trio, direct};
use super::wire::{Fate, Half, LOG};
use crate::checks::Violation;
use keystead::clock::sleep;
use keystead::raft::network::kind;
use std::time::Duration;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    direct(seed, script)
}

async fn script(mut trio: Trio) -> Said {
    let first = trio.ask(1, increment("k", stamp(1)))?.number().await?;
    trio.until("2 has applied the first", |trio| trio.at(2).is_ok_and(|at| at.applied_number("k") == first)).await?;
    trio.wire.cut(1, 3);
    trio.wire.set(1, 2, &[kind::HEARTBEAT], Half::Question, Fate::Held);
    trio.wire.set(1, 2, &[kind::APPEND], Half::Question, Fate::Few(1));
    trio.ask(1, increment("k", stamp(2)))?.done().await?;
    let last = trio.at(1)?.last();
    trio.wire.cut(1, 2);
    trio.crash(1, Death::PowerHard);
    trio.wire.set(2, 3, &LOG, Half::Question, Fate::Held);
    trio.until("2 takes itself for the leader", |trio| trio.at(2).is_ok_and(super::replica::Replica::leads)).await?;

    let mut third = trio.ask(2, increment("k", stamp(3)))?;
    sleep(Duration::from_millis(trio.dice.between(20, 200))).await;
    let at = trio.at(2)?;
    if at.last() < last || at.applied() >= last || !at.leads() {
        return Err(format!("2 was to lead without having applied {last}: {} of {}", at.applied(), at.last()));
    }
    third.must_wait("nothing of the new term has committed")?;
    trio.wire.let_go(2, 3, &LOG, Half::Question);
    let third = third.number().await?;
    if third != Some(3) {
        return Err(format!("the third increment gave {third:?}"));
    }
    super::ends_with(&mut trio, "k", Some(3)).await
}
