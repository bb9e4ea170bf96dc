//! From outcomes to figures: rates, latencies, gaps. Pure.

use super::drive::{Drive, Outcome};
use super::event::BUCKETS;
use super::readings::StateReads;
use super::verify::Verdict;
use crate::types::NodeId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The share of all events that the joined peer must answer as a leader, in percent.
pub(super) const JOINER_PERCENT: f64 = 5.0;

/// Everything that the demo found; `--json` prints it as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Whether every answer agrees and no state was read over the network.
    pub(super) agrees: bool,
    pub(super) events: u64,
    /// Rows of the input that were broken and left out.
    pub(super) skipped_rows: u64,
    pub(super) customers: u64,
    pub(super) answered: u64,
    pub(super) unanswered: u64,
    pub(super) mismatches: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) seconds: f64,
    pub(super) events_per_second: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
    pub(super) killed: String,
    pub(super) killed_led_partitions: u64,
    pub(super) partitions: u64,
    pub(super) killed_at_s: f64,
    pub(super) joined: String,
    pub(super) joined_at_s: f64,
    /// Events that the joined peer answered as a leader, in percent of all.
    pub(super) joined_percent: f64,
    /// Whether that is enough.
    pub(super) joiner_led: bool,
    /// When the joined peer gave its first answer, from the first event's sending.
    pub(super) joined_first_answer_s: Option<f64>,
    /// Events that each peer answered as a leader.
    pub(super) answers_by_peer: BTreeMap<String, u64>,
    /// How long nothing was sent, without a rate, so that the joined peer could take its part; the
    /// rate and the longest gap are without it.
    pub(super) waited_for_joiner_s: f64,
    /// The longest time between two answers, one after the other, after the kill.
    pub(super) longest_gap_after_kill_ms: f64,
    /// The longest time that an event sent or unanswered after the kill waited for its answer.
    pub(super) slowest_after_kill_ms: f64,
    /// Rows of state that tasks read over the network; `None`: a peer did not say.
    pub(super) state_reads_over_network: Option<u64>,
    /// The same, locally; what the killed peer read is in it as of just before the kill.
    pub(super) state_reads_local: Option<u64>,
    /// Sub-windows that the events read in all.
    pub(super) state_reads_expected_by_a_remote_store: u64,
    /// Answers in each whole second from the first event's sending.
    pub(super) answers_by_second: Vec<u64>,
    /// Where the task's state was read, and what else went wrong, for people.
    pub(super) first_failure: Option<String>,
}

/// The figures of a drive.
pub(super) fn figures(
    drive: &Drive,
    customers: usize,
    verdict: Verdict,
    reads: StateReads,
    names: &BTreeMap<NodeId, String>,
) -> Figures {
    let outcomes: Vec<&Outcome> = drive.outcomes.iter().flatten().collect();
    let ends = answer_times(&outcomes);
    let mut waits: Vec<Duration> = outcomes.iter().map(|outcome| outcome.answered - outcome.sent).collect();
    waits.sort_unstable();
    let kill = &drive.kill;
    let seconds = ends.last().map_or(0.0, Duration::as_secs_f64);
    // As if there had been no pause.
    let steady: Vec<Duration> = ends.iter().map(|end| drive.pause.without(*end)).collect();
    let sending = steady.last().map_or(0.0, Duration::as_secs_f64);
    let waited = outcomes.iter().filter(|outcome| outcome.answered >= kill.at);
    let slowest = waited.map(|outcome| outcome.answered - outcome.sent).max().unwrap_or_default();
    let events = drive.outcomes.len() as u64;
    let name = |node: NodeId| names.get(&node).cloned().unwrap_or_else(|| node.to_string());
    let mut answers_by_peer: BTreeMap<String, u64> = names.values().map(|name| (name.clone(), 0)).collect();
    for by in outcomes.iter().filter_map(|outcome| outcome.by) {
        *answers_by_peer.entry(name(by)).or_default() += 1;
    }
    let joined = drive.joiner.peer.clone();
    let joined_answers = answers_by_peer.get(&joined).copied().unwrap_or(0);
    let joined_percent = joined_answers as f64 * 100.0 / events.max(1) as f64;
    let of_joiner = outcomes.iter().filter(|outcome| outcome.by.is_some_and(|by| name(by) == joined));
    let first = of_joiner.map(|outcome| outcome.answered).min();
    Figures {
        agrees: verdict.is_flawless() && reads.remote == Some(0),
        events,
        skipped_rows: 0,
        customers: customers as u64,
        answered: verdict.answered.saturating_sub(customers as u64),
        unanswered: verdict.unanswered,
        mismatches: verdict.mismatches,
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        seconds,
        events_per_second: if sending > 0.0 { outcomes.len() as f64 / sending } else { 0.0 },
        p50_us: micros(quantile(&waits, 500)),
        p99_us: micros(quantile(&waits, 990)),
        max_us: micros(quantile(&waits, 1000)),
        killed: kill.peer.clone(),
        killed_led_partitions: kill.led as u64,
        partitions: kill.partitions as u64,
        killed_at_s: kill.at.as_secs_f64(),
        joined,
        joined_at_s: drive.joiner.at.as_secs_f64(),
        joined_percent,
        joiner_led: joined_percent >= JOINER_PERCENT,
        joined_first_answer_s: first.map(|first| first.as_secs_f64()),
        answers_by_peer,
        waited_for_joiner_s: (drive.pause.to - drive.pause.from).as_secs_f64(),
        longest_gap_after_kill_ms: longest_gap(&steady, drive.pause.without(kill.at)).as_secs_f64() * 1e3,
        slowest_after_kill_ms: slowest.as_secs_f64() * 1e3,
        state_reads_over_network: reads.remote,
        state_reads_local: reads.local,
        state_reads_expected_by_a_remote_store: events * u64::from(BUCKETS),
        answers_by_second: counts(&ends, Duration::from_secs(1)),
        first_failure: outcomes.iter().find_map(|outcome| outcome.total.as_ref().err()).map(ToString::to_string),
    }
}

/// When answers came, ascending; an error is no answer.
pub(super) fn answer_times(outcomes: &[&Outcome]) -> Vec<Duration> {
    let answered = outcomes.iter().filter(|outcome| outcome.total.is_ok());
    let mut ends: Vec<Duration> = answered.map(|outcome| outcome.answered).collect();
    ends.sort_unstable();
    ends
}

/// How many of these times fall into each step, from 0 to the last.
pub(super) fn counts(times: &[Duration], step: Duration) -> Vec<u64> {
    let index = |time: &Duration| (time.as_nanos() / step.as_nanos().max(1)) as usize;
    let mut counts = vec![0; times.last().map_or(0, |last| index(last) + 1)];
    for time in times {
        counts[index(time)] += 1;
    }
    counts
}

/// The longest time without an answer from `from` on: from it to the first answer, or between two.
fn longest_gap(ends: &[Duration], from: Duration) -> Duration {
    let after = ends.iter().copied().filter(|end| *end >= from);
    let mut last = from;
    let mut longest = Duration::ZERO;
    for end in after {
        longest = longest.max(end - last);
        last = end;
    }
    longest
}

/// The smallest value that so many per mille of the values do not exceed.
fn quantile(sorted: &[Duration], per_mille: usize) -> Duration {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::demo::drive::{Joiner, Kill, Pause};
    use crate::error::{Code, Error};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Ten events, 100 ms apart, answered after 1 ms; none between 500 and 1500 ms.
    pub(in crate::cli::demo) fn sample() -> Figures {
        paused(Pause::default())
    }

    /// The same with a pause.
    fn paused(pause: Pause) -> Figures {
        let outcome = |at: u64| {
            let sent = ms(at * 100);
            let answered = if at == 5 { ms(1500) } else { sent + ms(if at > 5 { 1001 } else { 1 }) };
            Some(Outcome { sent, answered, total: Ok(1), by: Some(NodeId(if at == 9 { 4 } else { 1 })) })
        };
        let kill = Kill { peer: "n2".to_owned(), led: 22, partitions: 64, at: ms(450), reads: StateReads::default() };
        let joiner = Joiner { peer: "n4".to_owned(), at: ms(500) };
        let drive = Drive { outcomes: (0..10).map(outcome).collect(), kill, joiner, pause };
        let reads = StateReads { remote: Some(0), local: Some(1680) };
        let names = (1..=4).map(|id| (NodeId(id), format!("n{id}"))).collect();
        figures(&drive, 3, Verdict { answered: 13, ..Verdict::default() }, reads, &names)
    }

    #[test]
    fn figures_of_a_small_drive() {
        let figures = sample();
        assert!(figures.agrees);
        assert_eq!((figures.events, figures.answered), (10, 10));
        assert_eq!((figures.p50_us, figures.p99_us), (1000, 1_001_000));
        assert!((figures.longest_gap_after_kill_ms - 1050.0).abs() < 1e-6, "{figures:?}");
        assert!((figures.slowest_after_kill_ms - 1001.0).abs() < 1e-6);
        assert_eq!(figures.answers_by_second, [5, 5]);
        assert!(figures.joiner_led && (figures.joined_percent - 10.0).abs() < 1e-9);
        assert_eq!(figures.answers_by_peer.values().copied().collect::<Vec<_>>(), [9, 0, 0, 1]);
        assert_eq!(figures.joined_first_answer_s, Some(1.901));
        assert_eq!(figures.state_reads_expected_by_a_remote_store, 1680);
    }

    #[test]
    fn a_pause_counts_neither_as_a_gap_nor_for_the_rate() {
        let (without, with) = (sample(), paused(Pause { from: ms(600), to: ms(1400) }));
        assert!((with.waited_for_joiner_s - 0.8).abs() < 1e-9 && without.waited_for_joiner_s == 0.0);
        assert!((with.longest_gap_after_kill_ms - 250.0).abs() < 1e-6, "{with:?}");
        assert!((with.seconds - without.seconds).abs() < 1e-9);
        assert!((with.events_per_second - 10.0 / (without.seconds - 0.8)).abs() < 1e-6, "{with:?}");
    }

    #[test]
    fn an_unknown_or_remote_read_does_not_agree() {
        let drive =
            Drive { outcomes: Vec::new(), kill: Kill::default(), joiner: Joiner::default(), pause: Pause::default() };
        for remote in [None, Some(1)] {
            let reads = StateReads { remote, local: Some(0) };
            assert!(!figures(&drive, 0, Verdict::default(), reads, &BTreeMap::new()).agrees);
        }
    }

    #[test]
    fn an_error_is_no_answer() {
        let failed = Error::new(Code::NoLeader, "none");
        let outcomes = [
            Outcome { sent: ms(0), answered: ms(5), total: Err(failed), by: None },
            Outcome { sent: ms(0), answered: ms(3), total: Ok(1), by: None },
        ];
        assert_eq!(answer_times(&outcomes.iter().collect::<Vec<_>>()), [ms(3)]);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<Duration> = (1..=100).map(ms).collect();
        assert_eq!(
            (quantile(&values, 500), quantile(&values, 990), quantile(&values, 1000)),
            (ms(50), ms(99), ms(100))
        );
        assert_eq!(quantile(&[], 500), Duration::ZERO);
        assert_eq!(quantile(&[ms(7)], 990), ms(7));
    }
}
