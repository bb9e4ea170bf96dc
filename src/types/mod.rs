//! The grid's vocabulary: identifiers, slots, hybrid time, self-describing values, requests and
//! replies. Plain data and pure functions; nothing here does I/O, reads a clock or draws a number.

mod codec;
mod cursor;
#[cfg(test)]
mod fuzz;
mod hybrid;
mod ids;
mod job;
mod map;
pub mod msgpack;
mod numbers;
mod reply;
mod request;
mod schema;
mod slot;
mod tree;
mod value;
mod watch;

pub use codec::{Codec, Json, Msgpack, Plain};
pub use cursor::Cursor;
pub use hybrid::{HybridTime, MAX_AHEAD_MS};
pub use ids::{GridId, GroupId, Incarnation, MapId, NodeId, PartitionId, ReplicaId, RunId, SessionId};
pub use job::{JobId, JobInfo, JobState, JobStep};
pub use map::{Eviction, MAX_TTL_MS, MapDescriptor, MapOptions, MapSpec, check_ttl, whole_ms};
pub use numbers::{MAX_GIVEN_UP, NumberRange, Numbers, Reach};
pub use reply::{Reply, ReplyBody, Served};
pub use request::{AckLevel, Condition, Op, ReadLevel, Request, SessionStamp, Target, TaskPayload};
pub use schema::{Schema, read_value, rewrite_value, write_value};
pub use slot::{SLOTS, Slot, affinity_of, slot_of};
pub use value::{KeyCodec, StoredValue, Value, ValueCodec};
pub use watch::{
    Position, RemovalCause, WatchEvent, WatchKeys, WatchKind, WatchMessage, WatchRequest, WatchStart, WatchToken,
};
