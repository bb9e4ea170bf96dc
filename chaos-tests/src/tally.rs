//! What a run did, in numbers: faults by kind, operations by outcome, time. A thread's simulation
//! counts here as its trace is kept there; [`Table`] adds up seeds.
//!
//! In: names and counts, on the simulation's thread. Out: sorted numbers, and a table for people.
//! Counting changes nothing in a run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// What the names of faults begin with.
const FAULT: &str = "fault ";
/// What the names of operations' outcomes begin with.
const OPERATION: &str = "operations ";
/// Simulated milliseconds.
const SIMULATED: &str = "simulated ms";
/// What the names of longest times begin with, in milliseconds: of these the table shows the greatest.
const LONGEST: &str = "longest ";

thread_local! {
    static COUNTS: RefCell<Counts> = const { RefCell::new(Counts::new()) };
}

/// Counts something.
pub fn add(name: &str, number: u64) {
    COUNTS.with(|counts| *counts.borrow_mut().entry(name.to_owned()).or_default() += number);
}

/// A fault has struck.
pub fn fault(kind: &str) {
    add(&format!("{FAULT}{kind}"), 1);
}

/// So many operations ended like this.
pub fn operations(outcome: &str, number: usize) {
    add(&format!("{OPERATION}{outcome}"), number as u64);
}

/// The run took so long in simulated time.
pub fn simulated(time: Duration) {
    add(SIMULATED, time.as_millis() as u64);
}

/// Something took so long.
pub fn longest(what: &str, time: Duration) {
    let millis = time.as_millis() as u64;
    COUNTS.with(|counts| {
        let mut counts = counts.borrow_mut();
        let known = counts.entry(format!("{LONGEST}{what}")).or_default();
        *known = millis.max(*known);
    });
}

/// Takes what this thread has counted, and begins anew.
pub fn take() -> Counts {
    COUNTS.with(|counts| std::mem::take(&mut *counts.borrow_mut()))
}

/// The sums over many seeds.
#[derive(Clone, Debug, Default)]
pub struct Table {
    seeds: u64,
    findings: u64,
    counts: Counts,
}

impl Table {
    /// Adds a seed that ended with so many findings.
    pub fn seed(&mut self, counts: &Counts, findings: usize) {
        self.seeds += 1;
        self.findings += findings as u64;
        for (name, number) in counts {
            let sum = self.counts.entry(name.clone()).or_default();
            *sum = if name.starts_with(LONGEST) { (*sum).max(*number) } else { *sum + number };
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let of = |head: &'static str| {
            self.counts.iter().filter_map(move |(name, number)| name.strip_prefix(head).map(|rest| (rest, *number)))
        };
        let mut rows = vec![("seeds".to_owned(), self.seeds.to_string())];
        let simulated = self.counts.get(SIMULATED).copied().unwrap_or_default();
        rows.push(("simulated hours".to_owned(), format!("{:.2}", simulated as f64 / 3_600_000.0)));
        rows.push(("faults".to_owned(), of(FAULT).map(|(_, number)| number).sum::<u64>().to_string()));
        rows.extend(of(FAULT).map(|(kind, number)| (format!("  {kind}"), number.to_string())));
        rows.push(("operations".to_owned(), of(OPERATION).map(|(_, number)| number).sum::<u64>().to_string()));
        rows.extend(of(OPERATION).map(|(outcome, number)| (format!("  {outcome}"), number.to_string())));
        let seconds = |millis: u64| format!("{:.1} s", millis as f64 / 1000.0);
        rows.extend(of(LONGEST).map(|(what, millis)| (format!("longest {what}"), seconds(millis))));
        rows.push(("findings".to_owned(), self.findings.to_string()));
        rows
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let widest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, number) in rows {
            writeln!(f, "| {name:<widest$} | {number:>10} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_add_up() {
        take();
        let mut table = Table::default();
        for (seconds, findings) in [(1_800, 0), (5_400, 2)] {
            fault("crash");
            operations("answered", 100);
            operations("unknown", 3);
            simulated(Duration::from_secs(seconds));
            longest("convergence", Duration::from_secs(seconds / 900));
            table.seed(&take(), findings);
        }
        let text = table.to_string();
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap_or_default();
            line.trim_matches(['|', ' ']).rsplit("| ").next().unwrap_or_default().trim().to_owned()
        };
        let named = [("seeds", "2"), ("simulated hours", "2.00"), ("faults", "2"), ("  crash", "2"), ("findings", "2")];
        named.into_iter().for_each(|(name, number)| assert_eq!(row(name), number, "{name} in\n{text}"));
        assert_eq!(
            (row("operations"), row("  answered"), row("longest convergence")),
            ("206".into(), "200".into(), "6.0 s".into())
        );
        assert!(take().is_empty());
    }
}
