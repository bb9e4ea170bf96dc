//! The grid's facts: who belongs to it, who should hold which partition, which maps there are.
//!
//! They are rows of one built-in map of the meta group, which is a Raft group like any other. Each
//! row is written on the condition that it has not changed since it was read, so that any peer may
//! work out a change and only one of two that contradict each other takes effect.
//!
//! In: rows as the meta group holds them (key, revision, bytes), and facts from outside (a founding
//! record, a lost replica, a committed membership). Out: a [`MetaView`] to look things up in, and
//! [`RowChange`]s to write. What is here is pure: it never writes a row itself, never talks to a
//! peer, and reads no clock.

mod codec;
mod drops;
mod founding;
#[cfg(test)]
mod fuzz;
mod keys;
mod members;
mod moves;
mod planner;
mod rows;
#[cfg(test)]
mod testing;
mod view;

pub use codec::Row;
pub use drops::{DroppedMap, drop_map, forgotten, to_drop};
pub use founding::{FOUNDERS_MAX, Founder, FoundingRecord, founder_list};
pub use keys::MetaKey;
pub use members::{find_member, intend, meta_voters, removed};
pub use moves::{MoveLimits, MovePlan, PlannedMove, Standing, moved, plan_moves, switching, switching_still};
pub use planner::{
    Learners, NewMap, Replacement, RowChange, formed, founding_rows, joined, member_change, missing_learners, new_map,
    replacement,
};
pub use rows::{
    DroppedRow, GridFounder, GridRow, MapIdsRow, MapRow, MemberIntent, MemberRow, PlacementRow, RemovedRow,
    ReplicaIdsRow, TaskMark,
};
pub use view::{MetaView, Versioned};
