//! Local reads: each names the index that it reflects, so all replicas must show a key alike there.

use super::Violation;
use std::collections::BTreeMap;

/// A local read of a key that is never deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRead {
    /// The key.
    pub key: &'static str,
    /// The applied index that the answer named.
    pub applied: u64,
    /// The revision of the entry that was shown; 0 for none.
    pub revision: u64,
    /// Whose replica answered.
    pub node: String,
}

/// Checks that no read shows an older entry than a read at the same or a lower index: such a replica
/// showed rows of later entries than it had applied, or lost some.
pub fn local_reads(reads: &[LocalRead]) -> Vec<Violation> {
    let mut of_keys: BTreeMap<&str, Vec<&LocalRead>> = BTreeMap::new();
    for read in reads {
        of_keys.entry(read.key).or_default().push(read);
    }
    of_keys.into_values().filter_map(contradiction).collect()
}

fn contradiction(mut reads: Vec<&LocalRead>) -> Option<Violation> {
    reads.sort_by_key(|read| (read.applied, std::cmp::Reverse(read.revision)));
    let mut newest: Option<&LocalRead> = None;
    for read in reads {
        match newest {
            Some(newest) if read.revision < newest.revision => {
                let LocalRead { key, applied, revision, node } = newest;
                let what = format!(
                    "key {key}: {node} showed revision {revision} at index {applied}, {} revision {} at index {}",
                    read.node, read.revision, read.applied
                );
                return Some(Violation { check: "local reads agree", what });
            }
            _ => newest = Some(read),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(applied: u64, revision: u64) -> LocalRead {
        LocalRead { key: "w0", applied, revision, node: format!("n{applied}") }
    }

    #[test]
    fn entries_only_get_newer_with_the_index() {
        let right = [read(9, 4), read(3, 1), read(3, 1), read(4, 1), read(7, 4), read(1, 0)];
        assert!(local_reads(&right).is_empty());
        let other = LocalRead { key: "w1", ..read(20, 1) };
        assert!(local_reads(&[read(9, 4), other]).is_empty(), "another key has revisions of its own");
    }

    #[test]
    fn a_row_from_the_future_is_found() {
        let wrong = local_reads(&[read(3, 6), read(5, 4)]);
        assert_eq!(wrong[0].what, "key w0: n3 showed revision 6 at index 3, n5 revision 4 at index 5");
        assert_eq!(local_reads(&[read(3, 1), read(3, 2)]).len(), 1, "two stories at one index");
    }
}
