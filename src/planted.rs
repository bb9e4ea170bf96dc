//! Bugs that are planted on purpose, to see that the checkers of `chaos-tests` find them.
//!
//! In: with the feature `planted-bugs`, the one bug that the process was told to have. Out: at the
//! line that keeps each promise, whether to break it. Without the feature the answer is a constant
//! `false`, and nothing of this is left in the program. No user ever chooses a bug: only the
//! simulator's processes do.

/// A promise that is broken at one line of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// The log acknowledges batches that it has not synced.
    SkipFsync = 1,
    /// Whatever was committed takes effect, whichever run it belongs to.
    SkipFencing,
    /// A batch takes effect although the one before it never did.
    SkipBatchNumber,
    /// A write that comes again is executed again, though its answer is kept.
    ApplyTwice,
    /// A new leader does not know the sessions that its predecessor had.
    ForgetSessions,
    /// Reads are answered without asking whether this replica still leads.
    StaleRead,
    /// A replica whose log is damaged begins anew under the id that it had.
    OldReplicaId,
    /// Damage in what had been durable is taken for a torn write and cut off.
    CutTail,
    /// A record of the log whose checksum is wrong is taken for sound.
    IgnoreChecksum,
    /// A replica serves before it has passed the end of the scan that its rows came from.
    ServeEarly,
    /// A newcomer votes before it has caught up.
    PromoteEarly,
    /// A replica that starts takes its applied index for lower than its rows are, and applies the entries in
    /// between again.
    AppliedTooLow,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 12] = [
        Bug::SkipFsync,
        Bug::SkipFencing,
        Bug::SkipBatchNumber,
        Bug::ApplyTwice,
        Bug::ForgetSessions,
        Bug::StaleRead,
        Bug::OldReplicaId,
        Bug::CutTail,
        Bug::IgnoreChecksum,
        Bug::ServeEarly,
        Bug::PromoteEarly,
        Bug::AppliedTooLow,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Bug::SkipFsync => "skip-fsync",
            Bug::SkipFencing => "skip-fencing",
            Bug::SkipBatchNumber => "skip-batch-number",
            Bug::ApplyTwice => "apply-twice",
            Bug::ForgetSessions => "forget-sessions",
            Bug::StaleRead => "stale-read",
            Bug::OldReplicaId => "old-replica-id",
            Bug::CutTail => "cut-tail",
            Bug::IgnoreChecksum => "ignore-checksum",
            Bug::ServeEarly => "serve-early",
            Bug::PromoteEarly => "promote-early",
            Bug::AppliedTooLow => "applied-too-low",
        }
    }

    /// The bug of this name.
    pub fn named(name: &str) -> Option<Bug> {
        Bug::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

/// What becomes of a proposal on its way from an executor to Raft: no bug, but a fault that the fence
/// must make harmless (models A-1). Raft itself refuses proposals, too seldom to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It never arrives; the executor hears so when it may have sent the next one.
    ForGood,
    /// The executor hears that it is lost, and it arrives later.
    ForAWhile,
}

/// Whether this process has the bug.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

/// What becomes of the proposal at hand; `None` when it goes its way.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn lost_proposal() -> Option<Loss> {
    None
}

#[cfg(feature = "planted-bugs")]
mod chosen {
    use super::{Bug, Loss};
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

    /// The number of the bug; 0 for none.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);
    /// Of so many proposals one is lost; 0 for none.
    static LOSE_EVERY: AtomicU64 = AtomicU64::new(0);
    static PROPOSALS: AtomicU64 = AtomicU64::new(0);

    /// Gives this process a bug, for as long as it lives.
    pub fn choose(bug: Bug) {
        CHOSEN.store(bug as u8, Relaxed);
    }

    /// Whether this process has the bug.
    pub fn planted(bug: Bug) -> bool {
        CHOSEN.load(Relaxed) == bug as u8
    }

    /// Lets this process lose one of so many proposals, from now on.
    pub fn lose_proposals(every: u64) {
        LOSE_EVERY.store(every, Relaxed);
    }

    /// How many proposals were lost so far.
    pub fn proposals_lost() -> u64 {
        PROPOSALS.load(Relaxed).checked_div(LOSE_EVERY.load(Relaxed)).unwrap_or(0)
    }

    /// What becomes of the proposal at hand; `None` when it goes its way.
    pub fn lost_proposal() -> Option<Loss> {
        let every = LOSE_EVERY.load(Relaxed);
        if every == 0 {
            return None;
        }
        let number = PROPOSALS.fetch_add(1, Relaxed) + 1;
        let kinds = [Loss::ForGood, Loss::ForAWhile];
        number.is_multiple_of(every).then(|| kinds[(number / every % 2) as usize])
    }
}

#[cfg(feature = "planted-bugs")]
pub use chosen::{choose, lose_proposals, lost_proposal, planted, proposals_lost};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bug_has_a_name_of_its_own_and_none_is_chosen() {
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(bug));
            assert!(!planted(bug));
        }
        assert_eq!(Bug::named("none"), None);
    }
}
