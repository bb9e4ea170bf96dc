//! A partition's replica: rows, sessions, the executor on its leader, snapshots.
//!
//! In flow requests and committed entries; out flow batches for the log, and answers that apply's
//! verdict has released. Nothing here opens a connection, a file or a thread of its own.

mod cells;
mod checkpoint;
pub mod entry;
mod eviction;
pub mod executor;
mod expiry;
mod fence;
mod indexes;
mod operations;
mod overlay;
mod replica;
pub mod rows;
mod sessions;
mod snapshot;
mod state;
mod user_code;

pub use fence::Fence;
pub use indexes::MapSize;
pub use operations::{check_entry, check_key, slot_in};
pub use overlay::{MapDirectory, View};
pub use replica::ReplicaState;
pub use sessions::{Admission, SessionLimits, Sessions};
pub use snapshot::ReplicaMachine;
pub use user_code::{SlotView, TaskCall, TaskOutcome, TaskRunner, TaskWrite};

#[cfg(test)]
mod sessions_tests;
