//! What the edges see of user code that is not submitted by a key: broadcasts, cancellations.

use crate::error::{Error, Result};
use crate::types::{JobId, JobInfo, PartitionId, Served, SessionStamp, TaskPayload};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
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

/// A scatter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scatter {
    /// The registered name.
    pub name: String,
    /// What every step is given.
    pub payload: TaskPayload,
    /// What a cancellation names it by; 0 when nobody will.
    pub id: u64,
    /// Whether an answer without some partitions is better than none.
    pub partial: bool,
    /// Give the peers' parts instead of the answer: the caller reduces them.
    pub parts: bool,
    /// Milliseconds that are left to answer.
    pub deadline_ms: u32,
}

/// What comes of a scatter, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScatterEvent {
    /// More partitions are done.
    Progress {
        /// Partitions that have given something.
        done: u32,
        /// Partitions in all.
        of: u32,
        /// What they gave together, as MessagePack, if the caller wants the parts.
        part: Option<Bytes>,
    },
    /// The end.
    End(Result<ScatterAnswer>),
}

/// A scatter's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterAnswer {
    /// The answer; `None` if the caller wanted the parts.
    pub answer: Option<TaskPayload>,
    /// Partitions that it knows nothing of, with the reason. Empty unless a partial answer was
    /// allowed.
    pub failed: Vec<(PartitionId, Error)>,
}

/// A scatter's step, as one peer asks another to run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapCall {
    /// The registered name.
    pub name: String,
    /// What the step is given.
    pub payload: TaskPayload,
    /// On which partitions; the asked peer leads them, as far as the asking one knows.
    pub partitions: Vec<PartitionId>,
    /// What a cancellation names the scatter by.
    pub id: u64,
    /// Milliseconds that are left.
    pub deadline_ms: u32,
}

/// What steps gave on one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapReply {
    /// The parts of the partitions that are done, combined.
    pub part: Option<Bytes>,
    /// Those partitions.
    pub done: Vec<PartitionId>,
    /// The others, with the reason.
    pub failed: Vec<(PartitionId, Error)>,
}

/// A job task that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartJob {
    /// The registered name.
    pub name: String,
    /// The key beside whose partition's leader it runs.
    pub key: Bytes,
    /// What it is given.
    pub payload: TaskPayload,
    /// Random bits for its id: the same at every retry; 0 when the asked peer is to draw them.
    pub random: u64,
    /// How long it may take in all, in milliseconds.
    pub time_ms: u64,
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

    /// Runs a scatter's step on every partition, beside its leader's executor, and reduces what
    /// comes. When the receiver is dropped it is cancelled.
    ///
    /// # Errors
    /// `NotReady` when the peer does not know its grid's partitions yet.
    async fn scatter(&self, request: Scatter) -> Result<mpsc::Receiver<ScatterEvent>>;

    /// Starts a job task beside the leader of its key's partition; gives it as it stands if it is
    /// there already.
    async fn start_job(&self, job: StartJob) -> Result<JobInfo>;

    /// A job task as it stands.
    async fn job(&self, id: JobId) -> Result<JobInfo>;

    /// All job tasks that are known, by id.
    async fn jobs(&self) -> Result<Vec<JobInfo>>;

    /// Asks a job task to end.
    async fn cancel_job(&self, id: JobId) -> Result<JobInfo>;

    /// Cancels whatever was submitted under an id: what has not run does not run, and of what is
    /// running nothing that it wrote takes effect, unless it has been committed already.
    async fn cancel(&self, id: u64) -> CancelReport;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::wire;
    use crate::types::ValueCodec;

    #[test]
    fn what_peers_ask_of_each_other_has_golden_bytes() {
        let hex = |bytes: Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let payload = TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"1") };
        let call = MapCall { name: "n".into(), payload, partitions: vec![PartitionId(3)], id: 4, deadline_ms: 5 };
        assert_eq!(
            hex(wire::encode(&call).expect("encodes")),
            "0185a46e616d65a16ea77061796c6f616482a5636f646563a46a736f6ea464617461c40131aa706172746974696f6e739103a2696404ab646561646c696e655f6d7305"
        );
        let reply = MapReply { part: Some(Bytes::from_static(b"p")), done: vec![PartitionId(3)], failed: Vec::new() };
        assert_eq!(hex(wire::encode(&reply).expect("encodes")), "0183a470617274c40170a4646f6e659103a66661696c656490");
        assert_eq!(wire::decode::<MapReply>(&wire::encode(&reply).expect("encodes")), Ok(reply));
        assert_eq!(hex(wire::encode(&77u64).expect("encodes")), "014d", "a cancellation");
    }
}
