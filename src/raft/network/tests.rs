//! A group of three replicas over the peer transport on a network in memory.

mod group;
mod store;
mod transfers;

use super::*;
use group::{Group, eventually};
use openraft::alias::VoteOf;

#[tokio::test]
async fn a_group_elects_and_replicates() {
    let group = Group::start(RaftNetworkConfig::default()).await;
    for number in 0..20u8 {
        group.write(1, vec![number; 100]).await;
    }
    group.all_have_applied(20).await;
}

#[tokio::test]
async fn more_than_an_append_may_hold_goes_in_several() {
    let config = RaftNetworkConfig { max_append_bytes: 10_000, ..Default::default() };
    let group = Group::start(config).await;
    group.cut(3, true);
    let writes = (0..50u8).map(|number| group.write(1, vec![number; 3_000]));
    futures::future::join_all(writes).await;
    // Larger than the limit on its own.
    group.write(1, vec![9; 30_000]).await;
    group.cut(3, false);
    group.all_have_applied(51).await;
    assert!(group.largest(kind::APPEND) < 31_000, "{}", group.largest(kind::APPEND));
    assert!(group.largest(kind::APPEND) > 9_000, "entries should travel together");
}

#[tokio::test]
async fn leadership_is_handed_over() {
    let group = Group::start(RaftNetworkConfig::default()).await;
    group.write(1, vec![1]).await;
    group.raft(1).trigger().transfer_leader(2).await.expect("asked");
    eventually("replica 2 leads", || group.leader_seen_by(3) == Some(2)).await;
    group.write(2, vec![2]).await;
    group.all_have_applied(2).await;
    assert!(group.largest(kind::TRANSFER) > 0);
}

#[tokio::test]
async fn a_replica_that_is_far_behind_gets_a_snapshot() {
    let config = RaftNetworkConfig { snapshot_chunk_bytes: 1_000, ..Default::default() };
    let group = Group::start(config).await;
    group.write(1, vec![0]).await;
    group.all_have_applied(1).await;
    group.cut(3, true);
    for number in 1..60u8 {
        group.write(1, vec![number; 200]).await;
    }
    group.compact(1).await;
    group.cut(3, false);
    group.all_have_applied(60).await;
    assert!(group.store(3).snapshots_installed() > 0, "it caught up from the log");
    assert!(group.largest(kind::SNAPSHOT_CHUNK) < 2_000);
    group.write(1, vec![60]).await;
    group.all_have_applied(61).await;
}

#[tokio::test]
async fn a_frame_for_another_replica_is_refused() {
    let group = Group::start(RaftNetworkConfig::default()).await;
    let receptions = Receptions::new(ReceptionConfig::default());
    let request = openraft::raft::VoteRequest::<TypeConfig>::new(VoteOf::<TypeConfig>::new(9, 2), None);
    let payload = crate::raft::rpc_codec::encode_request(77, &request).expect("encodes");
    let answer = dispatch(group.raft(1), &receptions, GroupId(1), kind::VOTE, payload).await;
    assert_eq!(answer.expect_err("refused").code, crate::error::Code::NotReady);
}
