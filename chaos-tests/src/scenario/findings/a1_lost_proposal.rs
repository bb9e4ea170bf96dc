//! a proposal is lost between the executor and the Raft core while the node stays leader
//! (`a-term-drop`).
//!
//! Schedule: leader 1 has had batch n of its run take effect; of its run's next two batches only the
//! second comes to the Raft core. Must hold: it commits and changes nothing on any replica, and n + 1
//! is still the next that takes effect, also when all replicas replay their logs after a power loss.

use super::Said;
use super::ask::{increment, stamp};
use super::replica::batch;
use super::trio::{ALL, Death, Trio, direct};
use crate::checks::Violation;

pub(super) fn scenario(seed: u64) -> Vec<Violation> {
    direct(seed, script)
}

async fn script(mut trio: Trio) -> Said {
    let before = trio.dice.between(1, 4);
    for number in 1..=before {
        trio.ask(1, increment("k", stamp(number)))?.done().await?;
    }
    let (term, (run, number)) = (trio.at(1)?.term(), trio.at(1)?.last_batch().await?);
    let second = batch(term, run, number + 2, "k", 100);
    match trio.at(1)?.propose(term, second).await? {
        Some(false) => {}
        other => return Err(format!("batch {} after {number}: took effect {other:?}", number + 2)),
    }
    if !trio.at(1)?.leads() || trio.at(1)?.term() != term {
        return Err("1 was to stay leader, in the same run".to_owned());
    }
    let next = trio.ask(1, increment("k", stamp(before + 1)))?.number().await?;
    let (same_run, last) = trio.at(1)?.last_batch().await?;
    let expected = Some(before as i64 + 1);
    if next != expected || (same_run, last) != (run, number + 1) {
        return Err(format!("the next increment gave {next:?}, as batch {last}; {expected:?} as {}", number + 1));
    }
    let death = *trio.dice.pick(&[Death::Kill, Death::Power, Death::PowerHard]);
    ALL.into_iter().for_each(|id| trio.crash(id, death));
    super::ends_with(&mut trio, "k", expected).await
}
