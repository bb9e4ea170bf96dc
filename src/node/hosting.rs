//! The replicas that this node holds: starting, finding and stopping them.

use super::changes::Changes;
use super::directory::Directory;
use super::ports::Ports;
use crate::clock::{ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::net::peer::PeerTransport;
use crate::partition::executor::{Executor, ExecutorConfig, ExecutorParts, ExecutorStats, Pacer};
use crate::partition::{Cancelled, FeedPool, Memory, ReplicaMachine, ReplicaState, TaskRunner};
use crate::raft::network::{GroupNetwork, RaftNetworkConfig, Receptions};
use crate::raft::{Confirmer, Group, GroupConfig, Leadership, LogStore};
use crate::storage::backend::{ReplicaKey, StateBackend};
use crate::storage::log::{GroupLog, SharedLog};
use crate::types::{GroupId, ReplicaId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// A replica that this node holds.
pub struct Hosted {
    /// Its group.
    pub group: Arc<Group>,
    /// Its state.
    pub state: Arc<ReplicaState>,
    /// Its executor.
    pub executor: Executor,
}

impl Hosted {
    /// Who leads, as this replica knows.
    pub fn leadership(&self) -> Leadership {
        *self.group.leadership().borrow()
    }
}

/// What replicas are made of.
pub struct HostingParts {
    /// The node's ports.
    pub ports: Ports,
    /// What the node knows of the grid.
    pub directory: Arc<Directory>,
    /// The node's data directory, for messages.
    pub data: PathBuf,
    /// The node's log.
    pub log: SharedLog,
    /// The node's state backend.
    pub backend: Arc<dyn StateBackend>,
    /// The account of the RAM that all replicas take.
    pub memory: Arc<Memory>,
    /// Connections to the other peers.
    pub transport: Arc<PeerTransport>,
    /// Snapshots that are being received.
    pub receptions: Receptions,
    /// Runs user code.
    pub tasks: Arc<dyn TaskRunner>,
    /// Timing of the groups.
    pub group_config: GroupConfig,
    /// Bounds of the groups' messages.
    pub network_config: RaftNetworkConfig,
    /// Bounds of the executors.
    pub executor_config: ExecutorConfig,
    /// The history of changes that the replicas keep.
    pub feeds: Arc<FeedPool>,
    /// Starts and stops at the same time, at most.
    pub changes_at_once: usize,
}

/// The replicas that this node holds.
pub struct Hosting {
    /// What they are made of.
    pub parts: HostingParts,
    /// Counts of all executors together.
    pub stats: Arc<ExecutorStats>,
    /// Tasks that somebody has cancelled.
    pub cancelled: Arc<Cancelled>,
    confirmer: Arc<Confirmer>,
    pacer: Arc<Pacer>,
    hosted: RwLock<BTreeMap<GroupId, Arc<Hosted>>>,
    changes: Changes,
    /// The backend may still have the state of a replica that was given up.
    untidy: AtomicBool,
}

impl Hosting {
    /// Holds nothing yet.
    pub fn new(parts: HostingParts) -> Self {
        let confirmer = Arc::new(Confirmer::new(parts.transport.clone()));
        let pacer = Pacer::new(&parts.executor_config);
        let changes = Changes::new(parts.changes_at_once);
        Hosting {
            parts,
            stats: Arc::default(),
            cancelled: Arc::default(),
            confirmer,
            pacer,
            hosted: RwLock::default(),
            changes,
            // A crash may have come between a tombstone and the removal.
            untidy: AtomicBool::new(true),
        }
    }

    /// Starts and stops at the same time, at most.
    pub fn changes_at_once(&self) -> usize {
        self.changes.at_once()
    }

    /// The replica of a group, if this node holds one.
    pub fn get(&self, group: GroupId) -> Option<Arc<Hosted>> {
        self.hosted.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    /// All replicas, by group.
    pub fn all(&self) -> Vec<(GroupId, Arc<Hosted>)> {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        hosted.iter().map(|(group, hosted)| (*group, hosted.clone())).collect()
    }

    /// Starts a replica unless it runs. One of the same group under another id is stopped and
    /// given up for ever.
    ///
    /// # Errors
    /// `InvalidRequest` for an id that was given up, `CorruptLog` for a damaged one; `ShuttingDown`;
    /// the disk's.
    pub async fn ensure(&self, group: GroupId, replica: ReplicaId) -> Result<Arc<Hosted>> {
        let _change = self.changes.begin(group).await?;
        if let Some(hosted) = self.get(group) {
            if hosted.group.replica() == replica {
                return Ok(hosted);
            }
            if hosted.group.replica() > replica {
                return Err(Error::new(Code::InvalidRequest, "a newer replica of the group runs here"));
            }
            let old = hosted.group.replica();
            self.stop(group).await;
            self.give_up(group, old).await?;
        }
        let hosted = Arc::new(self.start(group, replica).await?);
        self.hosted.write().unwrap_or_else(PoisonError::into_inner).insert(group, hosted.clone());
        Ok(hosted)
    }

    async fn start(&self, group: GroupId, replica: ReplicaId) -> Result<Hosted> {
        let parts = &self.parts;
        let log = parts.log.register(group, replica).await?;
        let (key, backend, memory) = (ReplicaKey { group, replica }, parts.backend.clone(), parts.memory.clone());
        let threads = parts.ports.threads.clone();
        let load = move || ReplicaState::load(key, backend, threads, memory);
        let state = run_on(&parts.ports.threads, ThreadKind::Backend, load).await??;
        check_whole(&log, &state)?;
        if group != GroupId::META {
            state.keep_feed(parts.feeds.feed());
        }
        let network = GroupNetwork::new(
            group,
            replica,
            parts.transport.clone(),
            parts.ports.threads.clone(),
            parts.network_config.clone(),
        );
        let machine = Arc::new(ReplicaMachine(state.clone()));
        let started = Group::start(group, replica, &parts.group_config, LogStore::new(log), network, machine).await?;
        let executor = Executor::start(ExecutorParts {
            group: started.clone(),
            confirmer: self.confirmer.clone(),
            // The grid's own facts wait for nobody's data.
            pacer: if group == GroupId::META { Pacer::new(&parts.executor_config) } else { self.pacer.clone() },
            replica: state.clone(),
            maps: parts.directory.clone(),
            tasks: parts.tasks.clone(),
            cancelled: self.cancelled.clone(),
            clock: parts.ports.clock.clone(),
            random: parts.ports.random.clone(),
            node: parts.directory.me(),
            config: parts.executor_config.clone(),
            stats: self.stats.clone(),
        });
        Ok(Hosted { group: started, state, executor })
    }

    /// Starts a replica again whose group has stopped by itself, after the disk was full, say.
    ///
    /// # Errors
    /// As [`Hosting::ensure`].
    pub async fn restart(&self, group: GroupId) -> Result<()> {
        let _change = self.changes.begin(group).await?;
        let Some(hosted) = self.get(group).filter(|hosted| hosted.group.has_stopped()) else { return Ok(()) };
        let replica = hosted.group.replica();
        self.stop(group).await;
        let hosted = Arc::new(self.start(group, replica).await?);
        self.hosted.write().unwrap_or_else(PoisonError::into_inner).insert(group, hosted);
        Ok(())
    }

    async fn stop(&self, group: GroupId) {
        let hosted = self.hosted.write().unwrap_or_else(PoisonError::into_inner).remove(&group);
        if let Some(hosted) = hosted {
            hosted.executor.stop();
            hosted.group.shutdown().await;
            hosted.state.close().await;
        }
        self.parts.receptions.forget(group);
    }

    /// Stops a replica that its group does not name any more, if it runs, and gives its id up.
    ///
    /// # Errors
    /// The disk's.
    pub async fn retire(&self, group: GroupId, replica: ReplicaId) -> Result<()> {
        let _change = self.changes.begin(group).await?;
        if self.get(group).is_some_and(|hosted| hosted.group.replica() == replica) {
            self.stop(group).await;
        }
        self.give_up(group, replica).await
    }

    /// Gives a replica's id up for ever: its log and state are dropped, its tombstone stays.
    ///
    /// # Errors
    /// The disk's.
    pub async fn give_up(&self, group: GroupId, replica: ReplicaId) -> Result<()> {
        failpoint::reach("replica-before-tombstone");
        self.parts.log.tombstone(group, replica).await?;
        failpoint::reach("replica-before-remove");
        let (key, backend) = (ReplicaKey { group, replica }, self.parts.backend.clone());
        let removed = run_on(&self.parts.ports.threads, ThreadKind::Backend, move || backend.remove(key)).await;
        failpoint::reach("replica-after-remove");
        removed.and_then(|removed| removed).inspect_err(|_| self.untidy.store(true, Relaxed))
    }

    /// Removes what the backend still has of replicas that were given up: those with a tombstone, and
    /// no others. What the log does not know at all may be all that is left of it.
    ///
    /// # Errors
    /// The disk's.
    pub async fn remove_leftovers(&self) -> Result<()> {
        if !self.untidy.swap(false, Relaxed) {
            return Ok(());
        }
        let (backend, given_up) = (self.parts.backend.clone(), self.parts.log.tombstones());
        let work = move || {
            let is_left = |key: &ReplicaKey| given_up.binary_search(&(key.group, key.replica)).is_ok();
            for key in backend.replicas()?.into_iter().filter(is_left) {
                backend.remove(key)?;
                tracing::info!(%key, "what was left of a replica that was given up is removed");
            }
            Ok(())
        };
        let removed = run_on(&self.parts.ports.threads, ThreadKind::Backend, work).await;
        removed.and_then(|removed| removed).inspect_err(|_| self.untidy.store(true, Relaxed))
    }

    /// Waits for starts and stops under way, and stops all replicas for good; logs and states stay.
    pub async fn stop_all(&self) {
        self.changes.end().await;
        for (group, _) in self.all() {
            self.stop(group).await;
        }
    }
}

/// The log forgets only what a checkpoint has made durable: a state that is older than what the
/// log still has was lost.
fn check_whole(log: &GroupLog, state: &ReplicaState) -> Result<()> {
    let Some((forgotten, _)) = log.extent().purged else { return Ok(()) };
    let applied = state.checkpoint_index().unwrap_or(0);
    if state.checkpoint_index().is_some_and(|index| forgotten <= index) {
        return Ok(());
    }
    let what = format!("the replica's state ends at {applied}, its log begins after {forgotten}: the state was lost");
    Err(Error::new(Code::CorruptLog, what))
}
