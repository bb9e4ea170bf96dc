//! A: what may be answered when (`a-bug-answer-before-commit`, `a-bug-no-request-ids`), and the text
//! behind A-3: a retry that finds its answer in the overlay waits for that entry's verdict; answers
//! are forgotten only together with a low-water mark.
//!
//! Schedules: acknowledgements of an entry are held back while its caller, or a retry of it, waits;
//! the leader dies with an entry that the others have stored, and the retry goes to its successor; a
//! copy of a write comes when its answer was forgotten, to its leader and to the next. Must hold:
//! nobody is answered before the commit, and each request runs once or is refused for good.

use super::Said;
use super::ask::{get, increment, put, stamp};
use super::trio::{Death, Trio, direct};
use super::wire::{Fate, Half};
use crate::checks::Violation;
use keystead::clock::sleep;
use keystead::error::Code;
use keystead::partition::rows;
use keystead::raft::network::kind;
use keystead::types::AckLevel;
use std::time::Duration;

pub(super) fn not_before_the_commit(seed: u64) -> Vec<Violation> {
    direct(seed, lost_with_its_leader)
}

pub(super) fn retry_elsewhere(seed: u64) -> Vec<Violation> {
    direct(seed, runs_once)
}

pub(super) fn retry_in_the_overlay(seed: u64) -> Vec<Violation> {
    direct(seed, waits_for_the_first)
}

pub(super) fn late_copy(seed: u64) -> Vec<Violation> {
    direct(seed, refused_for_good)
}

async fn lost_with_its_leader(mut trio: Trio) -> Said {
    trio.ask(1, put("k", 1, stamp(1)))?.done().await?;
    let (mut lost, index) = super::put_alone(&trio, 1, put("k", 5, stamp(2))).await?;
    let mut accepted = put("k", 6, stamp(3));
    accepted.ack = AckLevel::Accepted;
    // That level asks for no more than this.
    trio.ask(1, accepted)?.done().await?;
    sleep(Duration::from_millis(trio.dice.between(10, 300))).await;
    if trio.at(1)?.applied() >= index {
        return Err("the put was not to commit".to_owned());
    }
    lost.must_wait("nobody else has its entry")?;
    trio.crash(1, Death::PowerHard);
    let leader = trio.leader_of(&[2, 3]).await?;
    let read = trio.ask(leader, get("k"))?.number().await?;
    if read != Some(1) {
        return Err(format!("the put was to be lost; {leader} reads {read:?}"));
    }
    lost.must_wait("its leader is gone")
}

async fn runs_once(mut trio: Trio) -> Said {
    trio.ask(1, increment("k", stamp(1)))?.done().await?;
    hold_acknowledgements(&trio);
    let mut first = trio.ask(1, increment("k", stamp(2)))?;
    trio.until("both others have it", |trio| {
        [2, 3].iter().all(|id| trio.wire.waiting(1, *id, kind::APPEND, Half::Answer) > 0)
    })
    .await?;
    let index = trio.at(1)?.last();
    first.must_wait("no acknowledgement has come")?;
    let death = *trio.dice.pick(&[Death::Kill, Death::Power, Death::PowerHard]);
    trio.crash(1, death);
    let leader = trio.leader_of(&[2, 3]).await?;
    if trio.at(leader)?.last() < index {
        return Err(format!("{leader} was to have entry {index}"));
    }
    let again = trio.ask(leader, increment("k", stamp(2)))?.number().await?;
    // And once more, after the next failover.
    trio.mend();
    trio.start(1).await?;
    trio.crash(leader, death);
    let next = trio.leader_of(&[1, 5 - leader]).await?;
    let thrice = trio.ask(next, increment("k", stamp(2)))?.number().await?;
    if (again, thrice) != (Some(2), Some(2)) {
        return Err(format!("the increment of 1 was answered with {again:?}, then {thrice:?}"));
    }
    first.must_wait("its leader is gone")?;
    super::ends_with(&mut trio, "k", Some(2)).await
}

async fn waits_for_the_first(mut trio: Trio) -> Said {
    trio.ask(1, increment("k", stamp(1)))?.done().await?;
    hold_acknowledgements(&trio);
    let last = trio.at(1)?.last();
    let mut first = trio.ask(1, increment("k", stamp(2)))?;
    trio.until("it is in the log", |trio| trio.at(1).is_ok_and(|at| at.last() > last)).await?;
    let mut retry = trio.ask(1, increment("k", stamp(2)))?;
    // Another write tells that the executor has come past the retry.
    let _later = trio.ask(1, put("other", 1, stamp(3)))?;
    sleep(Duration::from_millis(trio.dice.between(20, 90))).await;
    if trio.at(1)?.applied() > last {
        return Err("the increment was not to commit".to_owned());
    }
    first.must_wait("no acknowledgement has come")?;
    retry.must_wait("the first has not committed")?;
    trio.mend();
    let both = (first.number().await?, retry.number().await?);
    if both != (Some(2), Some(2)) {
        return Err(format!("an increment and its retry were answered with {both:?}"));
    }
    super::ends_with(&mut trio, "k", Some(2)).await
}

async fn refused_for_good(mut trio: Trio) -> Said {
    let first = stamp(1);
    trio.ask(1, increment("k", first.clone()))?.done().await?;
    let kept = rows::lot_row(first.session, 1);
    let is_kept = |trio: &Trio, id| trio.at(id).is_ok_and(|at| at.state.get(&kept).is_ok_and(|row| row.is_some()));
    if !is_kept(&trio, 1) {
        return Err("the first answer was to be kept".to_owned());
    }
    let last = 40 + trio.dice.between(0, 40);
    for number in 2..=last {
        let mut stamp = stamp(number);
        stamp.lowest_unanswered = number;
        trio.ask(1, increment("k", stamp))?.done().await?;
    }
    if is_kept(&trio, 1) {
        return Err("the first answer was to be forgotten".to_owned());
    }
    for id in [1, 2] {
        trio.hand_over(id).await?;
        let error = trio.ask(id, increment("k", first.clone()))?.refused("its answer was forgotten").await?;
        if error.code != Code::SessionEnded {
            return Err(format!("a late copy at {id} was refused with {error}"));
        }
    }
    super::ends_with(&mut trio, "k", Some(last as i64)).await
}

fn hold_acknowledgements(trio: &Trio) {
    [2, 3].into_iter().for_each(|id| trio.wire.set(1, id, &[kind::APPEND], Half::Answer, Fate::Held));
}
