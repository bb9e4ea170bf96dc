//! a read waits until everything that it saw has taken effect (`a-bug-read-before-commit`).
//!
//! Schedule: leader 1 has a put in its own log alone, while the questions that confirm reads get
//! through; a read comes, sees the put in the overlay, and its round succeeds. Then 1 loses power and
//! another leads without the put. Must hold: the read was not answered.

use super::Said;
use super::ask::{get, put, stamp};
use super::trio::{Death, Trio, direct};
use super::wire::{Fate, Half};
use crate::checks::Violation;
use keystead::clock::sleep;
use keystead::raft::network::kind;
use std::time::Duration;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    direct(seed, script)
}

async fn script(mut trio: Trio) -> Said {
    trio.ask(1, put("k", 1, stamp(1)))?.done().await?;
    [2, 3].into_iter().for_each(|other| trio.wire.set(1, other, &[kind::APPEND], Half::Question, Fate::Held));
    let last = trio.at(1)?.last();
    let mut lost = trio.ask(1, put("k", 5, stamp(2)))?;
    trio.until("it is in 1's log", |trio| trio.at(1).is_ok_and(|at| at.last() > last)).await?;
    let confirmed = |trio: &Trio| -> u64 {
        [2, 3].iter().map(|other| trio.wire.passed(1, *other, kind::CONFIRM, Half::Answer)).sum()
    };
    let before = confirmed(&trio);
    let mut read = trio.ask(1, get("k"))?;
    trio.until("both have confirmed", |trio| confirmed(trio) >= before + 2).await?;
    sleep(Duration::from_millis(trio.dice.between(10, 200))).await;
    read.must_wait("it saw what has not committed")?;
    lost.must_wait("it has not committed")?;
    trio.crash(1, Death::PowerHard);
    trio.isolate(1);
    let leader = trio.leader_of(&[2, 3]).await?;
    let there = trio.ask(leader, get("k"))?.number().await?;
    if there != Some(1) {
        return Err(format!("the put was to be lost; {leader} reads {there:?}"));
    }
    read.must_wait("its leader is gone")?;
    super::ends_with(&mut trio, "k", Some(1)).await
}
