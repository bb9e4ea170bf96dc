//! A partition's replica: rows, sessions, the executor on its leader, snapshots.
//!
//! In flow requests and committed entries; out flow batches for the log, and answers that apply's
//! verdict has released. Nothing here opens a connection, a file or a thread of its own.

pub mod entry;
mod fence;
pub mod rows;
mod sessions;
mod user_code;

pub use fence::Fence;
pub use sessions::{Admission, SessionLimits, Sessions};
pub use user_code::{SlotView, TaskCall, TaskOutcome, TaskRunner, TaskWrite};

#[cfg(test)]
mod sessions_tests;
