//! A peer: built from its ports, supervised, shut down in order.

use super::cancelling::Canceller;
use super::clock_watch::ClockWatch;
use super::copying::Copying;
use super::directory::Directory;
use super::facts::Facts;
use super::founding::{Founding, FoundingSettings};
use super::hosting::{Hosting, HostingParts};
use super::housekeeping::{Housekeeper, HousekeepingConfig};
use super::jobs::Jobs;
use super::mapping::Mapper;
use super::memory_keeper::MemoryKeeper;
use super::movement::{Movement, MovementStats};
use super::opening::{listen, open_backend, open_identity, open_log, open_spool, prepare_dir};
use super::peer_calls::PeerCalls;
use super::ports::Ports;
use super::router::Router;
use super::settings::NodeSettings;
use super::status::Status;
use super::watching::Watching;
use crate::clock::{self, ThreadKind, run_on};
use crate::compute::Registry;
use crate::error::{Error, Result};
use crate::net::Listener;
use crate::net::grpc::{self, Routes};
use crate::net::peer::PeerTransport;
use crate::partition::{FeedPool, Memory, TaskRunner};
use crate::raft::network::Receptions;
use crate::storage::disk::DirLock;
use crate::storage::log::{Recovery, SharedLog};
use crate::types::{GroupId, NodeId, ReplicaId};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long leaderships may take to be handed over at a shutdown.
const HAND_OVER: Duration = Duration::from_secs(3);

/// How a peer's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It could not go on.
    Failed(Error),
}

/// A replica's id, applied index and rows.
pub type ReplicaRows = (ReplicaId, u64, Vec<(bytes::Bytes, bytes::Bytes)>);

/// A running peer.
pub struct Node {
    pub(super) directory: Arc<Directory>,
    pub(super) hosting: Arc<Hosting>,
    pub(super) router: Arc<Router>,
    pub(super) watching: Arc<Watching>,
    pub(super) copying: Arc<Copying>,
    pub(super) facts: Arc<Facts>,
    pub(super) status: Arc<Status>,
    pub(super) settings: NodeSettings,
    pub(super) founding: Arc<Founding>,
    pub(super) housekeeper: Arc<Housekeeper>,
    pub(super) clock_watch: Arc<ClockWatch>,
    pub(super) movement: Arc<Movement>,
    pub(super) canceller: Arc<Canceller>,
    pub(super) registry: Arc<Registry>,
    pub(super) mapper: Arc<Mapper>,
    pub(super) jobs: Arc<Jobs>,
    /// Itself, for what goes on after the call that began it.
    pub(super) myself: Weak<Node>,
    transport: Arc<PeerTransport>,
    pub(super) log: SharedLog,
    address: String,
    pub(super) recovery: Recovery,
    stop: CancellationToken,
    ended: watch::Sender<Option<Ended>>,
    tasks: Mutex<Vec<clock::JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn DirLock>>>,
}

impl Node {
    /// Starts a peer and serves at its address. `routes` makes the services for clients; the
    /// peers' own is added to them. Founding or joining goes on behind: see `wait_ready`.
    ///
    /// # Errors
    /// `DataDirBusy`, damage that cannot be repaired, an address that cannot be listened on.
    pub async fn start(
        settings: NodeSettings,
        ports: Ports,
        tasks: Arc<dyn TaskRunner>,
        registry: Arc<Registry>,
        routes: impl FnOnce(Arc<Node>) -> Result<Routes>,
    ) -> Result<Arc<Self>> {
        let lock = prepare_dir(&ports, &settings.data).await?;
        let (file, mut identity) = open_identity(&ports, &settings.data).await?;
        let spool = open_spool(&ports, &settings.data).await?;
        // Both read most of what a restart reads: they do it side by side.
        let opened =
            futures::future::join(open_backend(&ports, &settings.data), open_log(&ports, &settings, &identity));
        let (backend, log) = opened.await;
        let (backend, (log, recovery)) = (backend?, log?);
        if !identity.log_created {
            identity.log_created = true;
            let (file, copy) = (file.clone(), identity.clone());
            run_on(&ports.threads, ThreadKind::Backend, move || file.save(&copy)).await??;
        }
        let directory = Directory::new(&settings.name, identity);
        let (listener, address) = listen(&settings, &ports, &directory).await?;
        let greeting = directory.clone();
        let transport = PeerTransport::new(
            Arc::new(move || greeting.greeting()),
            ports.network.clone(),
            directory.clone(),
            settings.peer.clone(),
        );
        let memory = Memory::new(settings.memory);
        let hosting = Arc::new(Hosting::new(HostingParts {
            memory: memory.clone(),
            ports: ports.clone(),
            directory: directory.clone(),
            data: settings.data.clone(),
            log: log.clone(),
            backend,
            transport: transport.clone(),
            receptions: Receptions::new(settings.receptions.clone()).spooling(spool, ports.threads.clone()),
            tasks,
            group_config: settings.group.clone(),
            network_config: settings.raft_network.clone(),
            executor_config: settings.executor.clone(),
            changes_at_once: settings.starts_at_once,
            feeds: FeedPool::new(settings.watch.feed_limits(memory.limit()), memory.clone()),
        }));
        let router = Arc::new(Router::new(hosting.clone(), directory.clone()));
        let stop = CancellationToken::new();
        let watching = Watching::new(hosting.clone(), router.clone(), settings.watch.clone(), stop.clone());
        let copying = Copying::new(directory.clone(), watching.clone(), memory.clone());
        let facts = Arc::new(Facts::new(directory.clone(), router.clone(), hosting.clone()));
        let status = Arc::new(Status {
            directory: directory.clone(),
            hosting: hosting.clone(),
            router: router.clone(),
            transport: transport.clone(),
        });
        let founding = Arc::new(Founding {
            settings: FoundingSettings {
                name: settings.name.clone(),
                address: address.clone(),
                zone: settings.zone.clone(),
                weight: settings.weight,
                seeds: settings.seeds.clone(),
                partitions: settings.partitions,
                replicas: settings.replicas,
            },
            directory: directory.clone(),
            file,
            transport: transport.clone(),
            threads: ports.threads.clone(),
            random: ports.random.clone(),
            clock: ports.clock.clone(),
            reported: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        });
        let clock_watch = Arc::new(ClockWatch::new(status.clone()));
        let canceller = Arc::new(Canceller {
            directory: directory.clone(),
            transport: transport.clone(),
            cancelled: hosting.cancelled.clone(),
        });
        let housekeeper = Arc::new(Housekeeper {
            directory: directory.clone(),
            hosting: hosting.clone(),
            clock: clock_watch.clone(),
            config: settings.housekeeping.clone(),
        });
        let mapper = Arc::new(Mapper::new(hosting.clone(), router.clone(), registry.clone()));
        let jobs = Jobs::new(hosting.clone(), router.clone(), registry.clone());
        let movement = Arc::new(Movement::new(
            directory.clone(),
            facts.clone(),
            settings.movement.clone(),
            Arc::new(MovementStats::default()),
        ));
        let node = Arc::new_cyclic(|myself| Node {
            directory,
            hosting,
            router,
            watching,
            copying,
            facts,
            status,
            settings,
            founding,
            housekeeper,
            clock_watch,
            movement,
            canceller,
            mapper,
            jobs,
            registry,
            myself: myself.clone(),
            transport,
            log,
            address,
            recovery,
            stop,
            ended: watch::Sender::new(None),
            tasks: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        });
        node.serve(listener, routes(node.clone())?);
        let jobs = node.jobs.clone();
        node.keep(clock::spawn(async move { jobs.work().await }));
        if memory.limit().is_some() {
            node.keep(clock::spawn(MemoryKeeper::new(memory).work()));
        }
        let living = node.clone();
        node.keep(clock::spawn(async move { living.live().await }));
        Ok(node)
    }

    pub(super) fn keep(&self, task: clock::JoinHandle<()>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn serve(&self, listener: Box<dyn Listener>, routes: Routes) {
        let calls = PeerCalls {
            founding: self.founding.clone(),
            hosting: self.hosting.clone(),
            router: self.router.clone(),
            watching: self.watching.clone(),
            facts: self.facts.clone(),
            status: self.status.clone(),
            mapper: self.mapper.clone(),
        };
        let routes = routes.add_service(self.transport.service(Arc::new(calls)));
        let (config, stop) = (self.settings.peer.grpc.clone(), self.stop.clone());
        self.keep(clock::spawn(grpc::serve(listener, routes, config, stop.cancelled_owned())));
    }

    /// Where clients and peers reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Which node it is.
    pub fn id(&self) -> NodeId {
        self.directory.me()
    }

    /// Waits for the end of the peer's life.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::Stopped),
            Err(_) => Ended::Stopped,
        }
    }

    pub(super) fn fail(&self, error: Error) {
        tracing::error!(%error, "the peer cannot go on");
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(Ended::Failed(error));
            }
            first
        });
        self.stop.cancel();
    }

    /// Hands leaderships over, tells the others, and stops cleanly.
    pub async fn shutdown(&self) {
        self.housekeeper.hand_over_all(HAND_OVER).await;
        if let Some(gossip) = self.directory.gossip() {
            gossip.leave().await;
        }
        self.stop().await;
        self.ended.send_if_modified(|ended| ended.is_none().then(|| *ended = Some(Ended::Stopped)).is_some());
    }

    async fn stop(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        // The first task is the server: it ends by itself, the requests under way first.
        let mut tasks = tasks.into_iter();
        let server = tasks.next();
        tasks.for_each(|task| task.abort());
        self.jobs.stop();
        self.stop.cancel();
        self.transport.shutdown();
        self.hosting.stop_all().await;
        if let Some(server) = server {
            let _ = clock::timeout(Duration::from_secs(3), server).await;
        }
        self.log.shutdown().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The replicas that vote in a group, as the replica here knows; empty without one.
    pub fn votes_in(&self, group: GroupId) -> Vec<ReplicaId> {
        let hosted = self.hosting.get(group);
        hosted.map(|hosted| hosted.group.status().voters.keys().copied().collect()).unwrap_or_default()
    }

    /// The index up to which the log of a group's replica here has been purged; 0 without one.
    pub fn purged_to(&self, group: GroupId) -> u64 {
        self.hosting.get(group).map_or(0, |hosted| hosted.group.status().purged)
    }

    /// The grid's facts as this node knows them, and every change, for tests.
    pub fn watch_facts(&self) -> tokio::sync::watch::Receiver<Arc<crate::meta::MetaView>> {
        self.directory.watch_view()
    }

    /// A group's replica here: its id, applied index, and all rows in order; for tests.
    pub fn replica_rows(&self, group: GroupId) -> Option<ReplicaRows> {
        let hosted = self.hosting.get(group)?;
        let applied = *hosted.state.applied_index().borrow();
        let rows = hosted.state.scan(&[], None, usize::MAX).ok()?;
        Some((hosted.group.replica(), applied, rows))
    }

    /// Timing of housekeeping, for tests.
    pub fn housekeeping(&self) -> &HousekeepingConfig {
        &self.settings.housekeeping
    }

    /// What went over the network to other peers, by kind of frame.
    pub fn network_stats(&self) -> Vec<crate::net::peer::KindStats> {
        self.transport.stats()
    }

    /// Reads of entries that this peer sent to another, as the transport counted them. Tasks make
    /// none: they read their own slot, which is here.
    pub fn remote_state_reads(&self) -> u64 {
        let reads = |stats: &crate::net::peer::KindStats| stats.kind == super::wire::kind::FORWARD_READ;
        self.transport.stats().iter().filter(|stats| reads(stats)).map(|stats| stats.frames_out).sum()
    }

    /// Counters of the log.
    pub fn log_stats(&self) -> crate::storage::log::LogStats {
        self.log.stats()
    }
}
