//! a proposal is overtaken between the executor and the Raft core (`a-term-reorder`).
//!
//! Schedule: another batch with the number of the executor's next one comes to the log before it, as
//! if it had overtaken it; the executor computes its own on a state without that one. Both commit.
//! Must hold: the executor's batch changes nothing, its run ends, and the increment is computed anew
//! on the state that the other has left.

use super::Said;
use super::ask::{increment, stamp};
use super::trio::{Trio, direct};
use crate::checks::Violation;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    direct(seed, script)
}

async fn script(mut trio: Trio) -> Said {
    trio.ask(1, increment("k", stamp(1)))?.done().await?;
    let fenced = trio.at(1)?.fenced();
    let (second, index) = super::overtaken(&trio, "k", 100, increment("k", stamp(2))).await?;
    super::let_commit(&trio);
    trio.until("both have committed", |trio| trio.at(1).is_ok_and(|at| at.applied() >= index)).await?;
    let second = second.number().await?;
    if trio.at(1)?.fenced() == fenced {
        return Err("no batch of the executor was without effect".to_owned());
    }
    if second != Some(101) {
        return Err(format!("an increment of 100 gave {second:?}"));
    }
    super::ends_with(&mut trio, "k", Some(101)).await
}
