//! The counterexamples of the protocol's models, as schedules that the real code is driven through.
//!
//! A model of the fence, of overlays and reads (section A) and of fuzzy snapshots (section S) was
//! searched for wrong rules; each rule that a schedule of some steps refuted has a scenario here, by
//! the finding's number. In: a seed, which decides how long things take, how machines die and which
//! backend keeps the state; the schedule itself is forced. Out: violations. A scenario whose dangerous
//! moment does not come fails, whatever else holds.

mod a0_old_batch_in_a_new_term;
mod a0_overlay_is_dropped;
mod a0_run_begins_after_its_marker;
mod a1_lost_proposal;
mod a1_overtaken_proposal;
mod a2_fenced_entry_answers_nobody;
mod a2_overwritten_entry;
mod a3_commit_after_arrival;
mod a3_deposed_leader_reads;
mod a3_read_waits_for_what_it_saw;
mod a3_round_begun_before;
mod a_answers;
mod a_peers;
mod ask;
mod peers;
mod replica;
mod s_checkpoint_while_applying;
mod s_fuzzy_snapshot;
mod steps;
mod trio;
mod wire;

use crate::runner::Scenario;
use steps::{Said, ends_with, fresh, let_commit, overtaken, put_alone};

/// A finding with its scenario.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// The scenario's name on the command line.
    pub name: &'static str,
    /// The finding's number, with the names that the models give its counterexamples.
    pub finding: &'static str,
    /// Runs it with a seed.
    pub run: Scenario,
}

/// What has no scenario, and why.
pub const NOT_BUILT: [(&str, &str); 1] = [(
    "S-1 (s-part-fuzzy, s-holds-part-before-images, s-holds-part-scan-entries)",
    "there are no savepoints, so there is no part of one that a fuzzy scan could be taken for",
)];

/// All scenarios, in the order of the findings.
pub fn findings() -> Vec<Finding> {
    let finding = |name, finding, run| Finding { name, finding, run };
    vec![
        finding("a0-run-begins-after-its-marker", "A (a-bug-start-early)", a0_run_begins_after_its_marker::scenario),
        finding("a0-overlay-is-dropped", "A (a-bug-keep-overlay)", a0_overlay_is_dropped::scenario),
        finding("a0-old-batch-in-a-new-term", "A (a-no-fence)", a0_old_batch_in_a_new_term::scenario),
        finding("a1-lost-proposal", "A-1 (a-term-drop)", a1_lost_proposal::scenario),
        finding("a1-overtaken-proposal", "A-1 (a-term-reorder)", a1_overtaken_proposal::scenario),
        finding(
            "a2-fenced-entry-answers-nobody",
            "A-2 (a-bug-answer-on-commit)",
            a2_fenced_entry_answers_nobody::scenario,
        ),
        finding("a2-overwritten-entry", "A-2, rule: an overwritten index", a2_overwritten_entry::by_an_entry),
        finding("a2-snapshot-over-an-entry", "A-2, rule: a snapshot over it", a2_overwritten_entry::by_a_snapshot),
        finding("a-no-answer-before-the-commit", "A (a-bug-answer-before-commit)", a_answers::not_before_the_commit),
        finding("a-retry-elsewhere", "A (a-bug-no-request-ids)", a_answers::retry_elsewhere),
        finding("a3-retry-in-the-overlay", "A-3, text: a retry waits for the verdict", a_answers::retry_in_the_overlay),
        finding("a3-late-copy", "A-3, text: the low-water mark", a_answers::late_copy),
        finding("a3-deposed-leader-reads", "A-3 (a-bug-read-unconfirmed)", a3_deposed_leader_reads::cut_off),
        finding("a3-paused-leader-reads", "A-3, rule: no lease outlives a pause", a3_deposed_leader_reads::paused),
        finding(
            "a3-refused-condition",
            "A-3, rule: what wrote nothing is a read",
            a3_deposed_leader_reads::refused_condition,
        ),
        finding("a3-round-begun-before", "A-3, rule: asked after the read arrived", a3_round_begun_before::scenario),
        finding("a3-commit-after-arrival", "A-3 (a-read-any-commit)", a3_commit_after_arrival::scenario),
        finding(
            "a3-read-waits-for-what-it-saw",
            "A-3 (a-bug-read-before-commit)",
            a3_read_waits_for_what_it_saw::scenario,
        ),
        finding("a-power-loss-at-each-change", "A (a-bug-no-request-ids), on whole peers", a_peers::power_loss),
        finding("a3-cut-off-leader-of-peers", "A-3 (a-bug-read-unconfirmed), on whole peers", a_peers::cut_off_leader),
        finding("s-serves-after-the-scan", "S (s-bug-serves-at-once)", s_fuzzy_snapshot::serves_after_the_scan),
        finding("s2-fence-is-no-row", "S-2 (s-fence-row-scanned)", s_fuzzy_snapshot::fence_is_no_row),
        finding("s2-scan-end-survives", "S-2, text: the scan's end is stored", s_fuzzy_snapshot::scan_end_survives),
        finding(
            "s-checkpoint-while-applying",
            "S (s-holds-replica), of a replica's own checkpoint",
            s_checkpoint_while_applying::scenario,
        ),
    ]
}
