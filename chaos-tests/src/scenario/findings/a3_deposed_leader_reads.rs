//! a deposed leader answers no read, nor what is a read in disguise (`a-bug-read-unconfirmed`).
//!
//! Schedules: leader 1 is cut off, or stands still with its clock; another is elected and a write is
//! acknowledged; a read comes to 1, which still takes itself for the leader. And the same with a
//! conditional write without a session whose condition fails: it writes nothing, so it is a read.
//! Must hold: 1 answers none of them with the old value, neither then nor when it comes back.

use super::Said;
use super::ask::{get, put, put_if_absent, stamp};
use super::trio::{Trio, direct};
use crate::checks::Violation;
use keystead::clock::sleep;
use keystead::types::Request;
use std::time::Duration;

pub(super) fn cut_off(seed: u64) -> Vec<Violation> {
    direct(seed, |trio| script(trio, get("k"), false))
}

pub(super) fn paused(seed: u64) -> Vec<Violation> {
    direct(seed, |trio| script(trio, get("k"), true))
}

pub(super) fn refused_condition(seed: u64) -> Vec<Violation> {
    direct(seed, |trio| script(trio, put_if_absent("k", 9), false))
}

async fn script(mut trio: Trio, read: Request, pause: bool) -> Said {
    trio.ask(1, put("k", 1, stamp(1)))?.done().await?;
    if pause {
        trio.at(1)?.gate.shut(true);
        sleep(Duration::from_millis(trio.dice.between(0, 500))).await;
    } else {
        trio.isolate(1);
    }
    let leader = trio.leader_of(&[2, 3]).await?;
    trio.ask(leader, put("k", 7, stamp(2)))?.done().await?;
    if !trio.at(1)?.leads() {
        return Err("1 was still to take itself for the leader".to_owned());
    }
    let mut stale = trio.ask(1, read)?;
    if pause {
        trio.at(1)?.gate.open();
    } else {
        sleep(Duration::from_millis(trio.dice.between(50, 800))).await;
        stale.must_wait("its leader is cut off")?;
        trio.mend();
    }
    super::fresh(stale, 7).await?;
    super::ends_with(&mut trio, "k", Some(7)).await
}
