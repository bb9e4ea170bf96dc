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
    /// Creates or empties the file.
    ///
    /// # Errors
    /// `InvalidRequest` when it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Output> {
        let file = File::create(path).map_err(|error| cannot(path, &error))?;
        Ok(Output { path: path.to_owned(), file })
    }

    /// Writes the header and a line for each event that was answered.
    ///
    /// # Errors
    /// `InvalidRequest` when the disk refuses.
    pub(super) fn write(self, events: &[Event], outcomes: &[Option<Outcome>]) -> Result<()> {
        lines(BufWriter::new(self.file), events, outcomes).map_err(|error| cannot(&self.path, &error))
    }
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::InvalidRequest, format!("the output cannot be written: {error}"))
        .at(path.display().to_string())
        .remedy("name a file that can be written")
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
        let error = Output::create(Path::new("/no/such/place.csv")).err().expect("no such place");
        assert_eq!(error.place, "/no/such/place.csv");
    }
}
