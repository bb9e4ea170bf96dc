//! Local reads at each peer, a few milliseconds apart, as whoever lives in its process would make
//! them: what they show at an index is compared over all peers.

use super::Records;
use super::workload::{self, MAP};
use crate::checks::LocalRead;
use keystead::Grid;
use keystead::clock::sleep;
use keystead::node::{Ended, GridService};
use keystead::types::{AckLevel, Op, ReadLevel, ReplyBody, Request};
use std::time::Duration;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(4);
/// Time for one read: one that no replica here answers is of no use.
const DEADLINE_MS: u32 = 20;

/// Reads until the peer's end.
pub(super) async fn read_until_end(grid: &Grid, name: &str, records: &Records) -> Ended {
    let mut ended = std::pin::pin!(grid.ended());
    loop {
        tokio::select! {
            biased;
            ended = &mut ended => return ended,
            () = sleep(EVERY) => {}
        }
        for key in workload::never_deleted() {
            let op = Op::Get { map: MAP.to_owned(), key: key.as_bytes().into() };
            let request = Request {
                affinity: None,
                op,
                read: ReadLevel::Local,
                ack: AckLevel::default(),
                stamp: None,
                deadline_ms: DEADLINE_MS,
            };
            // A peer without a replica asks the leader, whose answer names its term.
            let Ok(reply) = grid.node().execute(request, 0).await else { continue };
            if let (ReplyBody::Entry(entry), 0) = (reply.body, reply.served.term) {
                let revision = entry.map_or(0, |entry| entry.revision);
                let read = LocalRead { key, applied: reply.served.applied, revision, node: name.to_owned() };
                records.local.borrow_mut().push(read);
            }
        }
    }
}
