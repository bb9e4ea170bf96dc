//! Live copies: while partitions move and nothing breaks, each has as many whole copies as it is to
//! have. Whole is a copy that has applied what was applied somewhere some time ago; one that is on its
//! way is none.

use super::Records;
use super::movement::COPIES;
use super::shape::Shape;
use crate::checks::Violation;
use keystead::clock::{Instant, sleep};
use keystead::types::PartitionId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// How far a whole copy may lag.
const LAG: Duration = Duration::from_secs(2);

/// What is known of one partition.
#[derive(Default)]
struct Known {
    /// The highest applied index, and when it was seen.
    highest: VecDeque<(Instant, u64)>,
    /// It has had all its copies.
    complete: bool,
    /// It was found to lack one.
    lacks: bool,
}

/// Counts the copies until everything has been read in the end.
pub(super) async fn count(shape: Shape, records: Records) {
    let mut known: BTreeMap<u32, Known> = BTreeMap::new();
    while !*records.judged.borrow() {
        sleep(EVERY).await;
        for partition in 0..shape.partitions {
            let copies = copies(partition, &records);
            if let Some(what) = known.entry(partition).or_default().lack(&copies) {
                let what = format!("partition {partition}: {what}");
                records.violations.borrow_mut().push(Violation { check: "live copies", what });
            }
        }
    }
}

/// The applied index of each replica, by peer.
fn copies(partition: u32, records: &Records) -> Vec<(String, u64)> {
    let nodes = records.nodes.borrow();
    let replica = |node: &std::sync::Weak<keystead::node::Node>| {
        node.upgrade().and_then(|node| node.replica_rows(PartitionId(partition).group()))
    };
    nodes.iter().filter_map(|(name, node)| Some((name.clone(), replica(node)?.1))).collect()
}

impl Known {
    /// What is wrong with these copies.
    fn lack(&mut self, copies: &[(String, u64)]) -> Option<String> {
        let now = Instant::now();
        let highest = copies.iter().map(|(_, applied)| *applied).max().unwrap_or(0);
        self.highest.push_back((now, highest));
        while self.highest.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LAG) {
            self.highest.pop_front();
        }
        let (since, floor) = *self.highest.front()?;
        let old_enough = now.saturating_duration_since(since) >= LAG && floor > 0;
        let whole = copies.iter().filter(|(_, applied)| *applied >= floor).count();
        self.complete |= old_enough && whole >= COPIES;
        if !self.complete || whole >= COPIES || std::mem::replace(&mut self.lacks, true) {
            return None;
        }
        Some(format!("{whole} whole copies instead of {COPIES}; index {floor} is old, and applied is {copies:?}"))
    }
}
