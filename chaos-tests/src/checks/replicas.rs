//! Replicas are equal byte by byte once nothing is under way.
//!
//! Source: TigerBeetle's VOPR, whose storage checker compares replicas' disks byte by byte
//! (`docs/internals/vopr.md`); Schneider's state machine approach (ACM Computing Surveys, 1990).

use super::Violation;
use bytes::Bytes;

/// One replica's state, as its host shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The host.
    pub host: String,
    /// The index up to which it has applied its log.
    pub applied: u64,
    /// All rows, in order.
    pub rows: Vec<(Bytes, Bytes)>,
}

/// Compares the copies of one place.
pub fn equal(place: &str, copies: &[Copied]) -> Option<Violation> {
    let (first, others) = copies.split_first()?;
    let other = others.iter().find(|other| (other.applied, &other.rows) != (first.applied, &first.rows))?;
    let row = first.rows.iter().zip(&other.rows).find(|(a, b)| a != b);
    let what = format!(
        "{place}: {} at index {} with {} rows, {} at index {} with {} rows; the first rows that differ: {row:?}",
        first.host,
        first.applied,
        first.rows.len(),
        other.host,
        other.applied,
        other.rows.len()
    );
    Some(Violation { check: "replicas equal", what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(host: &str, applied: u64, rows: &[(&'static str, &'static str)]) -> Copied {
        let rows = rows.iter().map(|(row, value)| (Bytes::from(*row), Bytes::from(*value))).collect();
        Copied { host: host.to_owned(), applied, rows }
    }

    #[test]
    fn equal_replicas_pass() {
        let rows = [("a", "1"), ("b", "2")];
        assert_eq!(equal("p", &[copy("n1", 5, &rows), copy("n2", 5, &rows)]), None);
        assert_eq!(equal("p", &[]), None);
    }

    #[test]
    fn a_value_a_row_or_an_index_that_differs_is_found() {
        let whole = copy("n1", 5, &[("a", "1"), ("b", "2")]);
        let others = [
            copy("n2", 5, &[("a", "1"), ("b", "3")]),
            copy("n2", 5, &[("a", "1")]),
            copy("n2", 6, &[("a", "1"), ("b", "2")]),
        ];
        for other in others {
            assert!(equal("p", &[whole.clone(), whole.clone(), other]).is_some());
        }
    }
}
