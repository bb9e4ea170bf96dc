//! What a run did, as lines, as a table and as JSON.

use super::round::Outcomes;
use crate::history::{Operation, Outcome};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// A run so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Rounds that ended.
    pub rounds: u32,
    /// Minutes of real time.
    pub minutes: f64,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that spared those whom they were meant for, by kind.
    pub spared: BTreeMap<&'static str, u64>,
    /// Watches that saw a round through to its end.
    pub watches: u64,
    /// Events of watches.
    pub events: u64,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations of which nobody knows what became.
    pub unknown: u64,
    /// Operations that were refused, so that nothing happened.
    pub refused: u64,
    /// Keys whose histories were judged.
    pub keys: usize,
    /// The longest time from mending to everything in its place, in seconds.
    pub slowest_convergence: f64,
    /// Broken promises.
    pub findings: Vec<String>,
}

impl Report {
    /// Adds a round.
    pub fn add(&mut self, outcomes: &Outcomes, keys: usize) {
        self.rounds += 1;
        self.answered += outcomes.answered;
        self.unknown += outcomes.unknown;
        self.refused += outcomes.refused;
        self.keys += keys;
        self.watches += outcomes.watches;
        self.events += outcomes.events;
        self.slowest_convergence = self.slowest_convergence.max(outcomes.converged.as_secs_f64());
        self.findings.extend(outcomes.violations.iter().map(ToString::to_string));
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ("rounds".to_owned(), self.rounds.to_string()),
            ("minutes".to_owned(), format!("{:.1}", self.minutes)),
            ("operations answered".to_owned(), self.answered.to_string()),
            ("operations of unknown outcome".to_owned(), self.unknown.to_string()),
            ("operations refused".to_owned(), self.refused.to_string()),
            ("keys judged".to_owned(), self.keys.to_string()),
            ("watches to the end".to_owned(), self.watches.to_string()),
            ("events of watches".to_owned(), self.events.to_string()),
            ("slowest convergence".to_owned(), format!("{:.1} s", self.slowest_convergence)),
            ("faults".to_owned(), self.faults.values().sum::<u64>().to_string()),
        ];
        rows.extend(self.faults.iter().map(|(kind, count)| (format!("  {kind}"), count.to_string())));
        rows.push(("spared by faults".to_owned(), self.spared.values().sum::<u64>().to_string()));
        rows.extend(self.spared.iter().map(|(kind, count)| (format!("  {kind}"), count.to_string())));
        rows.push(("findings".to_owned(), self.findings.len().to_string()));
        let width = rows.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
        rows.iter().map(|(what, value)| format!("{what:width$}  {value:>9}\n")).collect()
    }
}

/// One line of a round.
pub fn line(round: u32, outcomes: &Outcomes, faults: u64) -> String {
    let Outcomes { answered, unknown, refused, converged, checked, violations, .. } = outcomes;
    format!(
        "round {round}: {faults} faults; operations: {answered} answered, {unknown} unknown, {refused} refused; \
         in its place after {}, checked in {}; {}",
        seconds(*converged),
        seconds(*checked),
        if violations.is_empty() { "holds".to_owned() } else { format!("{} FINDINGS", violations.len()) }
    )
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Writes a history to a file, an operation a line.
///
/// # Errors
/// What the system says.
pub fn write_history(path: &Path, operations: &[Operation]) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for Operation { client, key, action, invoked, returned, outcome, at, .. } in operations {
        let returned = if *outcome == Outcome::Unknown { "open".to_owned() } else { returned.to_string() };
        writeln!(file, "{:>9.3} s {invoked}..{returned} c{client} {key} {action:?} -> {outcome:?}", at.as_secs_f64())?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Violation;

    #[test]
    fn a_table_adds_up_what_rounds_did() {
        let mut report = Report::default();
        let violations = vec![Violation { check: "x", what: "y".to_owned() }];
        let one = Outcomes { answered: 5, unknown: 2, converged: Duration::from_secs(3), ..Outcomes::default() };
        let two = Outcomes { answered: 1, violations, ..Outcomes::default() };
        report.add(&one, 16);
        report.add(&two, 16);
        report.faults = BTreeMap::from([("halves", 3), ("join", 1)]);
        report.spared = BTreeMap::from([("ring", 2)]);
        let table = report.table();
        for row in ["rounds  ", "  halves  ", "  ring  ", "operations answered  ", "findings  "] {
            assert!(table.contains(row), "{row}: {table}");
        }
        assert_eq!((report.rounds, report.answered, report.findings.len()), (2, 6, 1));
        assert!(line(1, &two, 4).contains("1 FINDINGS") && line(2, &one, 4).contains("holds"));
    }
}
