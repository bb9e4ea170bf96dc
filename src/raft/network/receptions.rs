//! Snapshots on their way in, at most one a group. In: pieces in order. Out: the whole, when the
//! last message has come. Nothing of a snapshot is applied before it is complete. What does not
//! fit into a little RAM waits in a file.

use crate::clock::{Instant, ThreadKind, Threads, run_on};
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::raft::rpc_codec::SnapshotPart;
use crate::raft::snapshot::SnapshotData;
use crate::raft::spool::{Pieces, SpoolDir, SpoolFile};
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote};
use crate::types::{GroupId, ReplicaId};
use openraft::alias::SnapshotOf;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Limits of a node's receptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceptionConfig {
    /// Snapshots received at once. Default 8.
    pub max_receptions: usize,
    /// Bytes of unfinished snapshots in RAM, over all groups; further pieces go into a file each.
    /// Default 16 MiB.
    pub max_held_bytes: usize,
    /// Bytes of unfinished snapshots, over all groups. Default 1 TiB; where there is no directory
    /// for files, `max_held_bytes` bounds them.
    pub max_snapshot_bytes: u64,
    /// A reception without a new piece for so long is dropped when room is needed. Default 30 s.
    pub idle_timeout: Duration,
}

impl Default for ReceptionConfig {
    fn default() -> Self {
        ReceptionConfig {
            max_receptions: 8,
            max_held_bytes: 16 << 20,
            max_snapshot_bytes: 1 << 40,
            idle_timeout: Duration::from_secs(30),
        }
    }
}

struct Reception {
    replica: ReplicaId,
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    pieces: Pieces,
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
    /// Where pieces go that do not fit into RAM, and the threads that write them.
    spool: Option<(SpoolDir, Arc<dyn Threads>)>,
    /// One piece at a time: a repeated one must not overtake the first.
    one: tokio::sync::Mutex<()>,
}

/// Where a piece goes.
enum Place {
    Taken,
    File(Option<Arc<SpoolFile>>, u64),
}

fn start_again(what: &str) -> Error {
    Error::new(Code::NotReady, format!("the snapshot must be sent again: {what}"))
}

impl Receptions {
    /// No receptions yet; all of them in RAM.
    pub fn new(config: ReceptionConfig) -> Self {
        Receptions { config, groups: Mutex::default(), spool: None, one: tokio::sync::Mutex::default() }
    }

    /// Lets pieces that do not fit into RAM wait in files.
    #[must_use]
    pub fn spooling(mut self, dir: SpoolDir, threads: Arc<dyn Threads>) -> Self {
        self.spool = Some((dir, threads));
        self
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Reception>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what has come for a group: it no longer lives here.
    pub fn forget(&self, group: GroupId) {
        self.groups().remove(&group);
    }

    /// Takes a piece. One that is there already is taken as heard.
    pub(super) async fn piece(&self, group: GroupId, replica: ReplicaId, part: SnapshotPart) -> Result<()> {
        let _one = self.one.lock().await;
        failpoint::reach("receive-before-piece");
        let (file, offset) = match self.place(group, replica, &part)? {
            Place::Taken => return Ok(()),
            Place::File(file, offset) => (file, offset),
        };
        let Some((dir, threads)) = self.spool.clone() else {
            self.groups().remove(&group);
            return Err(Error::new(Code::Overloaded, "unfinished snapshots fill max_held_bytes"));
        };
        let piece = part.body.clone();
        let write = move || {
            let file = file.map_or_else(|| dir.create(&format!("{group}-{replica}")), Ok)?;
            file.write(&piece, offset)?;
            failpoint::reach("receive-after-spool");
            Ok(file)
        };
        let written = run_on(&threads, ThreadKind::Backend, write).await.and_then(|written| written);
        let mut groups = self.groups();
        let same = groups.get_mut(&group).filter(|reception| reception.is_of(replica, &part));
        let Some(reception) = same else { return Err(start_again("it was dropped")) };
        match written {
            Ok(file) => {
                reception.pieces.spooled(file, &part.body);
                Ok(())
            }
            Err(error) => {
                groups.remove(&group);
                Err(error)
            }
        }
    }

    /// Takes a piece into RAM, or says where in the file it goes.
    fn place(&self, group: GroupId, replica: ReplicaId, part: &SnapshotPart) -> Result<Place> {
        let mut groups = self.groups();
        let present = groups.get(&group).is_some_and(|reception| reception.is_of(replica, part));
        if !present {
            if part.sequence != 0 {
                return Err(start_again("its beginning is not here"));
            }
            self.begin(&mut groups, group, replica, part)?;
        }
        let held: usize = groups.values().map(|reception| reception.pieces.held_bytes()).sum();
        let spooled: u64 = groups.values().map(|reception| reception.pieces.spooled_bytes()).sum();
        let Some(reception) = groups.get_mut(&group) else { return Err(start_again("it was dropped")) };
        reception.touched = Instant::now();
        match (part.sequence as usize).cmp(&reception.pieces.len()) {
            std::cmp::Ordering::Less => return Ok(Place::Taken),
            std::cmp::Ordering::Greater => return Err(start_again("a piece is missing")),
            std::cmp::Ordering::Equal => {}
        }
        if (held + part.body.len()) as u64 + spooled > self.config.max_snapshot_bytes {
            groups.remove(&group);
            return Err(Error::new(Code::Overloaded, "unfinished snapshots fill max_snapshot_bytes"));
        }
        if reception.pieces.file().is_none() && held + part.body.len() <= self.config.max_held_bytes {
            reception.pieces.hold(part.body.clone());
            return Ok(Place::Taken);
        }
        Ok(Place::File(reception.pieces.file(), reception.pieces.spooled_bytes()))
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
        groups.insert(group, Reception { replica, transfer, vote, meta, pieces: Pieces::default(), touched });
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
                if reception.pieces.len() != part.sequence as usize {
                    return Err(start_again("a piece is missing"));
                }
                let snapshot = SnapshotData::Received { pieces: reception.pieces, trailer: part.body };
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
    use bytes::Bytes;

    fn part(transfer: u64, sequence: u32, body: &'static [u8]) -> SnapshotPart {
        let vote = Vote { leader_id: LeaderId { term: 1, voted_for: 1 }, committed: true };
        let meta = (sequence == 0).then(|| SnapshotMeta { last_log_id: None, last_membership: Default::default() });
        SnapshotPart { transfer, vote, sequence, meta, body: Bytes::from_static(body) }
    }

    fn receptions() -> Receptions {
        let idle_timeout = Duration::from_secs(30);
        let config = ReceptionConfig { max_receptions: 2, max_held_bytes: 10, max_snapshot_bytes: 20, idle_timeout };
        Receptions::new(config)
    }

    fn chunks(snapshot: SnapshotOf<TypeConfig, SnapshotData>) -> Vec<Bytes> {
        match snapshot.snapshot {
            SnapshotData::Received { pieces, .. } => pieces.iter().collect::<Result<_>>().expect("readable"),
            SnapshotData::Source(_) => panic!("a received snapshot is never a source"),
        }
    }

    const G: GroupId = GroupId(1);

    #[tokio::test]
    async fn pieces_come_together_in_order_and_repeated_ones_count_once() {
        let here = receptions();
        for (sequence, body) in [(0, b"aa".as_slice()), (0, b"aa"), (1, b"bb"), (0, b"aa"), (1, b"bb")] {
            here.piece(G, 5, part(1, sequence, body)).await.expect("taken");
        }
        assert_eq!(here.piece(G, 5, part(1, 3, b"dd")).await.expect_err("a gap").code, Code::NotReady);
        assert_eq!(chunks(here.end(G, 5, part(1, 2, b"t")).expect("complete")), ["aa", "bb"]);
        assert_eq!(here.end(G, 5, part(1, 2, b"t")).expect_err("taken away").code, Code::NotReady);
    }

    #[tokio::test]
    async fn an_incomplete_snapshot_is_never_handed_out() {
        let here = receptions();
        here.piece(G, 5, part(1, 0, b"aa")).await.expect("taken");
        assert!(here.end(G, 5, part(1, 2, b"t")).is_err());
    }

    #[tokio::test]
    async fn a_new_transfer_replaces_the_old_and_the_old_cannot_end_it() {
        let here = receptions();
        here.piece(G, 5, part(1, 0, b"old")).await.expect("taken");
        here.piece(G, 5, part(2, 0, b"new")).await.expect("taken");
        assert!(here.piece(G, 5, part(1, 1, b"old")).await.is_err());
        assert!(here.end(G, 5, part(1, 1, b"t")).is_err());
        assert!(here.end(G, 6, part(2, 1, b"t")).is_err(), "for another replica");
        assert_eq!(chunks(here.end(G, 5, part(2, 1, b"t")).expect("complete")), ["new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn receptions_are_bounded_in_number_and_bytes_and_idle_ones_give_way() {
        let here = receptions();
        here.piece(GroupId(1), 1, part(1, 0, b"aaaa")).await.expect("taken");
        here.piece(GroupId(2), 2, part(1, 0, b"bbbb")).await.expect("taken");
        assert_eq!(here.piece(GroupId(3), 3, part(1, 0, b"")).await.expect_err("a third").code, Code::Overloaded);
        assert_eq!(here.piece(GroupId(2), 2, part(1, 1, b"bbb")).await.expect_err("11 bytes").code, Code::Overloaded);
        here.piece(GroupId(2), 2, part(2, 0, b"b")).await.expect("room again");
        crate::clock::sleep(Duration::from_secs(31)).await;
        here.piece(GroupId(3), 3, part(1, 0, b"cccccccccc")).await.expect("idle ones gave way");
    }

    #[tokio::test]
    async fn what_does_not_fit_into_ram_waits_in_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("incoming");
        let spool = SpoolDir::open(Arc::new(crate::storage::disk::StdDisk), &path).expect("opens");
        let here = receptions().spooling(spool, Arc::new(crate::clock::SystemThreads));
        let sent = [&b"aaaa"[..], b"bbbb", b"cccc", b"d", b"ee"];
        for (sequence, body) in sent.iter().enumerate() {
            here.piece(G, 5, part(1, sequence as u32, body)).await.expect("taken");
            here.piece(G, 5, part(1, sequence as u32, body)).await.expect("heard before");
        }
        assert_eq!(
            std::fs::read(path.join("1-5")).expect("there"),
            b"ccccdee",
            "once in the file, in the file for good"
        );
        let error = here.piece(GroupId(2), 6, part(1, 0, b"ffffff")).await.expect_err("21 bytes");
        assert_eq!(error.code, Code::Overloaded);
        let snapshot = here.end(G, 5, part(1, 5, b"t")).expect("complete");
        assert_eq!(chunks(snapshot), sent);
        assert!(!path.join("1-5").exists(), "the file goes with the snapshot");
        here.piece(G, 5, part(2, 0, b"more than ten")).await.expect("taken");
        here.forget(G);
        assert!(!path.join("1-5").exists());
    }
}
