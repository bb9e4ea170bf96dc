//! A-3, word for word (`a-read-any-commit`, 15 steps).
//!
//! Schedule: leader 1 of term 1 sends entry e to 2; 2 stores it, its acknowledgement is under way. 2
//! is elected by 3, commits a second write and answers its client. A read comes to 1, then the old
//! acknowledgement of e: 1 commits e, in its own term, after the read arrived. Must hold: the commit
//! answers the writer of e, and does not confirm the read.

use super::Said;
use super::ask::{get, put, stamp};
use super::trio::{Trio, direct};
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
    trio.wire.cut(1, 3);
    trio.wire.set(1, 2, &[kind::APPEND], Half::Answer, Fate::Held);
    let mut e = trio.ask(1, put("k", 2, stamp(2)))?;
    trio.until("2 has stored e", |trio| trio.wire.waiting(1, 2, kind::APPEND, Half::Answer) == 1).await?;
    let index = trio.at(1)?.last();
    // The acknowledgement stays on its way: no message moves between these two lines.
    trio.wire.cut(1, 2);
    trio.wire.set(1, 2, &[kind::APPEND], Half::Answer, Fate::Held);
    trio.leads(2).await?;
    trio.ask(2, put("k", 3, stamp(3)))?.done().await?;

    let mut read = trio.ask(1, get("k"))?;
    sleep(Duration::from_millis(2)).await;
    e.must_wait("its acknowledgement has not come")?;
    if !trio.at(1)?.leads() || trio.at(1)?.applied() >= index {
        return Err("1 was still to lead, and e not to be committed there".to_owned());
    }
    trio.wire.let_go(1, 2, &[kind::APPEND], Half::Answer);
    trio.until("1 commits e", |trio| trio.at(1).is_ok_and(|at| at.applied() >= index && at.leads())).await?;
    e.done().await?;
    sleep(Duration::from_millis(trio.dice.between(5, 300))).await;
    read.must_wait("a commit after its arrival confirms nothing")?;
    trio.mend();
    super::fresh(read, 3).await?;
    super::ends_with(&mut trio, "k", Some(3)).await
}
