//! a fenced entry commits too (`a-bug-answer-on-commit`).
//!
//! Schedule: the batch of a put is made void by another that took its number; both commit and are
//! applied; before the executor can write the put again its leader is cut off for good. Must hold:
//! the put is not reported as done, for it is not there.

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
    let fenced = trio.at(1)?.fenced();
    let (mut second, index) = super::overtaken(&trio, "other", 100, put("k", 2, stamp(2))).await?;
    // The two entries go out, each in an append of its own; nothing that is proposed later does.
    for follower in [2, 3] {
        trio.wire.set(1, follower, &[kind::HEARTBEAT], Half::Question, Fate::Held);
        trio.wire.set(1, follower, &[kind::APPEND], Half::Question, Fate::Few(2));
    }
    trio.until("both have committed", |trio| trio.at(1).is_ok_and(|at| at.applied() >= index)).await?;
    trio.until("the verdict has come", |trio| trio.at(1).is_ok_and(|at| at.fenced() > fenced)).await?;
    sleep(Duration::from_millis(trio.dice.between(0, 50))).await;
    second.must_wait("its batch took no effect")?;
    trio.isolate(1);
    trio.crash(1, Death::PowerHard);
    let leader = trio.leader_of(&[2, 3]).await?;
    let read = trio.ask(leader, get("k"))?.number().await?;
    second.must_wait("its leader is gone")?;
    if read != Some(1) {
        return Err(format!("the put was to be lost; {leader} reads {read:?}"));
    }
    super::ends_with(&mut trio, "k", Some(1)).await
}
