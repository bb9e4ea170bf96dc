//! At most one leader per group and term.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (USENIX ATC
//! 2014), figure 3: Election Safety.

use super::Violation;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct Seen {
    leaders: BTreeMap<(u32, u64), String>,
    violations: Vec<Violation>,
}

/// Told by the nodes themselves whenever one finds itself leader. Clones are the same log; it
/// outlives the nodes' crashes.
#[derive(Clone, Debug, Default)]
pub struct LeaderLog {
    seen: Arc<Mutex<Seen>>,
}

impl LeaderLog {
    /// `node` says that it leads `group` in `term`.
    pub fn leader_observed(&self, group: u32, term: u64, node: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.leaders.get(&(group, term)) {
            Some(known) if known == node => {}
            Some(known) => {
                let what = format!("group {group}, term {term}: both {known} and {node} lead");
                seen.violations.push(Violation { check: "one leader per term", what });
            }
            None => {
                crate::event!(node, "leads group {group} in term {term}");
                seen.leaders.insert((group, term), node.to_owned());
            }
        }
    }

    /// Who was seen last to lead one of the groups, as the number says.
    pub fn leader(&self, number: u64) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let newest: BTreeMap<u32, &String> = seen.leaders.iter().map(|((group, _), node)| (*group, node)).collect();
        let chosen = number.checked_rem(newest.len() as u64)?;
        newest.into_values().nth(chosen as usize).cloned()
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).violations.clone()
    }

    /// How many leaderships there were.
    pub fn leaderships(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).leaders.len()
    }
}
