//! The grid's vocabulary: identifiers, slots, hybrid time, self-describing values, requests and
//! replies. Plain data and pure functions; nothing here does I/O, reads a clock or draws a number.

mod hybrid;
mod ids;
mod map;
mod request;
mod slot;
mod value;

pub use hybrid::{HybridTime, MAX_AHEAD_MS};
pub use ids::{GridId, GroupId, Incarnation, MapId, NodeId, PartitionId, ReplicaId, RunId, SessionId};
pub use map::{Eviction, MAX_TTL_MS, MapDescriptor, MapOptions, MapSpec, check_ttl, whole_ms};
pub use request::{AckLevel, Condition, Op, ReadLevel, Reply, ReplyBody, Request, Served, SessionStamp, TaskPayload};
pub use slot::{SLOTS, Slot, affinity_of, slot_of};
pub use value::{KeyCodec, StoredValue, Value, ValueCodec};
