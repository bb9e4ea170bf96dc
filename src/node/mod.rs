//! The composition root: builds a peer, supervises it, shuts it down in order. [`GridService`] is
//! what the edges (gRPC, HTTP, embedded use) see of it.

mod broadcast;
mod cancelling;
mod changes;
mod clock_watch;
mod compute_service;
mod copying;
mod directory;
mod drops;
mod facts;
mod founding;
#[cfg(test)]
mod fuzz;
mod grid_node;
mod grid_service;
mod hosting;
mod housekeeping;
mod identity;
mod job_run;
mod jobs;
mod leading;
mod life;
mod mapping;
mod memory_keeper;
mod metrics;
mod movement;
mod opening;
mod peer_calls;
mod ports;
mod reconcile;
mod router;
mod scatter;
mod service;
mod settings;
mod stamper;
mod starting;
mod status;
mod trouble;
mod walks;
mod watching;
mod wire;

pub use crate::partition::executor::{Answer, Answered, StreamReply};
pub use compute_service::{
    Broadcast, CancelReport, ComputeService, MapCall, MapReply, PartitionAnswer, Scatter, ScatterAnswer, ScatterEvent,
    StartJob,
};
pub use copying::LocalEntry;
pub use grid_node::{Ended, Node};
pub use housekeeping::HousekeepingConfig;
pub use movement::MovementConfig;
pub use ports::{OpenBackend, Ports};
pub use service::{
    Explanation, GridService, MemberInfo, MemberState, PartitionInfo, PlacementTable, ReplicaInfo, ReplicaState,
};
pub use settings::NodeSettings;
pub use stamper::{Stamped, Stamper};
pub use watching::{WatchConfig, WatchStream};
