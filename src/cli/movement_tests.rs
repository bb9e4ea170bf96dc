//! The wait for a member that is to be empty, against scripted looks.

use super::*;
use crate::node::ReplicaInfo;
use crate::types::PartitionId;
use std::cell::RefCell;
use std::collections::VecDeque;

fn member(id: u64, state: MemberState, replicas: u32) -> MemberInfo {
    let (name, address) = (format!("n{id}"), format!("a:{id}"));
    let (zone, trouble, tasks) = (None, None, Vec::new());
    MemberInfo { name, id: NodeId(id), address, zone, state, leaders: 0, replicas, trouble, tasks }
}

/// A partition with replicas on these nodes; the first is as said.
fn partition(id: u32, nodes: &[u64], first: ReplicaState) -> PartitionInfo {
    let replica = |(at, node): (usize, &u64)| ReplicaInfo {
        replica: *node,
        node: NodeId(*node),
        name: format!("n{node}"),
        state: if at == 0 { first } else { ReplicaState::Holding },
    };
    let replicas = nodes.iter().enumerate().map(replica).collect();
    PartitionInfo {
        id: PartitionId(id),
        first_slot: 0,
        last_slot: 1,
        leader: None,
        replicas,
        term: 1,
        applied: 1,
        rows: 0,
        under_replicated: 0,
    }
}

/// Members 1 to `count`, of which the second leaves, and one partition on the first three.
fn sight(count: u64, leaves: MemberState, first: ReplicaState) -> Sight {
    let state = |id| if id == 2 { leaves } else { MemberState::Alive };
    let nodes: Vec<u64> = (1..=count.min(3)).collect();
    let members = (1..=count).map(|id| member(id, state(id), 1)).collect();
    Sight { members, partitions: vec![partition(0, &nodes, first)] }
}

#[test]
fn only_what_nobody_can_take_is_stuck() {
    use MemberState::{Alive, Draining, Removing};
    use ReplicaState::{Coming, Holding, Leaving};
    let stuck = |count, state, first| sight(count, state, first).is_stuck(NodeId(2));
    assert!(stuck(3, Draining, Holding), "two peers cannot hold three replicas");
    assert!(stuck(2, Draining, Holding));
    assert!(!stuck(4, Draining, Holding), "the fourth takes it");
    assert!(!stuck(3, Draining, Coming) && !stuck(3, Draining, Leaving), "something moves");
    assert!(!stuck(3, Alive, Holding), "the drain is not seen yet");
    assert!(!stuck(3, Removing, Holding), "a removal leaves two replicas");
    let mut alone = sight(2, Removing, Holding);
    assert!(!alone.is_stuck(NodeId(2)));
    alone.members[0].state = Draining;
    assert!(alone.is_stuck(NodeId(2)), "nobody is left at all");
    alone.partitions.clear();
    assert!(!alone.is_stuck(NodeId(2)), "it holds nothing");
}

async fn wait_for(looks: Vec<Result<Sight>>, within: Duration) -> (Result<()>, usize) {
    let looks = RefCell::new(VecDeque::from(looks));
    let look = async || looks.borrow_mut().pop_front().unwrap_or_else(|| Err(Error::internal("no more looks")));
    let is_empty = |member: Option<&MemberInfo>| member.is_none_or(|member| member.replicas == 0);
    let waited = wait("n2", NodeId(2), within, look, is_empty).await;
    (waited, looks.into_inner().len())
}

fn unreachable() -> Result<Sight> {
    Err(Error::new(Code::PeerUnreachable, "no answer in time"))
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_does_not_end_the_wait() {
    let draining = || Ok(sight(4, MemberState::Draining, ReplicaState::Holding));
    let mut empty = sight(4, MemberState::Draining, ReplicaState::Holding);
    empty.members[1].replicas = 0;
    let (waited, left) = wait_for(vec![unreachable(), draining(), unreachable(), Ok(empty)], LOOK * 10).await;
    assert!(waited.is_ok() && left == 0, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_wait_says_what_is_held_or_why_nothing_is_known() {
    let draining = || Ok(sight(4, MemberState::Draining, ReplicaState::Holding));
    let (waited, _) = wait_for(vec![draining(), unreachable()], Duration::ZERO).await;
    let error = waited.expect_err("the time is over");
    assert!(
        error.code == Code::DeadlineExceeded && error.what.contains("still holds 1 replicas; nothing moves"),
        "{error}"
    );
    let moving = Ok(sight(4, MemberState::Draining, ReplicaState::Coming));
    let error = wait_for(vec![moving], Duration::ZERO).await.0.expect_err("the time is over");
    assert!(error.what.contains("goes on moving them"), "{error}");
    let (waited, _) = wait_for(vec![unreachable()], Duration::ZERO).await;
    assert_eq!(waited.expect_err("nothing was seen").code, Code::PeerUnreachable);
    let stuck = sight(3, MemberState::Draining, ReplicaState::Holding);
    let (waited, _) = wait_for(vec![draining(), Ok(stuck), draining()], Duration::from_secs(600)).await;
    let error = waited.expect_err("nobody takes it");
    assert!(error.code == Code::NotReady && error.what.contains("no peer is left to take the 1 replicas"), "{error}");
    assert!(error.remedy.contains("`keystead drain n2 --undo`"), "{error}");
}
