//! A, confirmed: a run begins with an empty overlay (`a-bug-keep-overlay`).
//!
//! Schedule: leader 1 puts 5 into its own log alone and is cut off; another replica is elected and
//! writes 7; 1 comes back, its entry is overwritten, and it leads again in a third term. Must hold:
//! it reads and counts on from 7, and the put of 5 is not reported as done.

use super::Said;
use super::ask::{get, increment, is_unknown, put, stamp};
use super::trio::{Trio, direct};
use crate::checks::Violation;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    direct(seed, script)
}

async fn script(mut trio: Trio) -> Said {
    trio.ask(1, put("k", 1, stamp(1)))?.done().await?;
    let (lost, index) = super::put_alone(&trio, 1, put("k", 5, stamp(2))).await?;
    let first_term = trio.at(1)?.term();
    let leader = trio.leader_of(&[2, 3]).await?;
    trio.ask(leader, put("k", 7, stamp(3)))?.done().await?;
    trio.mend();
    let error = lost.refused("its entry was overwritten").await?;
    if !is_unknown(&error) {
        return Err(format!("of a write that was in the log, 1 says {error}"));
    }
    trio.until("1 has applied what took its entry's place", |trio| trio.at(1).is_ok_and(|at| at.applied() >= index))
        .await?;
    trio.hand_over(1).await?;
    if trio.at(1)?.term() <= first_term {
        return Err("1 was to lead in a later term".to_owned());
    }
    let read = trio.ask(1, get("k"))?.number().await?;
    let next = trio.ask(1, increment("k", stamp(4)))?.number().await?;
    if (read, next) != (Some(7), Some(8)) {
        return Err(format!("1 reads {read:?} and counts on to {next:?}; 7 was written last"));
    }
    super::ends_with(&mut trio, "k", Some(8)).await
}
