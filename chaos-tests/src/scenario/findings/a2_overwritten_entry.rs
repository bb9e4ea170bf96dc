//! an index is overwritten, or a snapshot is installed over it: the outcome is unknown.
//!
//! Schedule: leader 1 has a put in its own log alone and is cut off; a new leader writes on, in the
//! second scenario so much, with a checkpoint, that 1 needs a snapshot; 1 comes back. Must hold: the
//! put is answered with an unknown outcome, never as done; sent again under its number it takes
//! effect once.

use super::Said;
use super::ask::{increment, is_unknown, put, stamp};
use super::trio::{Trio, direct};
use super::wire::Half;
use crate::checks::Violation;
use keystead::raft::network::kind;

pub(super) fn by_an_entry(seed: u64) -> Vec<Violation> {
    direct(seed, |trio| script(trio, false))
}

pub(super) fn by_a_snapshot(seed: u64) -> Vec<Violation> {
    direct(seed, |trio| script(trio, true))
}

async fn script(mut trio: Trio, snapshot: bool) -> Said {
    trio.ask(1, increment("k", stamp(1)))?.done().await?;
    let (lost, index) = super::put_alone(&trio, 1, increment("k", stamp(2))).await?;
    let leader = trio.leader_of(&[2, 3]).await?;
    let more = if snapshot { 40 } else { 1 };
    for number in 0..more {
        trio.ask(leader, put(&format!("other{number}"), 7, stamp(10 + number)))?.done().await?;
    }
    if snapshot {
        let follower = 5 - leader;
        let applied = trio.at(leader)?.applied();
        trio.until("both have applied", |trio| trio.at(follower).is_ok_and(|at| at.applied() >= applied)).await?;
        trio.checkpoint(leader).await?;
        trio.checkpoint(follower).await?;
    }
    trio.mend();
    trio.until("1 has what took its entry's place", |trio| trio.at(1).is_ok_and(|at| at.applied() >= index)).await?;
    let sent = trio.wire.passed(leader, 1, kind::SNAPSHOT_END, Half::Question);
    if snapshot && sent == 0 {
        return Err("1 was to get a snapshot".to_owned());
    }
    let error = lost.refused("its entry was overwritten").await?;
    if !is_unknown(&error) {
        return Err(format!("of a write that was in the log, 1 says {error}"));
    }
    let leader = trio.leader_of(&[1, 2, 3]).await?;
    let again = trio.ask(leader, increment("k", stamp(2)))?.number().await?;
    if again != Some(2) {
        return Err(format!("sent again, the increment of 1 gave {again:?}"));
    }
    super::ends_with(&mut trio, "k", Some(2)).await
}
