//! Steps that several scenarios share.
//!
//! In: the three replicas. Out: the moment that a scenario needs, or what is wrong.

use super::ask::{Asked, number};
use super::replica::batch;
use super::trio::Trio;
use super::wire::{Fate, Half};
use crate::checks::Violation;
use crate::nemesis::Plan;
use crate::simulation::Simulation;
use keystead::raft::network::kind;
use keystead::types::{ReplyBody, Request};
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

const AT_MOST: Duration = Duration::from_secs(90);

/// What a script says in the end: what is wrong, if anything is.
pub(super) type Said = Result<(), String>;

/// Runs a script in a simulation of its own.
pub(super) fn stage(seed: u64, script: impl Future<Output = Said> + 'static) -> Vec<Violation> {
    let said: Rc<RefCell<Option<Said>>> = Rc::default();
    let tell = said.clone();
    let mut simulation = Simulation::new(seed, AT_MOST);
    simulation.client("director", move |_| async move {
        let outcome = script.await;
        *tell.borrow_mut() = Some(outcome);
    });
    let ended = simulation.run(Plan::calm(AT_MOST));
    let outcome = match (said.borrow_mut().take(), ended) {
        (Some(outcome), _) => outcome,
        (None, Err(what)) => Err(what),
        (None, Ok(_)) => Err("the director said nothing".to_owned()),
    };
    outcome.err().map(|what| Violation { check: "finding", what }).into_iter().collect()
}

/// Cuts a leader off and has it write something that gets into its own log alone; gives the index.
pub(super) async fn put_alone(trio: &Trio, leader: u64, request: Request) -> Result<(Asked, u64), String> {
    let last = trio.at(leader)?.last();
    trio.isolate(leader);
    let asked = trio.ask(leader, request)?;
    trio.until("the write is in its leader's log", |trio| trio.at(leader).is_ok_and(|at| at.last() > last)).await?;
    Ok((asked, last + 1))
}

/// Another batch comes to leader 1's log under the number of the executor's next one, which is then
/// computed for a request without knowing of it. Gives the index of the executor's batch; neither
/// has left 1.
pub(super) async fn overtaken(trio: &Trio, key: &str, value: i64, request: Request) -> Result<(Asked, u64), String> {
    [2, 3].into_iter().for_each(|id| trio.wire.set(1, id, &[kind::APPEND], Half::Question, Fate::Held));
    let leader = trio.at(1)?;
    let (term, (run, last)) = (leader.term(), leader.last_batch().await?);
    let index = leader.last() + 2;
    let first = batch(term, run, last + 1, key, value);
    // Its verdict is the executor's to hear of, by its own batch's.
    drop(leader.group.propose(term, first).await.map_err(|error| error.to_string())?);
    let asked = trio.ask(1, request)?;
    trio.until("both batches are in the log", |trio| trio.at(1).is_ok_and(|at| at.last() >= index)).await?;
    let own = trio.at(1)?.last_batch().await?;
    if own != (run, last + 1) || trio.at(1)?.applied() + 2 > index {
        return Err(format!("two batches {} of a run were to wait for their commit; the last is {own:?}", last + 1));
    }
    Ok((asked, index))
}

/// Lets leader 1's entries go to the others.
pub(super) fn let_commit(trio: &Trio) {
    [2, 3].into_iter().for_each(|id| trio.wire.let_go(1, id, &[kind::APPEND], Half::Question));
}

/// A read that came after the last write of a key: whoever answers it gives that write's value. That
/// it is sent elsewhere is right as well.
pub(super) async fn fresh(read: Asked, expected: i64) -> Said {
    let Ok(reply) = read.answer().await? else { return Ok(()) };
    let shown = match &reply.body {
        ReplyBody::Entry(entry) | ReplyBody::ConditionFailed(entry) => entry.as_ref().and_then(number),
        _ => None,
    };
    if shown == Some(expected) {
        return Ok(());
    }
    Err(format!("{expected} was written, and a read that came later was answered with {:?}", reply.body))
}

/// Everything is mended: the replicas become equal, and a read of the key gives this.
pub(super) async fn ends_with(trio: &mut Trio, key: &str, expected: Option<i64>) -> Said {
    let end = trio.converge(key).await?;
    if end == expected {
        return Ok(());
    }
    Err(format!("{key} ends with {end:?}; {expected:?} was acknowledged last"))
}
