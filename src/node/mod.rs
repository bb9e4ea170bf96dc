//! The composition root: builds a peer, supervises it, shuts it down in order. [`GridService`] is
//! what the edges (gRPC, HTTP, embedded use) see of it.

mod directory;
mod hosting;
mod identity;
mod ports;
mod service;
mod wire;

pub use ports::{OpenBackend, Ports};

pub use service::{Explanation, GridService, MemberInfo, MemberState, PartitionInfo, PlacementTable, ReplicaInfo};
