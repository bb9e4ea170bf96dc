//! The feed: order, bounds, floors.

use super::entry::{Batch, RemovalCause, RowWrite};
use super::feed::{Compacted, Feed, FeedLimits, FeedPool};
use super::memory::Memory;
use super::rows::{self, PartitionRow};
use crate::types::{HybridTime, MapId, RunId, Slot, StoredValue, Value};
use proptest::prelude::*;
use std::sync::Arc;

pub(super) const MAP: MapId = MapId(3);

/// A batch as an executor makes it: changes of entries, then time and revision.
pub(super) fn batch(number: u64, changes: &[(u64, &str, Option<&str>)]) -> Batch {
    let row = |key: &str| rows::map_row(Slot(key.len() as u16 % 4), MAP, key.as_bytes());
    let mut writes: Vec<RowWrite> = changes
        .iter()
        .map(|(revision, key, value)| match value {
            Some(value) => {
                let stored = StoredValue::new(*revision, Value::utf8(*value));
                RowWrite::put(row(key), stored.encode())
            }
            None => RowWrite::remove(row(key), *revision, RemovalCause::Deleted),
        })
        .collect();
    let newest = changes.iter().map(|change| change.0).max().unwrap_or(0);
    for (which, value) in
        [(PartitionRow::Time, HybridTime::from_ms(1_000 + number).0), (PartitionRow::Revision, newest)]
    {
        writes.push(RowWrite::put(rows::partition_row(which), rows::encode_number(value)));
    }
    Batch { term: 1, run: RunId(1), number, writes }
}

fn pool(per_partition: usize, per_node: usize) -> Arc<FeedPool> {
    FeedPool::new(FeedLimits { per_partition, per_node }, Memory::new(None))
}

fn revisions(feed: &Feed, after: u64, max_bytes: usize) -> Result<(Vec<u64>, u64), Compacted> {
    let page = feed.read(after, max_bytes, |_| true)?;
    Ok((page.changes.iter().map(|change| change.revision).collect(), page.upto))
}

#[test]
fn a_read_gives_what_comes_behind_in_order_and_revisions_whole() {
    let feed = pool(1 << 20, 1 << 20).feed();
    feed.reset(4);
    feed.append(&batch(1, &[(5, "a", Some("1")), (6, "a", Some("2")), (6, "b", Some("2"))]));
    feed.append(&batch(2, &[(7, "a", None)]));
    assert_eq!(revisions(&feed, 4, 1 << 20), Ok((vec![5, 6, 6, 7], 7)));
    assert_eq!(revisions(&feed, 5, 1), Ok((vec![6, 6], 6)), "both changes of revision 6, and no more");
    assert_eq!(revisions(&feed, 7, 1), Ok((vec![], 7)));
    assert_eq!(revisions(&feed, 9, 1), Ok((vec![], 9)), "a replica that is behind has nothing to say");
    assert_eq!(revisions(&feed, 3, 1), Err(Compacted(4)));
    let page = feed.read(4, 1 << 20, |row| row.ends_with(b"b\0\0")).expect("kept");
    assert_eq!((page.changes.len(), page.upto, page.changes[0].time_ms), (1, 7, 1_001));
    let last = feed.read(6, 1 << 20, |_| true).expect("kept");
    assert_eq!(last.changes[0].change, Err(RemovalCause::Deleted));
}

#[test]
fn the_oldest_go_at_a_partitions_bound() {
    let pool = pool(1_000, 1 << 20);
    let feed = pool.feed();
    for revision in 1..=100 {
        feed.append(&batch(revision, &[(revision, "key", Some("value"))]));
    }
    let (floor, head, bytes) = feed.extent();
    assert!(bytes <= 1_000 && bytes == pool.bytes(), "{bytes}");
    assert!(floor > 80 && head == 100, "{floor}");
    assert_eq!(revisions(&feed, floor - 1, 1), Err(Compacted(floor)));
    let (kept, upto) = revisions(&feed, floor, 1 << 20).expect("kept");
    assert_eq!((kept, upto), (((floor + 1)..=100).collect(), 100));
    drop(feed);
    assert_eq!(pool.bytes(), 0);
}

#[test]
fn the_largest_feed_gives_way_at_the_nodes_bound() {
    let pool = pool(1 << 20, 4_000);
    let (large, small) = (pool.feed(), pool.feed());
    for revision in 1..=100 {
        large.append(&batch(revision, &[(revision, "key", Some("value"))]));
    }
    assert!(large.extent().0 > 0 && pool.bytes() <= 4_000);
    let before = large.extent().0;
    for revision in 1..=5 {
        small.append(&batch(revision, &[(revision, "key", Some("value"))]));
    }
    assert_eq!(small.extent().0, 0, "the small one keeps all");
    assert!(large.extent().0 > before && pool.bytes() <= 4_000);
}

#[test]
fn a_replay_behind_a_fuzzy_checkpoint_lowers_the_floor() {
    let feed = pool(1 << 20, 1 << 20).feed();
    // The rows are of revision 9 already; the log's replay begins with the change to 6.
    feed.reset(9);
    assert_eq!(revisions(&feed, 8, 1), Err(Compacted(9)));
    feed.append(&batch(1, &[(6, "a", Some("1")), (7, "b", None)]));
    assert_eq!(feed.extent().0, 5);
    assert_eq!(revisions(&feed, 5, 1 << 20).expect("kept").0, vec![6, 7]);
    // Further ones do not.
    feed.append(&batch(2, &[(8, "a", Some("1"))]));
    feed.append(&batch(3, &[(10, "a", Some("1"))]));
    assert_eq!((feed.extent().0, feed.extent().1), (5, 10));
}

proptest! {
    #[test]
    fn pages_together_give_each_change_once(sizes in proptest::collection::vec(1usize..4, 1..40), max_bytes in 1usize..200) {
        let feed = pool(1 << 20, 1 << 20).feed();
        let (mut revision, mut expected) = (0, Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let keys = ["a", "bb", "ccc"];
            let mut changes = Vec::new();
            for key in keys.iter().take(*size) {
                // Every other change shares its revision with the one before.
                revision += u64::from(revision == 0 || changes.len() % 2 == 0);
                changes.push((revision, *key, (number % 3 != 0).then_some("value")));
            }
            expected.extend(changes.iter().map(|(revision, key, _)| (*revision, key.len())));
            feed.append(&batch(number as u64, &changes));
        }
        let (mut after, mut found) = (0, Vec::new());
        loop {
            let page = feed.read(after, max_bytes, |_| true).expect("kept");
            found.extend(page.changes.iter().map(|change| (change.revision, rows::map_key(&change.row).map_or(0, |key| key.len()))));
            prop_assert!(page.upto > after || page.upto == page.head);
            if page.upto == page.head && page.changes.is_empty() {
                break;
            }
            after = page.upto;
        }
        prop_assert_eq!(found, expected);
    }
}
