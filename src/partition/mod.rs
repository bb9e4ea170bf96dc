//! A partition's replica: rows, sessions, the executor on its leader, snapshots.

mod user_code;

pub use user_code::{SlotView, TaskCall, TaskOutcome, TaskRunner, TaskWrite};
