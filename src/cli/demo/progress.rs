//! One line on standard error that shows how far the demo is: redrawn on a terminal, else a line
//! for every tenth.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

/// Shortest time between two redraws.
const REDRAW: Duration = Duration::from_millis(200);

/// How far the demo is.
pub(super) struct Progress {
    total: usize,
    redraws: bool,
    drawn_at: Duration,
    tenths: usize,
}

impl Progress {
    /// Nothing of so many events is done.
    pub(super) fn new(total: usize) -> Self {
        Progress { total, redraws: stderr().is_terminal(), drawn_at: Duration::ZERO, tenths: 0 }
    }

    /// So many are done after that time.
    pub(super) fn show(&mut self, done: usize, after: Duration) {
        if let Some(line) = self.line(done, after) {
            let (begin, end) = if self.redraws { ("\r\x1b[K", "") } else { ("", "\n") };
            // Progress is a courtesy: if nobody can see it the demo goes on.
            drop(write!(stderr(), "{begin}{line}{end}"));
            drop(stderr().flush());
        }
    }

    /// Clears the line.
    pub(super) fn finish(&self) {
        if self.redraws {
            drop(write!(stderr(), "\r\x1b[K"));
        }
    }

    fn line(&mut self, done: usize, after: Duration) -> Option<String> {
        let tenths = done * 10 / self.total.max(1);
        let is_due = if self.redraws {
            done == self.total || after.saturating_sub(self.drawn_at) >= REDRAW
        } else {
            tenths > self.tenths
        };
        if !is_due {
            return None;
        }
        (self.drawn_at, self.tenths) = (after, tenths);
        let percent = done * 100 / self.total.max(1);
        Some(format!("{percent:>3} %  {done} of {} events answered after {:.1} s", self.total, after.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_there_is_a_line_for_every_tenth() {
        let mut progress = Progress { total: 1000, redraws: false, drawn_at: Duration::ZERO, tenths: 0 };
        let lines: Vec<String> =
            (1..=1000).filter_map(|done| progress.line(done, Duration::from_millis(done as u64))).collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[3], " 40 %  400 of 1000 events answered after 0.4 s");
    }

    #[test]
    fn on_a_terminal_it_is_redrawn_by_time() {
        let mut progress = Progress { total: 1000, redraws: true, drawn_at: Duration::ZERO, tenths: 0 };
        let lines: Vec<String> =
            (1..=1000).filter_map(|done| progress.line(done, Duration::from_millis(done as u64))).collect();
        assert_eq!(lines.len(), 5);
    }
}
