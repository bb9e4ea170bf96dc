//! What a run of the suite tells: a row per round, and the findings below.

use std::fmt;

/// One round.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The failpoint.
    pub point: String,
    /// Which peers were armed: a name, or `all`.
    pub armed: String,
    /// Whether a peer came to the point.
    pub reached: bool,
    /// How often a process died there, those included that were started again within the round.
    pub died: u32,
    /// Processes that were started again, those that were killed on the way included.
    pub restarts: u32,
    /// Operations that the clients were answered meanwhile.
    pub operations: u64,
    /// Seconds until the point was reached; from there until all peers served again; until all replicas
    /// were equal and everything was read.
    pub seconds: [f64; 3],
    /// What was wrong.
    pub findings: Vec<String>,
}

/// All rounds.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// In the order in which they ran.
    pub rows: Vec<Row>,
}

impl Table {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.findings.is_empty())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { point, armed, reached, died, restarts, operations, seconds, findings } = self;
        let ([to_it, serves, rests], reached) = (seconds, if *reached { "yes" } else { "no" });
        write!(f, "{point:<26} {armed:<5} {reached:>7} {died:>5} {restarts:>9} {operations:>11} ")?;
        write!(f, "{to_it:>8.1} {serves:>8.1} {rests:>8.1} {:>9}", findings.len())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26} {:<5} {:>7} {:>5} {:>9} ", "point", "armed", "reached", "died", "restarts")?;
        write!(f, "{:>11} ", "operations")?;
        writeln!(f, "{:>8} {:>8} {:>8} {:>9}", "to it s", "serves s", "equal s", "findings")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let sum = Row {
            point: format!("{} rounds", self.rows.len()),
            reached: self.rows.iter().all(|row| row.reached),
            died: self.rows.iter().map(|row| row.died).sum(),
            restarts: self.rows.iter().map(|row| row.restarts).sum(),
            operations: self.rows.iter().map(|row| row.operations).sum(),
            seconds: [0, 1, 2].map(|phase| self.rows.iter().map(|row| row.seconds[phase]).sum()),
            findings: self.rows.iter().flat_map(|row| row.findings.clone()).collect(),
            ..Row::default()
        };
        writeln!(f, "{sum}")?;
        for row in &self.rows {
            for finding in &row.findings {
                writeln!(f, "FOUND {} ({}): {finding}", row.point, row.armed)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_point_was_reached_and_how_many_died() {
        let row = Row { point: "roll".to_owned(), armed: "all".to_owned(), reached: true, died: 3, ..Row::default() };
        let fields = |line: &str| line.split_whitespace().take(4).map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(fields(&row.to_string()), "roll all yes 3");
        let table = Table { rows: vec![row, Row::default()] }.to_string();
        assert!(table.lines().any(|line| fields(line) == "2 rounds no 3"), "{table}");
    }

    #[test]
    fn a_finding_is_told_with_its_point() {
        let bad = Row { point: "roll".to_owned(), findings: vec!["k1 is lost".to_owned()], ..Row::default() };
        let table = Table { rows: vec![Row::default(), bad] };
        assert!(!table.is_clean() && table.to_string().ends_with("FOUND roll (): k1 is lost\n"), "{table}");
        assert!(Table { rows: vec![Row::default()] }.is_clean());
    }
}
