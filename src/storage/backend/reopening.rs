//! A backend that is opened again after it has failed. sled keeps the first error of its disk for
//! ever: after a full disk it would refuse everything, room or no room, until the process ends.
//!
//! In: how to open the backend. Out: the same backend; after an error of the disk the next call
//! opens it anew first. What it held is then what was durable, and the replica gives
//! again what the failed checkpoint was given. Never hides an error, never repeats a write itself.

use super::{ReplicaKey, Rows, StateBackend};
use crate::error::{Code, Error, Result};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Opens the backend; blocks.
type Open = Box<dyn Fn() -> Result<Box<dyn StateBackend>> + Send + Sync>;

/// A backend that is opened again after it has failed.
pub struct ReopeningBackend {
    open: Open,
    name: &'static str,
    takes_changes: bool,
    serves_rows: bool,
    /// `None` after it could not be opened again.
    inner: RwLock<Option<Box<dyn StateBackend>>>,
    failed: AtomicBool,
}

impl ReopeningBackend {
    /// Opens it for the first time.
    ///
    /// # Errors
    /// What opening it says.
    pub fn open(open: impl Fn() -> Result<Box<dyn StateBackend>> + Send + Sync + 'static) -> Result<Self> {
        let inner = open()?;
        let (name, takes_changes, serves_rows) = (inner.name(), inner.takes_changes(), inner.serves_rows());
        let (inner, failed) = (RwLock::new(Some(inner)), AtomicBool::new(false));
        Ok(ReopeningBackend { open: Box::new(open), name, takes_changes, serves_rows, inner, failed })
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Box<dyn StateBackend>>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the backend, and notes if its disk has failed.
    fn ask<T>(&self, question: impl FnOnce(&dyn StateBackend) -> Result<T>) -> Result<T> {
        let inner = self.read();
        let closed = || Error::new(Code::DiskFailed, format!("the {} database could not be opened again", self.name));
        let answer = question(inner.as_deref().ok_or_else(closed)?);
        if answer.as_ref().is_err_and(|error| matches!(error.code, Code::DiskFull | Code::DiskFailed)) {
            self.failed.store(true, Ordering::SeqCst);
        }
        answer
    }

    /// Opens it again if it has failed.
    fn recover(&self) -> Result<()> {
        if !self.failed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if !self.failed.load(Ordering::SeqCst) {
            return Ok(());
        }
        // Its lock is given back only when the last handle is gone.
        *inner = None;
        *inner = Some((self.open)()?);
        self.failed.store(false, Ordering::SeqCst);
        tracing::info!(backend = self.name, "the state's database was opened again");
        Ok(())
    }
}

impl StateBackend for ReopeningBackend {
    fn name(&self) -> &'static str {
        self.name
    }

    fn takes_changes(&self) -> bool {
        self.takes_changes
    }

    fn serves_rows(&self) -> bool {
        self.serves_rows
    }

    fn get_many(&self, key: ReplicaKey, rows: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        self.recover()?;
        self.ask(|inner| inner.get_many(key, rows))
    }

    fn load(&self, key: ReplicaKey, visit: &mut dyn FnMut(Bytes, Bytes)) -> Result<Option<Bytes>> {
        self.recover()?;
        self.ask(|inner| inner.load(key, visit))
    }

    fn ahead(&self, key: ReplicaKey) -> Result<Option<Bytes>> {
        self.ask(|inner| inner.ahead(key))
    }

    fn checkpoint(&self, key: ReplicaKey, rows: Rows<'_>, meta: &mut dyn FnMut() -> Bytes) -> Result<()> {
        self.recover()?;
        self.ask(|inner| inner.checkpoint(key, rows, meta))
    }

    fn remove(&self, key: ReplicaKey) -> Result<()> {
        self.recover()?;
        self.ask(|inner| inner.remove(key))
    }

    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        self.ask(|inner| inner.replicas())
    }
}
