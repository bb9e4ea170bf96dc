//! Tasks: named functions that run beside their key, on the leader of its partition.
//!
//! In: calls from a partition's executor, and its entries through a `SlotView`. Out: for each
//! call an answer or a coded error, and the writes it made. A [`Registry`] holds the handlers; a
//! [`ThreadPoolRunner`] runs them on threads of its own. A handler sees nothing but its slot,
//! through its [`TaskContext`]; it is synchronous, and may be non-deterministic, since only its
//! results are replicated. Nothing here writes state, commits, or knows Raft; user code never
//! runs on the threads of Raft, network and log.

mod context;
pub mod count_entries;
mod error;
mod execute;
#[cfg(test)]
mod fuzz;
mod inside;
mod job;
mod overlay;
mod partition_context;
mod payload;
mod pool;
mod registry;
mod replicated;
pub mod rolling_total;
mod runner;
mod scatter;
pub mod top_k;
pub mod word_count;

pub use context::{Entries, TaskContext};
pub use error::TaskError;
pub use inside::{inside_task, refuse_inside_task};
pub use job::{JobContext, JobGrid, JobIdentity, JobProgress, MAX_TEXT, cut};
pub use partition_context::{Cursor, PartitionContext};
pub use registry::{Registry, RunningJob};
pub use replicated::Replicated;
pub use runner::{RunnerConfig, RunnerStats, ThreadPoolRunner};
pub use scatter::{GoOn, PartitionScan, Reduced, ResultMap, Scatter};

#[cfg(test)]
mod fake_view;
#[cfg(test)]
mod tests;
