//! What was done to the peers, and when: in memory to count, in a file to look at afterwards.

use keystead::clock::{Instant, SystemClock, WallClock};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
struct Noted {
    file: File,
    faults: BTreeMap<&'static str, u64>,
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
        let noted = Noted { file: File::create(path)?, faults: BTreeMap::new() };
        Ok(Timeline { begun: Instant::now(), noted: Arc::new(Mutex::new(noted)) })
    }

    /// Something happened.
    pub fn note(&self, what: impl std::fmt::Display) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        // Both clocks: this one is the operations', the wall's is that of the peers' logs.
        let wall = SystemClock.unix_ms();
        let _ = writeln!(noted.file, "{:>10.3} s, {wall} ms: {what}", self.begun.elapsed().as_secs_f64());
    }

    /// A fault begins.
    pub fn fault(&self, kind: &'static str, what: impl std::fmt::Display) {
        self.note(format_args!("{kind}: {what}"));
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner).faults.entry(kind).or_default() += 1;
    }

    /// Faults so far, by kind.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).faults.clone()
    }
}
