//! Everything that names openraft: types, runtime, log store, network and groups. Above it, a
//! group is a log of opaque payloads with verdicts; below it, storage and connections.

pub mod network;
mod rpc_codec;
mod runtime;
mod snapshot;
mod types;

pub use snapshot::{Chunk, SnapshotData, SnapshotSource};
pub use types::{
    Entry, EntryPayload, LeaderId, LogId, LogPayload, Outcome, ReplicaNode, SnapshotMeta, StoredMembership, TypeConfig,
    Vote,
};
