//! Log matching and state machine safety: an index and a term name one entry, with one entry before
//! it, whichever replica has it; and no two replicas apply different entries at an index.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (USENIX ATC
//! 2014), figure 3: Log Matching, State Machine Safety. The replicas tell of each entry as they put it
//! into their logs, so that a log which its node's death or a purge takes away has been judged.

use super::Violation;
use keystead::raft::{Deed, LogPlace};
use keystead::types::{GroupId, ReplicaId};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// What is known of an entry: digest of its bytes, and the term of the entry before it.
type Entry = (u64, Option<u64>);

/// Told of every deed of every replica.
#[derive(Debug, Default)]
pub struct LogMatching {
    entries: BTreeMap<(GroupId, LogPlace), Entry>,
    /// The terms of each replica's entries, as far as known.
    logs: BTreeMap<(GroupId, ReplicaId), BTreeMap<u64, u64>>,
    applied: BTreeMap<(GroupId, u64), u64>,
    /// What each replica has applied last, since it started.
    last_applied: BTreeMap<(GroupId, ReplicaId), u64>,
    violations: Vec<Violation>,
}

impl LogMatching {
    /// A replica did something.
    pub fn told(&mut self, group: GroupId, replica: ReplicaId, deed: &Deed<'_>) {
        let key = (group, replica);
        match deed {
            Deed::Starts { last, .. } => {
                self.last_applied.remove(&key);
                self.logs.insert(key, last.iter().map(|at| (at.index, at.term)).collect());
            }
            Deed::Appends { at, bytes, .. } => self.appended(key, *at, xxh3_64(bytes)),
            Deed::TakesBack(from) => self.cut(key, *from),
            Deed::Truncates(after) => self.cut(key, after.map_or(0, |after| after + 1)),
            Deed::Purges(at) => {
                let log = self.logs.entry(key).or_default();
                *log = log.split_off(&at.index);
                log.insert(at.index, at.term);
            }
            Deed::Installs(at) => {
                self.logs.insert(key, [(at.index, at.term)].into());
                self.last_applied.insert(key, at.index);
            }
            Deed::Applies(at) => self.applies(key, *at),
            Deed::Durable(_) | Deed::Votes(_) => {}
        }
    }

    fn cut(&mut self, key: (GroupId, ReplicaId), from: u64) {
        drop(self.logs.entry(key).or_default().split_off(&from));
    }

    fn appended(&mut self, (group, replica): (GroupId, ReplicaId), at: LogPlace, digest: u64) {
        let log = self.logs.entry((group, replica)).or_default();
        let before = at.index.checked_sub(1).and_then(|before| log.get(&before).copied());
        log.insert(at.index, at.term);
        let known = self.entries.entry((group, at)).or_insert((digest, before));
        let mut wrong = |what: String| {
            let what = format!("group {group}, {at:?}, replica {replica}: {what}");
            self.violations.push(Violation { check: "log matching", what });
        };
        if known.0 != digest {
            wrong("another entry than elsewhere".to_owned());
        }
        match (known.1, before) {
            (Some(elsewhere), Some(here)) if elsewhere != here => {
                wrong(format!("the entry before it is of term {here}, elsewhere of term {elsewhere}"));
            }
            (None, Some(_)) => known.1 = before,
            _ => {}
        }
    }

    fn applies(&mut self, (group, replica): (GroupId, ReplicaId), at: LogPlace) {
        let term = *self.applied.entry((group, at.index)).or_insert(at.term);
        let mut wrong = |what: String| {
            let what = format!("group {group}, {at:?}, replica {replica}: {what}");
            self.violations.push(Violation { check: "state machine safety", what });
        };
        if term != at.term {
            wrong(format!("elsewhere the entry of term {term} was applied at this index"));
        }
        let before = self.last_applied.insert((group, replica), at.index);
        if let Some(before) = before.filter(|before| before + 1 != at.index) {
            wrong(format!("applied behind index {before}"));
        }
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

    fn at(index: u64, term: u64) -> LogPlace {
        LogPlace { index, term }
    }

    /// What is found after these deeds: replica, and an entry's bytes where it appends one.
    fn found(deeds: &[(ReplicaId, Deed<'_>)]) -> usize {
        let mut check = LogMatching::default();
        deeds.iter().for_each(|(replica, deed)| check.told(GROUP, *replica, deed));
        check.violations().len()
    }

    fn append(at: LogPlace, bytes: &Bytes) -> Deed<'_> {
        Deed::Appends { at, bytes, voters: None }
    }

    #[test]
    fn logs_that_match_pass() {
        let (a, b, c) = (Bytes::from("a"), Bytes::from("b"), Bytes::from("c"));
        let logs = [
            (1, append(at(1, 1), &a)),
            (2, append(at(1, 1), &a)),
            (1, append(at(2, 1), &b)),
            (2, append(at(2, 2), &c)),
            (1, Deed::Truncates(Some(1))),
            (1, append(at(2, 2), &c)),
            (1, Deed::Applies(at(1, 1))),
            (1, Deed::Applies(at(2, 2))),
            (3, Deed::Installs(at(2, 2))),
            (3, append(at(3, 2), &a)),
            (2, append(at(3, 2), &a)),
            (3, Deed::Applies(at(3, 2))),
            (3, Deed::Starts { last: Some(at(3, 2)), vote: None }),
            (3, Deed::Applies(at(3, 2))),
        ];
        assert_eq!(found(&logs), 0);
    }

    #[test]
    fn two_entries_under_one_name_are_found() {
        let (a, b) = (Bytes::from("a"), Bytes::from("b"));
        assert_eq!(found(&[(1, append(at(1, 1), &a)), (2, append(at(1, 1), &b))]), 1);
    }

    #[test]
    fn an_entry_behind_another_is_found() {
        let (a, b, c) = (Bytes::from("a"), Bytes::from("b"), Bytes::from("c"));
        let logs = [
            (1, append(at(1, 1), &a)),
            (1, append(at(2, 3), &c)),
            (2, append(at(1, 2), &b)),
            (2, append(at(2, 3), &c)),
        ];
        assert_eq!(found(&logs), 1, "index 2 of term 3 stands behind terms 1 and 2");
    }

    #[test]
    fn different_entries_applied_at_an_index_are_found() {
        assert_eq!(found(&[(1, Deed::Applies(at(5, 1))), (2, Deed::Applies(at(5, 2)))]), 1);
    }

    #[test]
    fn an_entry_left_out_or_applied_twice_is_found() {
        assert_eq!(found(&[(1, Deed::Applies(at(5, 1))), (1, Deed::Applies(at(7, 1)))]), 1);
        assert_eq!(found(&[(1, Deed::Applies(at(5, 1))), (1, Deed::Applies(at(5, 1)))]), 1);
    }
}
