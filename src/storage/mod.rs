//! Bytes on disk: the disk port, the shared segment log and the state backends. Nothing here
//! knows Raft, maps or the network.

pub mod backend;
pub mod disk;
pub mod log;
