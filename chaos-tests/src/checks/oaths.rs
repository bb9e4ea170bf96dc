//! What a replica has sworn it remembers, or never speaks again under its id: no vote and no
//! acknowledgement by a replica id that lost its disk, nor by one that lost its log's acknowledged end
//! or its vote in any other way.
//!
//! Source: Raft's persistent state (Ongaro and Ousterhout, USENIX ATC 2014, figure 2), and Alagappan
//! and others, "Protocol-Aware Recovery for Consensus-Based Storage" (FAST 2018), which shows what
//! becomes of acknowledged writes where a damaged replica goes on under its old id.

use super::Violation;
use keystead::raft::{Deed, SavedVote};
use keystead::types::{GroupId, ReplicaId};
use std::collections::{BTreeMap, VecDeque};

/// What a replica has told others, or may have.
#[derive(Debug, Default)]
struct Sworn {
    host: String,
    /// Its log is durable up to here.
    durable: Option<u64>,
    /// Entries under way to the disk; whether they were cut off again meanwhile.
    pending: VecDeque<(u64, bool)>,
    vote: Option<SavedVote>,
    /// Its disk is lost.
    lost: bool,
}

/// Told of every deed of every replica, and of every disk that is lost.
#[derive(Debug, Default)]
pub struct Oaths {
    sworn: BTreeMap<(GroupId, ReplicaId), Sworn>,
    violations: Vec<Violation>,
}

impl Oaths {
    /// This host's disk is gone with everything on it.
    pub fn disk_lost(&mut self, host: &str) {
        self.sworn.values_mut().filter(|sworn| sworn.host == host).for_each(|sworn| sworn.lost = true);
    }

    /// A replica on this host did something.
    pub fn told(&mut self, host: &str, group: GroupId, replica: ReplicaId, deed: &Deed<'_>) {
        let sworn = self.sworn.entry((group, replica)).or_default();
        host.clone_into(&mut sworn.host);
        let wrong = if sworn.lost { Some(format!("its disk was lost, and still {deed:?}")) } else { sworn.told(deed) };
        if let Some(what) = wrong {
            let what = format!("{host}, group {group}, replica {replica}: {what}");
            self.violations.push(Violation { check: "no word of a replica that lost its memory", what });
        }
    }

    /// What was wrong so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

/// Whether a replica that has saved one vote may save or find the other later.
fn may_follow(before: SavedVote, after: SavedVote) -> bool {
    match after.term.cmp(&before.term) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => false,
        // In its term it votes once; that somebody else has won it may learn.
        std::cmp::Ordering::Equal if before.committed => after == before,
        std::cmp::Ordering::Equal => after.committed || after.candidate == before.candidate,
    }
}

impl Sworn {
    fn told(&mut self, deed: &Deed<'_>) -> Option<String> {
        match deed {
            Deed::Starts { last, vote } => {
                self.pending.clear();
                let end = last.map(|at| at.index);
                if let Some(durable) = self.durable.filter(|durable| end.is_none_or(|end| end < *durable)) {
                    return Some(format!("it starts with a log up to {end:?}, and had acknowledged index {durable}"));
                }
                let kept = |saved| vote.is_some_and(|found| may_follow(saved, found));
                if let Some(saved) = self.vote.filter(|saved| !kept(*saved)) {
                    return Some(format!("it starts with {vote:?}, and had given {saved:?}"));
                }
                // From now on it answers for all that it has found.
                (self.durable, self.vote) = (end, *vote);
            }
            Deed::Appends { at, .. } => self.pending.push_back((at.index, false)),
            Deed::Durable(upto) => {
                while let Some((index, cut)) = self.pending.pop_front() {
                    if !cut {
                        self.durable = self.durable.max(Some(index));
                    }
                    if index == *upto {
                        break;
                    }
                }
            }
            Deed::TakesBack(from) => {
                let mut next = *from;
                while self.pending.front().is_some_and(|(index, _)| *index == next) {
                    self.pending.pop_front();
                    next += 1;
                }
            }
            Deed::Truncates(after) => {
                self.durable = self.durable.min(*after);
                let behind = |index: u64| after.is_none_or(|after| index > after);
                self.pending.iter_mut().filter(|(index, _)| behind(*index)).for_each(|(_, cut)| *cut = true);
            }
            Deed::Votes(vote) => {
                let before = self.vote.replace(*vote);
                let broken = before.filter(|before| !may_follow(*before, *vote));
                return broken.map(|before| format!("it gave {vote:?} after {before:?}"));
            }
            Deed::Purges(_) | Deed::Applies(_) | Deed::Installs(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use keystead::raft::LogPlace;

    static EMPTY: Bytes = Bytes::new();

    fn append(index: u64) -> Deed<'static> {
        Deed::Appends { at: LogPlace { index, term: 1 }, bytes: &EMPTY, voters: None }
    }

    fn starts(last: Option<u64>, vote: Option<SavedVote>) -> Deed<'static> {
        Deed::Starts { last: last.map(|index| LogPlace { index, term: 1 }), vote }
    }

    fn vote(term: u64, candidate: ReplicaId, committed: bool) -> SavedVote {
        SavedVote { term, candidate, committed }
    }

    fn found(deeds: &[Deed<'_>]) -> usize {
        let mut check = Oaths::default();
        deeds.iter().for_each(|deed| check.told("n1", GroupId(1), 1, deed));
        check.violations().len()
    }

    #[test]
    fn a_replica_that_remembers_passes() {
        let voted = vote(2, 3, false);
        let life = [starts(None, None), append(1), append(2), Deed::Durable(2), append(3), Deed::Votes(voted)];
        for last in [2, 3] {
            assert_eq!(found(&[&life[..], &[starts(Some(last), Some(voted))]].concat()), 0);
        }
        let cut = [Deed::Truncates(Some(1)), starts(Some(1), Some(vote(2, 1, true)))];
        assert_eq!(found(&[&life[..], &cut].concat()), 0, "it has cut its log itself, and heard who won");
    }

    #[test]
    fn an_acknowledged_end_that_is_gone_is_found() {
        let life = [append(1), append(2), Deed::Durable(2)];
        for last in [None, Some(1)] {
            assert_eq!(found(&[&life[..], &[starts(last, None)]].concat()), 1);
        }
    }

    #[test]
    fn what_it_started_with_is_owed_whether_or_not_it_was_acknowledged_before() {
        assert_eq!(found(&[append(1), starts(Some(1), None), starts(None, None)]), 1);
        let voted = Some(vote(2, 1, false));
        assert_eq!(found(&[starts(None, voted), starts(None, None)]), 1);
    }

    #[test]
    fn what_was_cut_off_on_its_way_to_the_disk_is_not_owed() {
        let life = [append(1), append(2), append(3), Deed::Truncates(Some(1)), append(2), Deed::Durable(3)];
        assert_eq!(found(&[&life[..], &[starts(Some(1), None)]].concat()), 0);
        assert_eq!(found(&[&life[..], &[Deed::Durable(2), starts(Some(1), None)]].concat()), 1);
        let full = [append(1), append(2), Deed::TakesBack(1), append(1), Deed::Durable(1), starts(Some(1), None)];
        assert_eq!(found(&full), 0, "there was no room for it");
    }

    #[test]
    fn a_vote_forgotten_or_given_twice_is_found() {
        assert_eq!(found(&[Deed::Votes(vote(2, 1, false)), starts(None, None)]), 1);
        assert_eq!(found(&[Deed::Votes(vote(2, 1, false)), starts(None, Some(vote(1, 1, true)))]), 1);
        assert_eq!(found(&[Deed::Votes(vote(2, 1, false)), Deed::Votes(vote(2, 3, false))]), 1);
        assert_eq!(found(&[Deed::Votes(vote(2, 1, true)), Deed::Votes(vote(2, 3, true))]), 1);
        assert_eq!(found(&[Deed::Votes(vote(2, 1, false)), Deed::Votes(vote(2, 3, true))]), 0);
        assert_eq!(found(&[Deed::Votes(vote(2, 1, true)), Deed::Votes(vote(3, 3, false))]), 0);
    }

    #[test]
    fn an_id_whose_disk_was_lost_never_speaks_again() {
        let mut check = Oaths::default();
        check.told("n1", GroupId(1), 1, &append(1));
        check.told("n2", GroupId(1), 2, &append(1));
        check.disk_lost("n1");
        check.told("n2", GroupId(1), 2, &append(2));
        check.told("n1", GroupId(1), 9, &starts(None, None));
        assert_eq!(check.violations(), [], "others, and a new id, may");
        check.told("n1", GroupId(1), 1, &starts(None, None));
        assert_eq!(check.violations().len(), 1);
    }
}
