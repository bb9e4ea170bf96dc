//! Who should lead a group instead of the replica that does. In: the placement, the tasks that
//! peers carry, gossip's live peers, and how far the replicas are. Out: a replica, or nobody. It
//! never hands anything over itself, and never decides who is a member.

use super::directory::Directory;
use super::hosting::Hosted;
use crate::raft::GroupStatus;
use crate::types::{GroupId, NodeId, ReplicaId};

/// Looks at one group that is led here.
pub struct Leading<'a> {
    directory: &'a Directory,
    hosted: &'a Hosted,
    status: GroupStatus,
}

impl<'a> Leading<'a> {
    /// The group as it stands.
    pub fn of(directory: &'a Directory, hosted: &'a Hosted) -> Self {
        Leading { directory, hosted, status: hosted.group.status() }
    }

    /// Whether a peer carries everything that runs beside this group's data.
    fn carries(&self, node: NodeId) -> bool {
        let view = self.directory.view();
        self.hosted.group.id() == GroupId::META || view.member(node).is_none_or(|member| view.may_lead(member))
    }

    /// Whether another replica could take over now.
    fn is_fit(&self, replica: ReplicaId) -> bool {
        let node = self.status.voters.get(&replica);
        self.status.has_caught_up(replica) && node.is_some_and(|node| self.directory.is_alive(*node))
    }

    /// The voters that are wanted in the end, as the placement prefers them, less this one.
    fn others(&self) -> Vec<(ReplicaId, NodeId)> {
        let view = self.directory.view();
        let target = view.placement_of(self.hosted.group.id()).map(|row| row.target()).unwrap_or_default();
        target.into_iter().filter(|(id, _)| *id != self.hosted.group.replica()).collect()
    }

    /// Who should lead though this replica could: the preferred replica, or, if this peer lacks a
    /// task, one whose peer carries it. `None` when this is the best place.
    pub fn better(&self) -> Option<(ReplicaId, NodeId)> {
        // While the members change, a newcomer may not know yet that it is a voter: it would not stand
        // for election, and a leader that has handed over proposes nothing, the end of the change included.
        if !self.status.settled {
            return None;
        }
        let me = self.hosted.group.replica();
        let view = self.directory.view();
        let preferred = view.placement_of(self.hosted.group.id()).and_then(|row| row.target().first().copied())?;
        let fit = |(id, node): &(ReplicaId, NodeId)| self.is_fit(*id) && self.carries(*node);
        if preferred.0 != me && fit(&preferred) {
            return Some(preferred);
        }
        if self.carries(self.directory.me()) {
            return None;
        }
        self.others().into_iter().find(|replica| fit(replica))
    }

    /// Whether this peer lacks a task that another replica's peer carries.
    pub fn is_out_of_place(&self) -> bool {
        !self.carries(self.directory.me())
    }

    /// Who may take over when this replica must not go on: a voter that stays, best one that
    /// carries the tasks, then the one that is furthest.
    pub fn successor(&self) -> Option<ReplicaId> {
        let staying: Vec<ReplicaId> = self.others().iter().map(|(id, _)| *id).collect();
        let me = self.hosted.group.replica();
        let others = self.status.voters.iter().filter(|(id, node)| **id != me && self.directory.is_alive(**node));
        let worth = |(id, node): &(&ReplicaId, &NodeId)| {
            (staying.contains(id), self.carries(**node), self.status.matched.get(id).copied().flatten())
        };
        others.max_by_key(worth).map(|(id, _)| *id)
    }
}
