//! Writes what the grid answered: a line for each event, in the input's order.

use super::drive::Outcome;
use super::event::Event;
use crate::error::{Code, Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The first line.
const HEADER: &str = "row,customer,total_pence";

/// A file that can be written, found out before anything is started.
pub(super) struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Opens the file, or creates it; what is in it stays until there are answers.
    ///
    /// # Errors
    /// `InvalidConfig` when it cannot be written, or is the input.
    pub(super) fn open(path: &Path, input: Option<&Path>) -> Result<Output> {
        let opened = File::options().write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|error| cannot(path, &error.to_string()))?;
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        if input.is_some_and(|input| real(input).is_some() && real(input) == real(path)) {
            return Err(cannot(path, "it is the input"));
        }
        Ok(Output { path: path.to_owned(), file })
    }

    /// Replaces what is in the file by the header and a line for each event that was answered.
    ///
    /// # Errors
    /// `InvalidConfig` when the disk refuses.
    pub(super) fn write(self, events: &[Event], outcomes: &[Option<Outcome>]) -> Result<()> {
        let written = self.file.set_len(0).and_then(|()| lines(BufWriter::new(self.file), events, outcomes));
        written.map_err(|error| cannot(&self.path, &error.to_string()))
    }
}

fn cannot(path: &Path, why: &str) -> Error {
    Error::new(Code::InvalidConfig, format!("the output cannot be written: {why}"))
        .at(format!("option output, {}", path.display()))
        .remedy("name another file")
}

fn lines(mut out: impl Write, events: &[Event], outcomes: &[Option<Outcome>]) -> std::io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for (event, outcome) in events.iter().zip(outcomes) {
        if let Some(Outcome { total: Ok(total), .. }) = outcome {
            writeln!(out, "{},{},{total}", event.row, event.customer)?;
        }
    }
    out.flush()
}

/// The lines as bytes; for tests.
#[cfg(test)]
pub(super) fn to_bytes(events: &[Event], totals: &[i64]) -> Vec<u8> {
    use std::time::Duration;
    let outcome =
        |total: &i64| Some(Outcome { sent: Duration::ZERO, answered: Duration::ZERO, total: Ok(*total), by: None });
    let outcomes: Vec<Option<Outcome>> = totals.iter().map(outcome).collect();
    let mut out = Vec::new();
    lines(&mut out, events, &outcomes).expect("a vector takes everything");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_answer() {
        let event = |row, customer: &str| Event { row, customer: customer.to_owned(), time_s: 0, pence: 0 };
        let bytes = to_bytes(&[event(1, "13047"), event(3, "9")], &[1485, -20]);
        assert_eq!(String::from_utf8_lossy(&bytes), "row,customer,total_pence\n1,13047,1485\n3,9,-20\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_at_once() {
        let error = Output::open(Path::new("/no/such/place.csv"), None).err().expect("no such place");
        assert!(error.place.contains("/no/such/place.csv"), "{error}");
        assert_eq!(error.code.exit_status(), 2);
    }

    #[test]
    fn an_old_file_stays_until_there_are_answers_and_the_input_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("totals.csv");
        std::fs::write(&path, "old, and longer than what comes").expect("writes");
        let output = Output::open(&path, None).expect("opens");
        assert!(std::fs::read_to_string(&path).expect("reads").starts_with("old"));
        output.write(&[], &[]).expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), format!("{HEADER}\n"));
        let error = Output::open(&path, Some(&path)).err().expect("is the input");
        assert!(error.what.contains("the input"), "{error}");
    }
}
