//! The seam between openraft's state machine and ours: committed entries in, verdicts out,
//! checkpoints and snapshots. [`Machine`] is what a group's owner implements.

use super::snapshot::{Chunk, SnapshotData, SnapshotSource};
use super::spool::Pieces;
use super::types::{EntryPayload, LogId, Outcome, SnapshotMeta, StoredMembership, TypeConfig};
use super::witness::{Deed, Watched, place_of};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use std::io;
use std::sync::Arc;

/// What is to be applied.
#[derive(Debug)]
pub enum Committed<'a> {
    /// Nothing: a new leader's first entry.
    Blank,
    /// An opaque payload.
    Payload(&'a Bytes),
    /// The group's members from here on.
    Membership(StoredMembership),
}

/// A group's state.
#[async_trait::async_trait]
pub trait Machine: Send + Sync + 'static {
    /// Applies a committed entry and gives the verdict. Decides by the entry, and by what travels
    /// with the applied index, alone.
    ///
    /// # Errors
    /// Only when the entry cannot be understood: the group stops.
    fn apply(&self, log_id: LogId, entry: Committed<'_>) -> Result<Outcome>;

    /// Whether the next entry should wait before it is applied: the state is growing faster than
    /// it can be put away.
    fn must_wait(&self) -> bool {
        false
    }

    /// Waits for room, a bounded time.
    async fn wait(&self) {}

    /// The last applied log id and the membership in force there.
    fn applied(&self) -> (Option<LogId>, StoredMembership);

    /// Makes the state durable as it is now; the log up to the log id that it gives is no longer
    /// needed to restore it.
    ///
    /// # Errors
    /// What the disk says; the last checkpoint stays in force.
    async fn checkpoint(&self) -> Result<SnapshotMeta>;

    /// The last checkpoint, as a snapshot to send.
    fn snapshot(&self) -> Option<(SnapshotMeta, Arc<dyn SnapshotSource>)>;

    /// Replaces the state by a received snapshot, durably.
    ///
    /// # Errors
    /// Damaged chunks, or what the disk says; the state stays as it was.
    async fn install(&self, meta: SnapshotMeta, pieces: Pieces, trailer: Bytes) -> Result<()>;
}

/// The term of a log id.
pub fn term_of(log_id: &LogId) -> u64 {
    log_id.committed_leader_id().term
}

fn other(error: Error) -> io::Error {
    io::Error::other(error)
}

/// openraft's state machine over a [`Machine`].
pub struct MachineAdapter {
    machine: Arc<dyn Machine>,
    watched: Watched,
}

impl MachineAdapter {
    pub(super) fn new(machine: Arc<dyn Machine>, watched: Watched) -> Self {
        MachineAdapter { machine, watched }
    }
}

/// Makes a checkpoint beside the applying of entries.
pub struct CheckpointBuilder(Arc<dyn Machine>);

impl RaftStateMachine<TypeConfig> for MachineAdapter {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.machine.applied())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let committed = match &entry.payload {
                EntryPayload::Blank => Committed::Blank,
                EntryPayload::Normal(payload) => Committed::Payload(&payload.0),
                EntryPayload::Membership(membership) => {
                    Committed::Membership(StoredMembership::new(Some(entry.log_id), membership.clone()))
                }
            };
            if self.machine.must_wait() {
                self.machine.wait().await;
            }
            let outcome: Outcome = self.machine.apply(entry.log_id, committed).map_err(other)?;
            self.watched.told(|| Deed::Applies((&entry.log_id).into()));
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<CheckpointBuilder> {
        Some(CheckpointBuilder(self.machine.clone()))
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        CheckpointBuilder(self.machine.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        match snapshot {
            SnapshotData::Received { pieces, trailer } => {
                self.machine.install(meta.clone(), pieces, trailer).await.map_err(other)?;
                if let Some(place) = place_of(meta) {
                    self.watched.told(|| Deed::Installs(place));
                }
                Ok(())
            }
            // openraft offers our own checkpoint when it is ahead of the applied state, which
            // it never is: the checkpoint is loaded before the group starts.
            SnapshotData::Source(_) => Ok(()),
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot2>, io::Error> {
        Ok(self.machine.snapshot().map(|(meta, source)| Snapshot { meta, snapshot: SnapshotData::Source(source) }))
    }
}

/// Stands for a checkpoint that was not made.
struct Nothing;

impl SnapshotSource for Nothing {
    fn chunk(&self, _cursor: Option<&[u8]>, _max_bytes: usize) -> Result<Chunk> {
        Ok(Chunk { rows: Bytes::new(), next: None })
    }

    fn trailer(&self) -> Bytes {
        Bytes::new()
    }
}

type Snapshot2 = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot2, io::Error> {
        match self.0.checkpoint().await {
            Ok(_) => {}
            // Nothing was written, and what changed is kept for the next time. To openraft it is an
            // old snapshot, which changes nothing; an error would stop the group.
            Err(error) if error.code == Code::DiskFull => {
                tracing::warn!(%error, "no checkpoint could be made; it is tried again");
                let nothing = SnapshotData::Source(Arc::new(Nothing));
                return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: nothing });
            }
            Err(error) => return Err(other(error)),
        }
        let (meta, source) =
            self.0.snapshot().ok_or_else(|| io::Error::other("a checkpoint was made and is not there"))?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Source(source) })
    }
}
