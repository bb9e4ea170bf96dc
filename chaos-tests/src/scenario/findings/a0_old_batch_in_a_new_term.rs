//! A, confirmed: the fence is necessary (`a-no-fence`).
//!
//! Schedule: leader 1 computes a batch that reaches nobody, is deposed, and leads again in a later
//! term; only then does that batch, taken from 1's log byte by byte, come to the Raft core, when a
//! batch of its very number is the next. Must hold: under its own term the core refuses it; under the
//! new one it commits, and changes nothing on any replica, also when they replay it.

use super::Said;
use super::ask::{increment, put, stamp};
use super::trio::{ALL, Death, Trio, direct};
use crate::checks::Violation;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    direct(seed, script)
}

async fn script(mut trio: Trio) -> Said {
    trio.ask(1, put("k", 1, stamp(1)))?.done().await?;
    trio.hand_over(2).await?;
    trio.hand_over(1).await?;
    let term = trio.at(1)?.term();
    let (_lost, _) = super::put_alone(&trio, 1, put("k", 5, stamp(2))).await?;
    let (_, late) = trio.at(1)?.last_payload().await?;
    let (_, number) = trio.at(1)?.last_batch().await?;
    let leader = trio.leader_of(&[2, 3]).await?;
    trio.ask(leader, put("k", 7, stamp(3)))?.done().await?;
    trio.mend();
    trio.until("1 knows that it is deposed", |trio| trio.at(1).is_ok_and(|at| !at.leads())).await?;
    trio.hand_over(1).await?;
    let (now, (_, next)) = (trio.at(1)?.term(), trio.at(1)?.last_batch().await?);
    if now <= term || number != next + 1 {
        return Err(format!("batch {number} of term {term} was to come when {} of {now} is the next", next + 1));
    }
    if trio.at(1)?.propose(term, late.clone()).await?.is_some() {
        return Err(format!("a proposal of term {term} reached the log of term {now}"));
    }
    match trio.at(1)?.propose(now, late).await? {
        Some(false) => {}
        other => return Err(format!("a batch of term {term} in term {now}: took effect {other:?}")),
    }
    let next = trio.ask(1, increment("k", stamp(4)))?.number().await?;
    if next != Some(8) {
        return Err(format!("an increment of 7 gave {next:?}"));
    }
    ALL.into_iter().for_each(|id| trio.crash(id, Death::Power));
    super::ends_with(&mut trio, "k", Some(8)).await
}
