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
        let may_lead = |member| view.may_lead(member, |node| self.directory.counts(node));
        self.hosted.group.id() == GroupId::META || view.member(node).is_none_or(may_lead)
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

    /// Who may take over when this replica must not go on; `None` without a living voter that could.
    pub fn successor(&self) -> Option<ReplicaId> {
        let staying: Vec<ReplicaId> = self.others().iter().map(|(id, _)| *id).collect();
        let me = self.hosted.group.replica();
        let others = self.status.voters.iter().filter(|(id, node)| **id != me && self.directory.is_alive(**node));
        let candidate = |(id, node): (&ReplicaId, &NodeId)| Candidate {
            replica: *id,
            stays: staying.contains(id),
            carries: self.carries(*node),
            matched: self.status.matched.get(id).copied().flatten(),
        };
        best(others.map(candidate).collect(), &self.status)
    }
}

/// A living voter that might take over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    replica: ReplicaId,
    /// It is wanted in the end.
    stays: bool,
    /// Its peer carries everything that runs beside the group's data.
    carries: bool,
    /// What it has acknowledged to this leader.
    matched: Option<u64>,
}

/// The best successor: of those that have caught up one that stays, then one that carries the tasks.
/// Where none has, the one that is furthest: while another catches up nobody would serve. While the
/// members change, nobody who may not know yet that it is a voter: it would not stand for election.
fn best(mut candidates: Vec<Candidate>, status: &GroupStatus) -> Option<ReplicaId> {
    candidates.retain(|candidate| status.settled || candidate.matched >= Some(status.members_at));
    let worth = |candidate: &Candidate| {
        let caught_up = status.is_close(candidate.matched);
        (caught_up, caught_up && candidate.stays, caught_up && candidate.carries, candidate.matched)
    };
    candidates.into_iter().max_by_key(worth).map(|best| best.replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(replica: ReplicaId, stays: bool, carries: bool, matched: u64) -> Candidate {
        Candidate { replica, stays, carries, matched: Some(matched) }
    }

    #[test]
    fn who_lags_takes_over_only_where_nobody_has_caught_up() {
        let best = |candidates, last_log| {
            super::best(candidates, &GroupStatus { last_log, settled: true, ..GroupStatus::default() })
        };
        let lagging = candidate(1, true, true, 10);
        let close = candidate(2, false, false, 990);
        let other = candidate(3, true, false, 980);
        assert_eq!(best(vec![lagging.clone(), close.clone()], 1000), Some(2));
        assert_eq!(best(vec![lagging.clone(), close.clone(), other.clone()], 1000), Some(3), "one that stays");
        assert_eq!(best(vec![candidate(4, true, true, 970), other.clone()], 1000), Some(4), "one with the tasks");
        assert_eq!(best(vec![lagging, close], 5000), Some(2), "the furthest");
        assert_eq!(best(Vec::new(), 5000), None);
        // However short the log is, who has acknowledged nothing has not caught up.
        let silent = Candidate { matched: None, ..candidate(5, true, true, 0) };
        assert_eq!(best(vec![silent, candidate(6, false, false, 3)], 20), Some(6));
    }

    #[test]
    fn while_members_change_only_who_knows_of_it_takes_over() {
        let changing = GroupStatus { last_log: 1000, members_at: 995, settled: false, ..GroupStatus::default() };
        let (newcomer, old) = (candidate(4, true, true, 994), candidate(2, false, true, 995));
        assert_eq!(best(vec![newcomer.clone(), old.clone()], &changing), Some(2));
        assert_eq!(best(vec![newcomer.clone()], &changing), None, "it is asked again soon");
        let settled = GroupStatus { settled: true, ..changing };
        assert_eq!(best(vec![newcomer, old], &settled), Some(4));
    }
}
