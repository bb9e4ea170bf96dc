//! Everything that names openraft: types, runtime, log store, network and groups. Above it, a
//! group is a log of opaque payloads with verdicts; below it, storage and connections.

mod confirm;
#[cfg(test)]
mod fuzz;
mod group;
mod log_codec;
mod log_store;
mod machine;
pub mod network;
mod rpc_codec;
mod runtime;
mod snapshot;
mod spool;
mod types;

pub use confirm::{Confirmer, answer_questions};
pub use group::{Group, GroupConfig, GroupStatus, LeaderObserver, Leadership, RaftHandle, Verdict, VerdictReceiver};
pub use log_codec::{
    decode_entry, decode_entry_id, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
};
pub use log_store::LogStore;
pub use machine::{Committed, Machine, MachineAdapter, term_of};
pub use snapshot::{Chunk, SnapshotData, SnapshotSource};
pub use spool::{Pieces, SpoolDir};
pub use types::{
    Entry, EntryPayload, LeaderId, LogId, LogPayload, Outcome, ReplicaNode, SnapshotMeta, StoredMembership, TypeConfig,
    Vote,
};
