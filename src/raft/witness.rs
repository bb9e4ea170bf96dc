//! Tells a witness what a replica does to its log, vote and state, at the moment from which it counts.
//! In: one deed at a time, from the log store and the state machine's adapter. Out: calls. Only the
//! simulator has a witness, and judges; nothing here changes what a replica does.

use super::types::{Entry, EntryPayload, LogId, Vote};
use super::{machine::term_of, types::SnapshotMeta};
use crate::types::{GroupId, ReplicaId};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Index and term of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// The index.
    pub index: u64,
    /// The term.
    pub term: u64,
}

/// A vote that a replica has saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedVote {
    /// The term.
    pub term: u64,
    /// For whom.
    pub candidate: ReplicaId,
    /// Whether that one is known to have won.
    pub committed: bool,
}

/// What a replica does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed<'a> {
    /// It starts with what it has found of itself.
    Starts {
        /// The last entry, or the last one that was purged.
        last: Option<LogPlace>,
        /// The vote.
        vote: Option<SavedVote>,
    },
    /// It puts an entry into its log; not durable yet.
    Appends {
        /// Where.
        at: LogPlace,
        /// The whole entry.
        bytes: &'a Bytes,
        /// If it is a membership: the sets of voters, two in a joint change.
        voters: Option<Vec<BTreeSet<ReplicaId>>>,
    },
    /// Its log is durable up to this index.
    Durable(u64),
    /// Entries from this index on were not written for want of room, and are gone again.
    TakesBack(u64),
    /// It cuts its log behind this index.
    Truncates(Option<u64>),
    /// It has forgotten the entries up to here.
    Purges(LogPlace),
    /// A vote is saved.
    Votes(SavedVote),
    /// It applies a committed entry.
    Applies(LogPlace),
    /// It takes a snapshot of this place for its state.
    Installs(LogPlace),
}

type Told = dyn Fn(GroupId, ReplicaId, &Deed<'_>) + Send + Sync;

/// Is told of each deed of each replica of a node.
#[derive(Clone)]
pub struct Witness(pub Arc<Told>);

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// The witness of one replica, if there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched(Option<(Witness, GroupId, ReplicaId)>);

impl Watched {
    pub(super) fn new(witness: Option<&Witness>, group: GroupId, replica: ReplicaId) -> Self {
        Watched(witness.map(|witness| (witness.clone(), group, replica)))
    }

    /// Tells of a deed, which is put into words only where there is a witness.
    pub(super) fn told<'a>(&self, deed: impl FnOnce() -> Deed<'a>) {
        if let Some((Witness(told), group, replica)) = &self.0 {
            told(*group, *replica, &deed());
        }
    }

    /// Whether somebody listens.
    pub(super) fn listens(&self) -> bool {
        self.0.is_some()
    }
}

impl From<&LogId> for LogPlace {
    fn from(id: &LogId) -> Self {
        LogPlace { index: id.index(), term: term_of(id) }
    }
}

impl From<&Vote> for SavedVote {
    fn from(vote: &Vote) -> Self {
        SavedVote { term: vote.leader_id.term, candidate: vote.leader_id.voted_for, committed: vote.committed }
    }
}

/// The place that a snapshot stands for.
pub(super) fn place_of(meta: &SnapshotMeta) -> Option<LogPlace> {
    meta.last_log_id.as_ref().map(LogPlace::from)
}

/// The sets of voters that an entry names.
pub(super) fn voters_of(entry: &Entry) -> Option<Vec<BTreeSet<ReplicaId>>> {
    match &entry.payload {
        EntryPayload::Membership(members) => Some(members.get_joint_config().clone()),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    }
}
