//! A disk that forgets at a crash whatever was not synced.
//!
//! In: the calls of `keystead::storage::disk::Disk` through a [`Mount`], faults and crashes
//! through [`SimDisk`]. Out: what a machine's disk would answer, and after [`SimDisk::crash`] one
//! of the states that a real one could be left in: of each file some unsynced writes, of each
//! directory a prefix of its unsynced changes. The seed decides which. It never blocks and never
//! takes simulated time.

pub(crate) mod database;
mod files;
mod mount;
mod names;
pub mod suite;

#[cfg(test)]
mod tests;

pub use mount::Mount;

use crate::dice::Dice;
use database::Database;
use files::Files;
use names::Names;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the disk was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Calls that change something: writes, cuts, syncs, creations, renames, removals.
    pub changes: u64,
    /// Syncs of a file.
    pub file_syncs: u64,
    /// Syncs of a directory.
    pub dir_syncs: u64,
    /// Writes to files.
    pub writes: u64,
    /// Crashes so far.
    pub crashes: u64,
}

/// Faults that wait for their moment.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// This sync of a file fails, counted from the disk's first.
    fail_sync: Option<u64>,
    /// The power goes at this change, counted from the disk's first.
    power_off: Option<u64>,
    /// This write to a file fails, counted from the disk's first.
    fail_write: Option<u64>,
    /// Bytes that fit on the disk.
    capacity: Option<u64>,
    /// How long each write of the log is put off.
    lag: Duration,
    /// Syncs of files are acknowledged and not done.
    lying: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    dice: Dice,
    files: Files,
    names: Names,
    database: Database,
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    counts: DiskCounts,
    /// When a file was written to last.
    last_write: Duration,
    /// Calls of earlier mounts fail.
    generation: u64,
    /// Since the power went every call fails.
    off: bool,
    /// The power went at a change, and the machine has not been crashed since.
    power_lost: bool,
    /// A write or a sync has failed in this life.
    failed: bool,
    /// Bytes were damaged since the disk was new.
    damaged: bool,
    /// How often it was replaced by an empty one.
    replaced: u32,
}

/// One machine's disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk. Only its root directory exists, and durably.
    pub fn new(dice: Dice) -> Self {
        let state = State {
            dice,
            files: Files::default(),
            names: Names::default(),
            database: Database::default(),
            locks: BTreeSet::new(),
            faults: Faults::default(),
            counts: DiskCounts::default(),
            last_write: Duration::ZERO,
            generation: 0,
            off: false,
            power_lost: false,
            failed: false,
            damaged: false,
            replaced: 0,
        };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches the disk on, for one life of a process: after the next crash this mount is dead.
    pub fn mount(&self) -> Mount {
        let mut state = self.state();
        state.off = false;
        Mount::new(self.clone(), state.generation)
    }

    /// Power loss: forgets what was not synced, as the seed decides; kills mounts and locks.
    pub fn crash(&self) {
        let state = &mut *self.state();
        state.files.crash(&mut state.dice);
        state.names.crash(&mut state.dice);
        state.database.crash(&mut state.dice);
        state.forget_orphans();
        state.end_life();
    }

    /// Power loss with the worst outcome: nothing that was not synced is left.
    pub fn crash_hard(&self) {
        let state = &mut *self.state();
        state.files.forget_unsynced();
        state.names.forget_unsynced();
        state.database.forget_unflushed();
        state.forget_orphans();
        state.end_life();
    }

    /// The process dies, the machine goes on: no file loses anything, but mounts and locks are
    /// dead, and so is what a database kept in the process's memory.
    pub fn kill(&self) {
        let state = &mut *self.state();
        state.database.crash(&mut state.dice);
        state.end_life();
    }

    /// The power goes at the n-th change from now, in the middle of it.
    pub fn power_off_after(&self, changes: u64) {
        let mut state = self.state();
        state.faults.power_off = Some(state.counts.changes + changes.max(1));
    }

    /// Whether the power went at a change; the simulation must then crash the machine.
    pub fn has_lost_power(&self) -> bool {
        self.state().power_lost
    }

    /// The n-th sync of a file from now fails, and what it covered will never be durable.
    pub fn fail_sync_after(&self, syncs: u64) {
        let mut state = self.state();
        state.faults.fail_sync = Some(state.counts.file_syncs + syncs.max(1));
    }

    /// Whether it acknowledges syncs of files without doing them. No software survives such a
    /// disk's crashes: it is there to see that the checks notice.
    pub fn set_lying(&self, lying: bool) {
        self.state().faults.lying = lying;
    }

    /// Limits what fits; `None` for no limit. What is there already stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().faults.capacity = bytes;
    }

    /// Forgets faults that have not struck; a lying disk stays one.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.faults = Faults { lying: state.faults.lying, ..Faults::default() };
    }

    /// The n-th write to a file from now fails; a part of it may have been written.
    pub fn fail_write_after(&self, writes: u64) {
        let mut state = self.state();
        state.faults.fail_write = Some(state.counts.writes + writes.max(1));
    }

    /// No write or sync fails any more that has not failed yet.
    pub fn clear_errors(&self) {
        let mut state = self.state();
        state.faults.fail_write = None;
        state.faults.fail_sync = None;
    }

    /// Puts each write of the log off by so long.
    pub fn set_lag(&self, lag: Duration) {
        self.state().faults.lag = lag;
    }

    /// The disk is replaced by an empty one. The machine must be down.
    pub fn replace(&self) {
        let state = &mut *self.state();
        state.files = Files::default();
        state.names = Names::default();
        state.database = Database::default();
        state.damaged = false;
        state.replaced += 1;
        state.faults = Faults { lying: state.faults.lying, ..Faults::default() };
        state.end_life();
    }

    /// How often it was replaced.
    pub fn replaced(&self) -> u32 {
        self.state().replaced
    }

    /// Whether bytes of it were damaged.
    pub fn is_damaged(&self) -> bool {
        self.state().damaged
    }

    /// Whether a write or a sync has failed in this life.
    pub fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// Whether only so many bytes fit on it.
    pub fn has_limit(&self) -> bool {
        self.state().faults.capacity.is_some()
    }

    /// Where a file's durable bytes end, zeros behind them left out.
    ///
    /// # Errors
    /// `NotFound` without such a file.
    pub fn written_end(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.files.written_end(state.names.file(path)?)
    }

    /// Damages one durable byte of a file.
    ///
    /// # Errors
    /// `NotFound` without such a file or byte.
    pub fn rot(&self, path: &Path, offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let file = state.names.file(path)?;
        state.files.rot(file, offset)?;
        state.damaged = true;
        Ok(())
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.paths()
    }

    /// When a file was written to last, in simulated time.
    pub fn last_write(&self) -> Duration {
        self.state().last_write
    }

    /// How often it was asked.
    pub fn counts(&self) -> DiskCounts {
        self.state().counts
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.state().files.used()
    }
}

impl State {
    fn end_life(&mut self) {
        self.generation += 1;
        self.counts.crashes += 1;
        self.locks.clear();
        self.off = true;
        self.power_lost = false;
        self.failed = false;
        self.faults.power_off = None;
        self.faults.fail_sync = None;
        self.faults.fail_write = None;
    }

    fn forget_orphans(&mut self) {
        let named = self.names.files();
        self.files.retain(&named);
    }

    /// Fails unless the mount is alive and the power on.
    fn alive(&self, generation: u64) -> io::Result<()> {
        if generation != self.generation {
            return Err(io::Error::other("the process that had this mount is gone"));
        }
        if self.off {
            return Err(io::Error::other("the disk has no power"));
        }
        Ok(())
    }

    /// Counts a change; true when the power goes at this one.
    fn change(&mut self, generation: u64) -> io::Result<bool> {
        self.alive(generation)?;
        self.counts.changes += 1;
        if self.faults.power_off.is_some_and(|at| self.counts.changes >= at) {
            self.off = true;
            self.power_lost = true;
            self.faults.power_off = None;
            return Ok(true);
        }
        Ok(false)
    }

    /// Counts a change that either happens or, when the power goes, does not.
    fn change_or_off(&mut self, generation: u64) -> io::Result<()> {
        if self.change(generation)? {
            return Err(io::Error::other("the disk has no power"));
        }
        Ok(())
    }
}
