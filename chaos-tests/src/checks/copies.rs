//! Live copies never fall below the promise: a change of a group's voters leaves no fewer copies with
//! their disks than there were, up to the promised number; and nobody votes before it has caught up.
//!
//! Source: DESIGN section 5 ("a move": a newcomer catches up, then old is replaced by new in one joint
//! change); Raft's dissertation (Ongaro 2014), section 4.2.1, on new servers that vote too early.

use super::Violation;
use keystead::raft::{Deed, LogPlace};
use keystead::types::{GroupId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// A newcomer may lack so many entries when it becomes a voter: the product's bound, and as many that
/// were proposed between its look and the change.
const BEHIND: u64 = 128;

/// The sets of voters of a membership: two in a joint change.
type Voters = Vec<BTreeSet<ReplicaId>>;

/// Told of every deed of every replica, and of every disk that is lost.
#[derive(Debug, Default)]
pub struct Copies {
    /// So many copies are promised, once there were so many.
    promised: usize,
    hosts: BTreeMap<(GroupId, ReplicaId), String>,
    lost: BTreeSet<(GroupId, ReplicaId)>,
    /// Up to where a replica has its group's entries, in its log or its state.
    reached: BTreeMap<(GroupId, ReplicaId), u64>,
    /// All memberships that anybody has put into a log.
    memberships: BTreeMap<(GroupId, LogPlace), Voters>,
    /// Those in each replica's log.
    logs: BTreeMap<(GroupId, ReplicaId), BTreeMap<u64, Voters>>,
    /// The last one that was applied, with its index.
    applied: BTreeMap<GroupId, (u64, Voters)>,
    /// Who became a voter behind the first membership of its group.
    newcomers: BTreeSet<(GroupId, ReplicaId)>,
    violations: Vec<Violation>,
}

impl Copies {
    /// A check of a grid that promises so many copies.
    pub fn new(promised: usize) -> Self {
        Copies { promised, ..Copies::default() }
    }

    /// From now on no more copies than this are promised: a peer is to go, and so many stay.
    pub fn promise(&mut self, at_most: usize) {
        self.promised = self.promised.min(at_most);
    }

    /// This host's disk is gone with everything on it.
    pub fn disk_lost(&mut self, host: &str) {
        let lost = self.hosts.iter().filter(|(_, at)| *at == host).map(|(key, _)| *key);
        self.lost.extend(lost);
    }

    /// Whether the loss of this host's disk leaves a majority of three voters of every group whole, and
    /// the grid is there.
    pub fn may_lose(&self, host: &str) -> bool {
        let whole = |group: GroupId, set: &BTreeSet<ReplicaId>| {
            set.len() >= 3 && !set.iter().any(|replica| self.lost.contains(&(group, *replica)))
        };
        let here = |group: GroupId, set: &BTreeSet<ReplicaId>| {
            set.iter().any(|replica| self.hosts.get(&(group, *replica)).is_some_and(|at| at == host))
        };
        let in_force = |group: GroupId, from: u64| {
            self.memberships.iter().filter(move |((of, at), _)| *of == group && at.index >= from)
        };
        let safe = |(group, (from, _)): (&GroupId, &(u64, Voters))| {
            let mut sets = in_force(*group, *from).flat_map(|(_, voters)| voters);
            sets.all(|set| whole(*group, set) || (*group != GroupId::META && !here(*group, set)))
        };
        self.applied.contains_key(&GroupId::META)
            && self.hosts.values().any(|at| at == host)
            && self.memberships.keys().all(|(group, _)| self.applied.contains_key(group))
            && self.applied.iter().all(safe)
    }

    /// A replica on this host did something.
    pub fn told(&mut self, host: &str, group: GroupId, replica: ReplicaId, deed: &Deed<'_>) {
        let key = (group, replica);
        self.hosts.entry(key).or_insert_with(|| host.to_owned());
        match deed {
            Deed::Appends { at, voters: Some(voters), .. } => self.appended(key, *at, voters),
            Deed::Durable(upto) => self.reach(key, *upto),
            Deed::Installs(at) => self.reach(key, at.index),
            Deed::TakesBack(from) => self.cut(key, *from),
            Deed::Truncates(after) => self.cut(key, after.map_or(0, |after| after + 1)),
            Deed::Applies(at) => {
                let known = self.applied.get(&group).is_some_and(|(index, _)| *index >= at.index);
                if let Some(voters) = self.memberships.get(&(group, *at)).filter(|_| !known) {
                    self.applied.insert(group, (at.index, voters.clone()));
                }
            }
            Deed::Starts { .. } | Deed::Appends { .. } | Deed::Purges(_) | Deed::Votes(_) => {}
        }
    }

    fn reach(&mut self, key: (GroupId, ReplicaId), upto: u64) {
        let reached = self.reached.entry(key).or_default();
        *reached = upto.max(*reached);
    }

    fn cut(&mut self, key: (GroupId, ReplicaId), from: u64) {
        drop(self.logs.entry(key).or_default().split_off(&from));
    }

    fn appended(&mut self, (group, replica): (GroupId, ReplicaId), at: LogPlace, voters: &Voters) {
        let log = self.logs.entry((group, replica)).or_default();
        let before = log.range(..at.index).next_back().map(|(_, voters)| voters.clone());
        log.insert(at.index, voters.clone());
        if self.memberships.insert((group, at), voters.clone()).is_some() {
            return;
        }
        // A log that begins behind the last membership: that one is applied.
        let before = before.or_else(|| self.applied.get(&group).map(|(_, voters)| voters.clone()));
        let known: BTreeSet<ReplicaId> = before.iter().flatten().flatten().copied().collect();
        let came = voters.iter().flatten().filter(|replica| before.is_some() && !known.contains(*replica));
        self.newcomers.extend(came.map(|replica| (group, *replica)));
        if let Some(what) = before.and_then(|before| self.wrong(group, at, &before, voters)) {
            let what = format!("group {group}, {at:?}: {what}");
            self.violations.push(Violation { check: "live copies", what });
        }
    }

    fn wrong(&self, group: GroupId, at: LogPlace, before: &Voters, after: &Voters) -> Option<String> {
        // One that has never run is no copy: its peer may have lost its disk before that.
        let runs = |key: &(GroupId, ReplicaId)| self.hosts.contains_key(key) && !self.lost.contains(key);
        let whole = |set: &BTreeSet<ReplicaId>| set.iter().filter(|replica| runs(&(group, **replica))).count();
        let copies = |voters: &Voters| voters.iter().map(whole).min().unwrap_or(0);
        let (had, has) = (copies(before), copies(after));
        // Where a voter's disk was lost there is a copy less until another peer has it, and that one may be away
        // for so long that it is not waited for.
        let lost = self.lost.iter().any(|(of, _)| *of == group);
        if has < had.min(self.promised.saturating_sub(usize::from(lost))) {
            return Some(format!("{after:?} have {has} copies, {before:?} had {had}"));
        }
        let known: BTreeSet<ReplicaId> = before.iter().flatten().copied().collect();
        let newcomers = after.iter().flatten().filter(|replica| !known.contains(*replica));
        let reached = |replica: ReplicaId| self.reached.get(&(group, replica)).copied();
        let early = newcomers.copied().find(|replica| reached(*replica).is_none_or(|upto| upto + BEHIND < at.index))?;
        Some(format!("replica {early} becomes a voter, and has come to {:?}", reached(early)))
    }

    /// How many replicas became voters of a group that others had formed.
    pub fn newcomers(&self) -> u64 {
        self.newcomers.len() as u64
    }

    /// What was wrong so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const GROUP: GroupId = GroupId(1);
    static EMPTY: Bytes = Bytes::new();

    fn members(index: u64, sets: &[&[ReplicaId]]) -> Deed<'static> {
        let voters = sets.iter().map(|set| set.iter().copied().collect()).collect();
        Deed::Appends { at: LogPlace { index, term: 1 }, bytes: &EMPTY, voters: Some(voters) }
    }

    fn applies(index: u64) -> Deed<'static> {
        Deed::Applies(LogPlace { index, term: 1 })
    }

    /// A group of three on n1 to n3, with a replica 4 on n4 that has come to an index.
    fn group(reached: Option<u64>) -> Copies {
        let mut check = Copies::new(3);
        for group in [GroupId::META, GROUP] {
            for replica in 1..=3 {
                check.told(&format!("n{replica}"), group, replica, &members(0, &[&[1, 2, 3]]));
                check.told(&format!("n{replica}"), group, replica, &applies(0));
            }
        }
        if let Some(upto) = reached {
            check.told("n4", GROUP, 4, &Deed::Durable(upto));
        }
        check
    }

    fn found(mut check: Copies, change: &Deed<'_>) -> usize {
        check.told("n1", GROUP, 1, change);
        check.violations().len()
    }

    #[test]
    fn a_move_by_the_rules_passes() {
        let mut check = group(Some(900));
        for change in [members(1000, &[&[1, 2, 3], &[1, 2, 4]]), members(1001, &[&[1, 2, 4]])] {
            check.told("n1", GROUP, 1, &change);
        }
        assert_eq!((check.violations(), check.newcomers()), (&[][..], 1));
    }

    #[test]
    fn a_copy_less_is_found() {
        assert_eq!(found(group(None), &members(5, &[&[1, 2]])), 1);
        assert_eq!(found(group(None), &members(5, &[&[1, 2, 3], &[1, 2]])), 1);
    }

    #[test]
    fn a_copy_that_nobody_can_take_may_go() {
        for (left, wrong) in [(&[1, 2][..], 0), (&[1], 1)] {
            let mut check = group(None);
            check.promise(2);
            check.promise(3);
            assert_eq!(found(check, &members(5, &[left])), wrong, "two were to stay");
        }
    }

    #[test]
    fn one_that_never_ran_is_no_copy() {
        let mut check = Copies::new(3);
        for (host, replica) in [("n1", 1), ("n2", 2)] {
            check.told(host, GROUP, replica, &members(1, &[&[1, 2, 3]]));
        }
        check.told("n1", GROUP, 1, &applies(1));
        assert_eq!(found(check, &members(5, &[&[1, 2]])), 0, "n3 lost its disk before it began");
    }

    #[test]
    fn a_voter_that_has_not_caught_up_is_found() {
        let change = members(1000, &[&[1, 2, 3], &[1, 2, 4]]);
        assert_eq!(found(group(None), &change), 1, "it has nothing");
        assert_eq!(found(group(Some(500)), &change), 1, "it is far behind");
    }

    #[test]
    fn a_copy_whose_disk_is_lost_counts_no_more() {
        let mut check = group(Some(10));
        check.disk_lost("n3");
        assert_eq!(found(check, &members(11, &[&[1, 2, 4]])), 0, "it is replaced");
        let mut check = group(Some(10));
        check.disk_lost("n3");
        assert_eq!(found(check, &members(11, &[&[1, 3, 4]])), 0, "there are two copies, as before");
        let mut check = group(Some(10));
        check.disk_lost("n3");
        assert_eq!(found(check, &members(11, &[&[1, 3]])), 1, "one is left");
    }

    #[test]
    fn a_disk_may_be_lost_while_two_others_are_whole() {
        let mut check = group(None);
        assert!(check.may_lose("n3") && !check.may_lose("n9"));
        check.disk_lost("n3");
        assert!(!check.may_lose("n1"), "one at a time");
        let mut check = group(None);
        check.told("n1", GROUP, 1, &members(5, &[&[1, 2, 3], &[1, 2]]));
        assert!(!check.may_lose("n1"), "there may be two");
        assert!(!Copies::new(3).may_lose("n1"), "nothing is founded yet");
    }
}
