//! What the edges see of user code that is not submitted by a key: broadcasts, cancellations.

use crate::error::Result;
use crate::types::{PartitionId, Served, SessionStamp, TaskPayload};
use tokio::sync::mpsc;

/// A partition task for all partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The task's registered name.
    pub name: String,
    /// What each partition's handler is given.
    pub payload: TaskPayload,
    /// What a cancellation names it by; 0 when nobody will.
    pub id: u64,
    /// Makes it run once on each partition however often, and through whichever peers, it is
    /// sent. Without one the asked peer's own retries are covered, not the client's.
    pub stamp: Option<SessionStamp>,
    /// Milliseconds that are left to answer.
    pub deadline_ms: u32,
}

/// One partition's answer to a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Which partition.
    pub partition: PartitionId,
    /// Partitions that have answered so far, this one included.
    pub done: u32,
    /// Partitions in all.
    pub of: u32,
    /// What its handler said, or why it did not run.
    pub outcome: Result<TaskPayload>,
    /// Who ran it, if it ran.
    pub served: Option<Served>,
}

/// Whom a cancellation reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelReport {
    /// Peers that know of it now.
    pub told: u32,
    /// Peers that could not be told.
    pub unreachable: u32,
}

/// User code on many partitions, or beside them.
#[async_trait::async_trait]
pub trait ComputeService: Send + Sync + 'static {
    /// Runs a partition task on every partition, at its leader: once on each, whatever fails in
    /// between. The answers come in any order; when the receiver is dropped what has not begun is
    /// not begun any more.
    ///
    /// # Errors
    /// `NotReady` when the peer does not know its grid's partitions yet.
    async fn broadcast(&self, request: Broadcast) -> Result<mpsc::Receiver<PartitionAnswer>>;

    /// Cancels whatever was submitted under an id: what has not run does not run, and of what is
    /// running nothing that it wrote takes effect, unless it has been committed already.
    async fn cancel(&self, id: u64) -> CancelReport;
}
