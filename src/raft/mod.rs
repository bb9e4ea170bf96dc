//! Everything that names openraft: types, runtime, log store, network and groups. Above it, a
//! group is a log of opaque payloads with verdicts; below it, storage and connections.

mod group;
mod machine;
mod runtime;
mod snapshot;
mod types;

pub use group::{Group, GroupConfig, GroupStatus, Leadership, RaftHandle, Verdict, VerdictReceiver};
pub use machine::{Committed, Machine, MachineAdapter, term_of};
pub use snapshot::{Chunk, SnapshotData, SnapshotSource};
pub use types::{
    Entry, EntryPayload, LeaderId, LogId, LogPayload, Outcome, ReplicaNode, SnapshotMeta, StoredMembership, TypeConfig,
    Vote,
};
