//! What the suite and a peer's process say to each other: a line on the peer's standard input, a line of
//! JSON on its standard output. The end of the input is the end of the peer.

use serde::{Deserialize, Serialize};

/// Asked of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Arm a failpoint, in the words of the crate `fail`.
    Arm(String, String),
    /// Let a failpoint do nothing again.
    Disarm(String),
    /// Say when the peer serves.
    Ready,
    /// Say what the replicas hold.
    Replicas,
}

/// A replica as its peer has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    /// The group.
    pub(super) group: u32,
    /// The replica's id.
    pub(super) replica: u64,
    /// The applied index.
    pub(super) applied: u64,
    /// The log is purged to here.
    pub(super) purged: u64,
    /// Number of rows, and a digest of them all.
    pub(super) rows: (usize, u64),
}

/// What a peer answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Told {
    /// Done.
    Done,
    /// It cannot be done.
    Failed(String),
    /// What it holds.
    Replicas(Vec<Held>),
}
