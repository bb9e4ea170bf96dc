//! a read is confirmed only by what was asked after it arrived (`a-read-any-commit`, for rounds
//! of questions).
//!
//! Schedule: leader 1 asks the others for one read's sake; they confirm, and their answers are held
//! back; another is elected and writes; a second read comes to 1; then the old answers arrive. Must
//! hold: they confirm the first read, and not the second.

use super::Said;
use super::ask::{get, put, stamp};
use super::trio::{Trio, direct};
use super::wire::{ALL as ALL_KINDS, Fate, Half, LOG};
use crate::checks::Violation;
use keystead::clock::sleep;
use keystead::raft::network::kind;
use std::time::Duration;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    direct(seed, script)
}

async fn script(mut trio: Trio) -> Said {
    trio.ask(1, put("k", 1, stamp(1)))?.done().await?;
    for other in [2, 3] {
        trio.wire.set(1, other, &[kind::CONFIRM], Half::Answer, Fate::Held);
        trio.wire.set(1, other, &LOG, Half::Question, Fate::Lost);
    }
    let rounds = trio.at(1)?.rounds();
    let mut first = trio.ask(1, get("k"))?;
    trio.until("both have confirmed", |trio| {
        [2, 3].iter().all(|other| trio.wire.waiting(1, *other, kind::CONFIRM, Half::Answer) == 1)
    })
    .await?;
    for other in [2, 3] {
        trio.wire.set(1, other, &ALL_KINDS, Half::Question, Fate::Lost);
        for half in [Half::Question, Half::Answer] {
            trio.wire.set(other, 1, &ALL_KINDS, half, Fate::Lost);
        }
    }
    // Two candidates could keep each other from it until the round has given up.
    trio.wire.set(3, 2, &[kind::PRE_VOTE, kind::VOTE], Half::Question, Fate::Lost);
    trio.leads(2).await?;
    trio.ask(2, put("k", 7, stamp(2)))?.done().await?;
    let mut second = trio.ask(1, get("k"))?;
    sleep(Duration::from_millis(2)).await;
    first.must_wait("its round is under way")?;
    if trio.at(1)?.rounds() != rounds + 1 || !trio.at(1)?.leads() {
        return Err("the first read's round was still to be the only one".to_owned());
    }
    [2, 3].into_iter().for_each(|other| trio.wire.let_go(1, other, &[kind::CONFIRM], Half::Answer));
    let first = first.number().await?;
    if first != Some(1) {
        return Err(format!("the first read, confirmed before 7 was written, gave {first:?}"));
    }
    sleep(Duration::from_millis(trio.dice.between(5, 300))).await;
    second.must_wait("nothing that was asked after it came confirms it")?;
    trio.mend();
    super::fresh(second, 7).await?;
    super::ends_with(&mut trio, "k", Some(7)).await
}
