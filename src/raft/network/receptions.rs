//! Snapshots on their way in, at most one a group. In: pieces in order. Out: the whole, when the
//! last message has come. Nothing of a snapshot is applied before it is complete.

use crate::clock::Instant;
use crate::error::{Code, Error, Result};
use crate::raft::rpc_codec::SnapshotPart;
use crate::raft::snapshot::SnapshotData;
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote};
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use openraft::alias::SnapshotOf;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Limits of a node's receptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceptionConfig {
    /// Snapshots received at once. Default 8.
    pub max_receptions: usize,
    /// Bytes of unfinished snapshots in memory, over all groups. Default 1 GiB.
    pub max_snapshot_bytes: usize,
    /// A reception without a new piece for so long is dropped when room is needed. Default 30 s.
    pub idle_timeout: Duration,
}

impl Default for ReceptionConfig {
    fn default() -> Self {
        ReceptionConfig { max_receptions: 8, max_snapshot_bytes: 1 << 30, idle_timeout: Duration::from_secs(30) }
    }
}

struct Reception {
    replica: ReplicaId,
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    chunks: Vec<Bytes>,
    bytes: usize,
    touched: Instant,
}

impl Reception {
    fn is_of(&self, replica: ReplicaId, part: &SnapshotPart) -> bool {
        self.replica == replica && self.transfer == part.transfer && self.vote == part.vote
    }
}

/// A node's unfinished snapshots.
pub struct Receptions {
    config: ReceptionConfig,
    groups: Mutex<BTreeMap<GroupId, Reception>>,
}

fn start_again(what: &str) -> Error {
    Error::new(Code::NotReady, format!("the snapshot must be sent again: {what}"))
}

impl Receptions {
    /// No receptions yet.
    pub fn new(config: ReceptionConfig) -> Self {
        Receptions { config, groups: Mutex::default() }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Reception>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what has come for a group: it no longer lives here.
    pub fn forget(&self, group: GroupId) {
        self.groups().remove(&group);
    }

    /// Takes a piece. One that is there already is taken as heard.
    pub(super) fn piece(&self, group: GroupId, replica: ReplicaId, part: SnapshotPart) -> Result<()> {
        let mut groups = self.groups();
        let present = groups.get(&group).is_some_and(|reception| reception.is_of(replica, &part));
        if !present {
            if part.sequence != 0 {
                return Err(start_again("its beginning is not here"));
            }
            self.begin(&mut groups, group, replica, &part)?;
        }
        let held: usize = groups.values().map(|reception| reception.bytes).sum();
        let Some(reception) = groups.get_mut(&group) else { return Err(start_again("it was dropped")) };
        reception.touched = Instant::now();
        match (part.sequence as usize).cmp(&reception.chunks.len()) {
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Greater => return Err(start_again("a piece is missing")),
            std::cmp::Ordering::Equal => {}
        }
        if held + part.body.len() > self.config.max_snapshot_bytes {
            groups.remove(&group);
            return Err(Error::new(Code::Overloaded, "unfinished snapshots fill max_snapshot_bytes"));
        }
        reception.bytes += part.body.len();
        reception.chunks.push(part.body);
        Ok(())
    }

    /// Replaces whatever the group was receiving.
    fn begin(
        &self,
        groups: &mut BTreeMap<GroupId, Reception>,
        group: GroupId,
        replica: ReplicaId,
        part: &SnapshotPart,
    ) -> Result<()> {
        let Some(meta) = part.meta.clone() else { return Err(start_again("it has no metadata")) };
        groups.remove(&group);
        if groups.len() >= self.config.max_receptions {
            groups.retain(|_, reception| reception.touched.elapsed() < self.config.idle_timeout);
        }
        if groups.len() >= self.config.max_receptions {
            return Err(Error::new(Code::Overloaded, "too many snapshots are being received"));
        }
        let (transfer, vote) = (part.transfer, part.vote);
        let touched = Instant::now();
        groups.insert(group, Reception { replica, transfer, vote, meta, chunks: Vec::new(), bytes: 0, touched });
        Ok(())
    }

    /// Takes the last message: the snapshot, complete.
    pub(super) fn end(
        &self,
        group: GroupId,
        replica: ReplicaId,
        part: SnapshotPart,
    ) -> Result<SnapshotOf<TypeConfig, SnapshotData>> {
        let mut groups = self.groups();
        match groups.remove(&group) {
            Some(reception) if reception.is_of(replica, &part) => {
                if reception.chunks.len() != part.sequence as usize {
                    return Err(start_again("a piece is missing"));
                }
                let snapshot = SnapshotData::Received { chunks: reception.chunks, trailer: part.body };
                Ok(openraft::Snapshot { meta: reception.meta, snapshot })
            }
            other => {
                // Another transfer's reception goes on.
                if let Some(reception) = other {
                    groups.insert(group, reception);
                }
                Err(start_again("its beginning is not here"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::LeaderId;

    fn part(transfer: u64, sequence: u32, body: &'static [u8]) -> SnapshotPart {
        let vote = Vote { leader_id: LeaderId { term: 1, voted_for: 1 }, committed: true };
        let meta = (sequence == 0).then(|| SnapshotMeta { last_log_id: None, last_membership: Default::default() });
        SnapshotPart { transfer, vote, sequence, meta, body: Bytes::from_static(body) }
    }

    fn receptions() -> Receptions {
        let idle_timeout = Duration::from_secs(30);
        Receptions::new(ReceptionConfig { max_receptions: 2, max_snapshot_bytes: 10, idle_timeout })
    }

    fn chunks(snapshot: SnapshotOf<TypeConfig, SnapshotData>) -> Vec<Bytes> {
        match snapshot.snapshot {
            SnapshotData::Received { chunks, .. } => chunks,
            SnapshotData::Source(_) => panic!("a received snapshot is never a source"),
        }
    }

    const G: GroupId = GroupId(1);

    #[test]
    fn pieces_come_together_in_order_and_repeated_ones_count_once() {
        let here = receptions();
        for (sequence, body) in [(0, b"aa".as_slice()), (0, b"aa"), (1, b"bb"), (0, b"aa"), (1, b"bb")] {
            here.piece(G, 5, part(1, sequence, body)).expect("taken");
        }
        assert_eq!(here.piece(G, 5, part(1, 3, b"dd")).expect_err("a gap").code, Code::NotReady);
        assert_eq!(chunks(here.end(G, 5, part(1, 2, b"t")).expect("complete")), ["aa", "bb"]);
        assert_eq!(here.end(G, 5, part(1, 2, b"t")).expect_err("taken away").code, Code::NotReady);
    }

    #[test]
    fn an_incomplete_snapshot_is_never_handed_out() {
        let here = receptions();
        here.piece(G, 5, part(1, 0, b"aa")).expect("taken");
        assert!(here.end(G, 5, part(1, 2, b"t")).is_err());
    }

    #[test]
    fn a_new_transfer_replaces_the_old_and_the_old_cannot_end_it() {
        let here = receptions();
        here.piece(G, 5, part(1, 0, b"old")).expect("taken");
        here.piece(G, 5, part(2, 0, b"new")).expect("taken");
        assert!(here.piece(G, 5, part(1, 1, b"old")).is_err());
        assert!(here.end(G, 5, part(1, 1, b"t")).is_err());
        assert!(here.end(G, 6, part(2, 1, b"t")).is_err(), "for another replica");
        assert_eq!(chunks(here.end(G, 5, part(2, 1, b"t")).expect("complete")), ["new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn receptions_are_bounded_in_number_and_bytes_and_idle_ones_give_way() {
        let here = receptions();
        here.piece(GroupId(1), 1, part(1, 0, b"aaaa")).expect("taken");
        here.piece(GroupId(2), 2, part(1, 0, b"bbbb")).expect("taken");
        assert_eq!(here.piece(GroupId(3), 3, part(1, 0, b"")).expect_err("a third").code, Code::Overloaded);
        assert_eq!(here.piece(GroupId(2), 2, part(1, 1, b"bbb")).expect_err("11 bytes").code, Code::Overloaded);
        here.piece(GroupId(2), 2, part(2, 0, b"b")).expect("room again");
        crate::clock::sleep(Duration::from_secs(31)).await;
        here.piece(GroupId(3), 3, part(1, 0, b"cccccccccc")).expect("idle ones gave way");
    }
}
