//! A partition's replica: rows, sessions, the executor on its leader, snapshots.
//!
//! In flow requests and committed entries; out flow batches for the log, and answers that apply's
//! verdict has released. Nothing here opens a connection, a file or a thread of its own.

mod cancelled;
mod cells;
mod changed;
mod checkpoint;
mod cold;
mod copies;
pub mod entry;
mod eviction;
pub mod executor;
mod expiry;
mod feed;
mod fence;
mod follow;
#[cfg(test)]
mod fuzz;
mod given_up;
mod indexes;
pub mod jobs;
mod lots;
mod memory;
mod operations;
mod overlay;
mod replica;
pub mod rows;
mod sessions;
mod snapshot;
mod state;
mod user_code;
mod walk;

pub use cancelled::Cancelled;
pub use cold::{Hand, Pinned};
pub use copies::{CopyPool, MapCopies, MapCopy};
pub use feed::{Compacted, Feed, FeedChange, FeedLimits, FeedPage, FeedPool};
pub use fence::Fence;
pub use follow::{Followed, Step};
pub use indexes::MapSize;
pub use memory::{Memory, MemoryLimit, MemoryStats};
pub use operations::{check_entry, check_key, read, rows_read, slot_in};
pub use overlay::{MapDirectory, View};
pub use replica::ReplicaState;
pub use sessions::{Admission, SessionLimits, Sessions};
pub use snapshot::ReplicaMachine;
pub use user_code::{PAGE_BYTES, Page, Place, SlotView, TaskCall, TaskOutcome, TaskRunner, TaskWrite};

#[cfg(test)]
mod cold_tests;
#[cfg(test)]
mod feed_tests;
#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod sessions_order_tests;
#[cfg(test)]
mod sessions_tests;
