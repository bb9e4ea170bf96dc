//! What was done to the peers, and when: in memory to count, in a file to look at afterwards.

use keystead::clock::{Instant, SystemClock, WallClock};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Noted {
    file: File,
    faults: BTreeMap<&'static str, u64>,
    spared: BTreeMap<&'static str, u64>,
}

/// The log of a run. Clones write the same.
#[derive(Clone, Debug)]
pub struct Timeline {
    begun: Instant,
    noted: Arc<Mutex<Noted>>,
}

impl Timeline {
    /// Begins now.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(path: &Path) -> std::io::Result<Timeline> {
        let noted = Noted { file: File::create(path)?, faults: BTreeMap::new(), spared: BTreeMap::new() };
        Ok(Timeline { begun: Instant::now(), noted: Arc::new(Mutex::new(noted)) })
    }

    /// Something happened.
    pub fn note(&self, what: impl std::fmt::Display) {
        let mut noted = self.noted();
        // Both clocks: this one is the operations', the wall's is that of the peers' logs.
        let wall = SystemClock.unix_ms();
        let _ = writeln!(noted.file, "{:>10.3} s, {wall} ms: {what}", self.begun.elapsed().as_secs_f64());
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault has struck.
    pub fn fault(&self, kind: &'static str, what: impl std::fmt::Display) {
        self.came_of(kind, true, what);
    }

    /// A fault was meant, and either struck or spared those whom it was meant for: they did not run any
    /// more, say, or nothing came to the link that was cut.
    pub fn came_of(&self, kind: &'static str, struck: bool, what: impl std::fmt::Display) {
        self.note(format_args!("{kind}{}: {what}", if struck { "" } else { " spared" }));
        let mut noted = self.noted();
        let counts = if struck { &mut noted.faults } else { &mut noted.spared };
        *counts.entry(kind).or_default() += 1;
    }

    /// Faults that struck so far, by kind.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.noted().faults.clone()
    }

    /// Faults that spared those whom they were meant for, by kind.
    pub fn spared(&self) -> BTreeMap<&'static str, u64> {
        self.noted().spared.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_struck_counts_as_a_fault() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("timeline.txt");
        let timeline = Timeline::new(&path).expect("a file");
        timeline.fault("join", "n5");
        timeline.came_of("kill", true, "n1");
        timeline.came_of("kill", false, "n1 n2");
        assert_eq!(timeline.faults(), BTreeMap::from([("join", 1), ("kill", 1)]));
        assert_eq!(timeline.spared(), BTreeMap::from([("kill", 1)]));
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(text.contains("kill: n1\n") && text.contains("kill spared: n1 n2\n"), "{text}");
    }
}
