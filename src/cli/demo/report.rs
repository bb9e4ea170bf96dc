//! Shows the figures to people: a short table, and a picture of the events answered over time.
//! Pure: figures in, text out.

use super::figures::{Figures, counts};
use std::fmt::Write as _;
use std::time::Duration;

/// Most columns of the picture.
const COLUMNS: usize = 72;
/// Heights of a column.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The table.
pub(super) fn table(figures: &Figures) -> String {
    let unknown = || "not counted".to_owned();
    let over_network = figures.state_reads_over_network.map_or_else(unknown, grouped);
    let mut rows = vec![
        ("events", format!("{} of {} customers", grouped(figures.events), grouped(figures.customers))),
        ("mismatches", grouped(figures.mismatches)),
        ("lost", grouped(figures.lost)),
        ("duplicated", grouped(figures.duplicated)),
        ("events/s", grouped(figures.events_per_second.round() as u64)),
        ("latency p50, p99", format!("{}, {}", millis(figures.p50_us), millis(figures.p99_us))),
        (
            "killed",
            format!(
                "{} after {:.1} s; it led {} of {} partitions",
                figures.killed, figures.killed_at_s, figures.killed_led_partitions, figures.partitions
            ),
        ),
        (
            "joined",
            format!(
                "{} after {:.1} s; its first answer after {}",
                figures.joined,
                figures.joined_at_s,
                figures.joined_first_answer_s.map_or_else(|| "never".to_owned(), |at| format!("{at:.1} s"))
            ),
        ),
        ("answered by", answered_by(figures)),
        ("longest gap after the kill", format!("{:.0} ms", figures.longest_gap_after_kill_ms)),
        ("slowest answer after the kill", format!("{:.0} ms", figures.slowest_after_kill_ms)),
        (
            "state reads over the network",
            format!("{over_network} of {}", grouped(figures.state_reads_expected_by_a_remote_store)),
        ),
        ("state reads beside the task", figures.state_reads_local.map_or_else(unknown, grouped)),
    ];
    if figures.waited_for_joiner_s > 0.0 {
        let waited = format!("{:.1} s without sending; rate and gap are without them", figures.waited_for_joiner_s);
        rows.insert(8, ("waited for the joined peer", waited));
    }
    if figures.skipped_rows > 0 {
        rows.insert(1, ("broken rows left out", grouped(figures.skipped_rows)));
    }
    if figures.unanswered > 0 {
        rows.insert(1, ("unanswered", grouped(figures.unanswered)));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<width$}  {value}");
    }
    out
}

fn answered_by(figures: &Figures) -> String {
    let share = |count: u64| count as f64 * 100.0 / figures.events.max(1) as f64;
    let one = |(name, count): (&String, &u64)| format!("{name} {} ({:.1} %)", grouped(*count), share(*count));
    figures.answers_by_peer.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The picture: events answered per second over time, with what happened marked. `ends` are the
/// times of the answers, ascending.
pub(super) fn picture(ends: &[Duration], marks: &[(Duration, String)]) -> String {
    let Some(last) = ends.last() else { return String::new() };
    let step = Duration::from_nanos((last.as_nanos() / COLUMNS as u128) as u64 + 1);
    let counts = counts(ends, step);
    let highest = counts.iter().copied().max().unwrap_or(0).max(1);
    // What is not empty shows, however low.
    let bar = |count: &u64| BARS[(count * 8).div_ceil(highest) as usize];
    let bars: String = counts.iter().map(bar).collect();
    let per_second = (highest as f64 / step.as_secs_f64()).round() as u64;
    let mut picture = format!(
        "events answered per second, {:.2} s a column; a full column is {}\n{bars}\n",
        step.as_secs_f64(),
        grouped(per_second),
    );
    for (time, what) in marks {
        let at = ((time.as_nanos() / step.as_nanos()) as usize).min(counts.len() - 1);
        picture.push_str(&format!("{:at$}^ {what}\n", ""));
    }
    picture
}

/// The verdict in a sentence.
pub(super) fn sentence(figures: &Figures) -> String {
    if figures.agrees {
        return "Every answer agrees with the computation beside the grid.".to_owned();
    }
    let mut faults = Vec::new();
    let mut fault = |count: u64, what: &str| {
        if count > 0 {
            faults.push(format!("{} {what}", grouped(count)));
        }
    };
    fault(figures.unanswered, "unanswered");
    fault(figures.mismatches, "wrong");
    fault(figures.lost, "lost");
    fault(figures.duplicated, "counted twice");
    match figures.state_reads_over_network {
        None => faults.push("state reads not counted".to_owned()),
        Some(reads) => fault(reads, "state reads over the network"),
    }
    let first =
        figures.first_failure.as_ref().map_or(String::new(), |failure| format!("; the first failure: {failure}"));
    format!("the grid's answers do not all agree: {}{first}", faults.join(", "))
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1e3)
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::figures::tests::sample;

    #[test]
    fn the_table_shows_each_figure() {
        let expected = "\
events                         10 of 3 customers
mismatches                     0
lost                           0
duplicated                     0
events/s                       5
latency p50, p99               1.0 ms, 1001.0 ms
killed                         n2 after 0.5 s; it led 22 of 64 partitions
joined                         n4 after 0.5 s; its first answer after 1.9 s
answered by                    n1 9 (90.0 %), n2 0 (0.0 %), n3 0 (0.0 %), n4 1 (10.0 %)
longest gap after the kill     1050 ms
slowest answer after the kill  1001 ms
state reads over the network   0 of 1,680
state reads beside the task    1,680
";
        assert_eq!(table(&sample()), expected);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut figures = sample();
        assert!(sentence(&figures).starts_with("Every answer agrees"));
        figures.agrees = false;
        (figures.unanswered, figures.lost, figures.state_reads_over_network) = (1200, 1, None);
        figures.first_failure = Some("KS3002: no leader".to_owned());
        let expected = "the grid's answers do not all agree: 1,200 unanswered, 1 lost, state reads not counted; \
                        the first failure: KS3002: no leader";
        assert_eq!(sentence(&figures), expected);
        figures.skipped_rows = 3;
        assert!(table(&figures).contains("unanswered                     1,200\n"));
        assert!(table(&figures).contains("broken rows left out           3\n"));
        assert!(table(&figures).contains("state reads over the network   not counted of 1,680\n"));
    }

    #[test]
    fn the_picture_has_a_hole_where_answers_are_missing_and_the_kill_below() {
        let ms = |ms: u64| Duration::from_millis(ms);
        let ends: Vec<Duration> = (0..720).filter(|at| !(300..400).contains(at)).map(|at| ms(at * 10 + 9)).collect();
        let picture = picture(&ends, &[(ms(2950), "n2 killed".to_owned())]);
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines.len(), 3, "{picture}");
        let bars: Vec<char> = lines[1].chars().collect();
        assert_eq!(bars.len(), COLUMNS);
        assert!(bars[..29].iter().all(|bar| "▇█".contains(*bar)), "{picture}");
        assert!(bars[31..39].iter().all(|bar| *bar == ' '), "{picture}");
        assert_eq!(lines[2], format!("{:29}^ n2 killed", ""));
        assert_eq!(super::picture(&[], &[]), "");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 4_704_000].map(grouped), ["0", "999", "1,000", "4,704,000"]);
    }
}
