//! Which failpoints are brought about where, and how. In: nothing. Out: the plan of the suite; a test says
//! that it leaves no point out.

use super::grid::GUEST;

/// How a peer is brought to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// By the clients' writes alone.
    Writes,
    /// The clients pause for moments, so that the log is sealed.
    Pauses,
    /// Another peer dies, and elections follow.
    Elections,
    /// The guest gives its replicas away, and takes its share again.
    Moves,
    /// The peer is away until the others' logs have gone on without it, and is armed as it starts.
    Absence,
    /// The peer is started armed.
    Start,
    /// The peer writes what no other peer hears of, and is away while they go on; it is armed as it starts.
    Alone,
}

/// A point and how it is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// The failpoint.
    pub(super) point: &'static str,
    /// Which peer dies there.
    pub(super) peer: usize,
    /// How it is brought there.
    pub(super) how: How,
    /// So many times it passes unharmed.
    pub(super) skip: u32,
    /// Whether all peers that come to the point are armed in a second round.
    pub(super) all: bool,
}

/// A founder with snapshot files, and one with sled.
const FILES: usize = 0;
const SLED: usize = 1;

const fn at(point: &'static str, peer: usize, how: How, skip: u32) -> Planned {
    Planned { point, peer, how, skip, all: false }
}

const fn also_all(planned: Planned) -> Planned {
    Planned { all: true, ..planned }
}

/// The plan, in the order of `keystead::failpoint::POINTS`.
pub(super) const PLAN: &[Planned] = &[
    also_all(at("batch-before-propose", FILES, How::Writes, 50)),
    also_all(at("batch-before-answers", SLED, How::Writes, 50)),
    also_all(at("append-before-queue", FILES, How::Writes, 100)),
    also_all(at("log-before-write", SLED, How::Writes, 100)),
    also_all(at("log-half-written", FILES, How::Writes, 100)),
    also_all(at("log-before-sync", SLED, How::Writes, 100)),
    also_all(at("log-after-sync", FILES, How::Writes, 100)),
    also_all(at("append-before-callback", SLED, How::Writes, 100)),
    also_all(at("vote-before-save", FILES, How::Elections, 1)),
    also_all(at("vote-after-save", SLED, How::Elections, 1)),
    at("truncate-before-queue", FILES, How::Alone, 0),
    at("truncate-after-queue", SLED, How::Alone, 0),
    also_all(at("purge-before-queue", FILES, How::Writes, 3)),
    also_all(at("purge-after-queue", SLED, How::Writes, 3)),
    at("seal-before-write", FILES, How::Pauses, 1),
    at("seal-after-write", SLED, How::Pauses, 1),
    also_all(at("roll-before-create", FILES, How::Writes, 3)),
    also_all(at("roll-half-written", SLED, How::Writes, 3)),
    also_all(at("roll-before-sync-dir", FILES, How::Writes, 3)),
    also_all(at("roll-after-sync-dir", SLED, How::Writes, 3)),
    at("segment-before-remove", FILES, How::Writes, 2),
    at("segment-after-remove", SLED, How::Writes, 2),
    at("move-before-write", FILES, How::Writes, 1),
    at("move-after-write", SLED, How::Writes, 1),
    also_all(at("apply-before", FILES, How::Writes, 100)),
    also_all(at("apply-after", SLED, How::Writes, 100)),
    also_all(at("checkpoint-before-rows", FILES, How::Writes, 2)),
    also_all(at("checkpoint-after-rows", SLED, How::Writes, 2)),
    also_all(at("file-before-trailer", FILES, How::Writes, 2)),
    also_all(at("file-before-rename", FILES, How::Writes, 2)),
    also_all(at("file-before-sync-dir", FILES, How::Writes, 2)),
    also_all(at("sled-between-chunks", SLED, How::Writes, 5)),
    also_all(at("sled-before-meta", SLED, How::Writes, 2)),
    also_all(at("sled-before-flush", SLED, How::Writes, 2)),
    at("sled-before-publish", GUEST, How::Moves, 0),
    at("sled-before-drop", SLED, How::Absence, 0),
    at("snapshot-before-piece", FILES, How::Moves, 1),
    at("snapshot-before-end", SLED, How::Moves, 0),
    at("receive-before-piece", GUEST, How::Moves, 2),
    at("receive-after-spool", GUEST, How::Moves, 1),
    at("install-before-rows", SLED, How::Absence, 1),
    at("install-before-swap", FILES, How::Absence, 0),
    at("install-after-swap", GUEST, How::Moves, 1),
    at("learner-before-ask", FILES, How::Moves, 0),
    at("learner-after-ask", SLED, How::Moves, 0),
    at("voters-before-ask", FILES, How::Moves, 0),
    at("voters-after-ask", SLED, How::Moves, 0),
    also_all(at("apply-joint", FILES, How::Moves, 0)),
    also_all(at("apply-uniform", SLED, How::Moves, 0)),
    at("moved-before-row", FILES, How::Moves, 0),
    at("moved-after-row", SLED, How::Moves, 0),
    at("replica-before-tombstone", GUEST, How::Moves, 0),
    at("replica-before-remove", GUEST, How::Moves, 1),
    at("replica-after-remove", GUEST, How::Moves, 1),
    at("identity-before-rename", FILES, How::Start, 0),
    at("identity-before-sync-dir", SLED, How::Start, 0),
];

/// Points where the disk is full instead: see [`super::full`].
#[cfg(test)]
const FULL: &[&str] = &["log-room", "state-room"];

#[cfg(test)]
mod tests {
    use super::*;
    use keystead::failpoint::POINTS;

    #[test]
    fn the_plan_leaves_no_point_out() {
        let planned: Vec<&str> = PLAN.iter().map(|planned| planned.point).chain(FULL.iter().copied()).collect();
        assert_eq!(planned, POINTS);
    }
}
