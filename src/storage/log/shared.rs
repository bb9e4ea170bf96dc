//! What handles and the log thread share, and [`SharedLog`], the handle of the whole log.

use super::config::LogConfig;
use super::group::{GroupCell, GroupLog, place};
use super::queue::{Op, Queue, Room};
use super::segment::Files;
use super::{LogHealth, LogStats, Recovery, ReplicaKey, open};
use crate::clock::Threads;
use crate::error::{Code, Error, Result};
use crate::storage::disk::Disk;
use crate::types::{GroupId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Which replicas there are.
#[derive(Default)]
pub(super) struct Roster {
    pub(super) cells: BTreeMap<ReplicaKey, Arc<GroupCell>>,
    pub(super) damaged: BTreeSet<ReplicaKey>,
    pub(super) tombstones: BTreeSet<ReplicaKey>,
    /// Replicas in the oldest segment, while the files are near their bound.
    pub(super) pinning: Vec<ReplicaKey>,
}

/// Shared by handles and the log thread.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) files: Arc<Files>,
    pub(super) threads: Arc<dyn Threads>,
    pub(super) health: watch::Sender<LogHealth>,
    pub(super) stopped: watch::Sender<bool>,
    roster: Mutex<Roster>,
    stats: Mutex<LogStats>,
}

impl Shared {
    pub(super) fn new(queue: Queue, files: Arc<Files>, threads: Arc<dyn Threads>, roster: Roster) -> Shared {
        let (health, stopped) = (watch::Sender::new(LogHealth::Ok), watch::Sender::new(false));
        Shared { queue, files, threads, health, stopped, roster: Mutex::new(roster), stats: Mutex::default() }
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, LogStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the log takes nothing any more.
    pub(super) fn end_error(&self) -> Error {
        match &*self.health.borrow() {
            LogHealth::Failed(error) => error.clone(),
            _ => Error::new(Code::ShuttingDown, "the log is closed"),
        }
    }

    pub(super) async fn reserve(&self, bytes: usize) -> Result<Room> {
        self.queue.reserve(bytes).await.ok_or_else(|| self.end_error())
    }

    pub(super) fn push(&self, op: Op, room: Room) -> Result<()> {
        if self.queue.push(op, room) { Ok(()) } else { Err(self.end_error()) }
    }

    /// Waits for a request's result.
    pub(super) async fn settled(&self, receiver: oneshot::Receiver<io::Result<()>>) -> Result<()> {
        match receiver.await {
            Ok(result) => result.map_err(|error| from_io(&error)),
            Err(_) => Err(self.end_error()),
        }
    }
}

/// The error inside an I/O error that came from the log.
pub(super) fn from_io(error: &io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.cloned().unwrap_or_else(|| Error::new(Code::DiskFailed, error.to_string()))
}

/// An error as an I/O error, from which [`from_io`] gets it back.
pub(super) fn to_io(error: &Error) -> io::Error {
    let kind = if error.code == Code::DiskFull { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error.clone())
}

/// Closes the log when the last handle is dropped.
pub(super) struct Handle(Arc<Shared>);

impl Handle {
    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// The node's log, shared by all groups. A cheap handle; when the last handle of any kind is
/// dropped, the log writes what waits and ends.
#[derive(Clone)]
pub struct SharedLog(Arc<Handle>);

impl SharedLog {
    /// Opens the log in a directory that this process holds locked; creates it if there is none.
    /// Blocks while it reads. With inline threads it must be called within the node's runtime.
    ///
    /// If [`Recovery::votes_lost`] is set, nothing was changed on disk, the log takes nothing, and
    /// the node must not start.
    ///
    /// # Errors
    /// `UnknownFormat`, `DiskFull`, `DiskFailed`, `InvalidConfig`.
    pub fn open(
        disk: Arc<dyn Disk>,
        threads: Arc<dyn Threads>,
        dir: &Path,
        config: LogConfig,
    ) -> Result<(SharedLog, Recovery)> {
        let (shared, recovery) = open::open(disk, threads, dir, config)?;
        Ok((SharedLog(Arc::new(Handle(shared))), recovery))
    }

    fn shared(&self) -> &Shared {
        self.0.shared()
    }

    async fn ask(&self, op: impl FnOnce(super::queue::Done) -> Op) -> Result<()> {
        let room = self.shared().reserve(0).await?;
        let (sender, receiver) = oneshot::channel();
        self.shared().push(op(Box::new(move |result| drop(sender.send(result)))), room)?;
        self.shared().settled(receiver).await
    }

    /// Makes a replica known, durably, before it does anything. Once more does no harm.
    ///
    /// # Errors
    /// `InvalidRequest` for an id that was given up; the disk's errors.
    pub async fn register(&self, group: GroupId, replica: ReplicaId) -> Result<GroupLog> {
        self.ask(|done| Op::Register { key: (group, replica), done }).await?;
        self.group(group, replica)
    }

    /// Gives a replica's id up for ever, durably, and drops what it holds. Once more does no harm.
    ///
    /// # Errors
    /// The disk's errors.
    pub async fn tombstone(&self, group: GroupId, replica: ReplicaId) -> Result<()> {
        self.ask(|done| Op::Tombstone { key: (group, replica), done }).await
    }

    /// The log of a replica that is registered.
    ///
    /// # Errors
    /// `CorruptLog` for a damaged replica; `InvalidRequest` for one that was given up or never known.
    pub fn group(&self, group: GroupId, replica: ReplicaId) -> Result<GroupLog> {
        let key = (group, replica);
        let roster = self.shared().roster();
        if roster.damaged.contains(&key) {
            return Err(Error::new(Code::CorruptLog, "the replica's log is damaged").at(place(key)));
        }
        let cell = roster.cells.get(&key).cloned();
        let cell = cell.ok_or_else(|| {
            Error::new(Code::InvalidRequest, "the log has no such replica")
                .at(place(key))
                .remedy("register it under a new id")
        })?;
        Ok(GroupLog::new(cell, self.0.clone()))
    }

    /// The replicas that are registered and sound.
    pub fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        self.shared().roster().cells.keys().copied().collect()
    }

    /// The ids that were given up.
    pub fn tombstones(&self) -> Vec<(GroupId, ReplicaId)> {
        self.shared().roster().tombstones.iter().copied().collect()
    }

    /// The replicas whose entries keep the oldest segment while the files are near their bound:
    /// to be checkpointed and purged, before the log moves their entries itself.
    pub fn pinning(&self) -> Vec<(GroupId, ReplicaId)> {
        self.shared().roster().pinning.clone()
    }

    /// How the log is. After `Failed` the process must end.
    pub fn health(&self) -> watch::Receiver<LogHealth> {
        self.shared().health.subscribe()
    }

    /// Whether nothing more can be written for want of room.
    pub fn is_full(&self) -> bool {
        *self.shared().health.borrow() == LogHealth::DiskFull
    }

    /// Counters and sizes.
    pub fn stats(&self) -> LogStats {
        self.shared().stats().clone()
    }

    /// Writes what waits, seals, and ends. Later requests fail with `ShuttingDown`.
    pub async fn shutdown(&self) {
        self.shared().queue.close();
        let mut stopped = self.shared().stopped.subscribe();
        // The sender lives as long as this handle, so that the wait cannot fail.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}
