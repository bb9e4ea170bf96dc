//! A peer: built from its ports, supervised, shut down in order.

use super::directory::Directory;
use super::facts::Facts;
use super::founding::{Founding, FoundingSettings};
use super::hosting::{Hosting, HostingParts};
use super::housekeeping::{Housekeeper, HousekeepingConfig};
use super::identity::IdentityFile;
use super::peer_calls::PeerCalls;
use super::ports::Ports;
use super::reconcile::Reconciler;
use super::router::Router;
use super::settings::NodeSettings;
use super::status::Status;
use crate::clock::{self, ThreadKind, run_on};
use crate::error::{Code, Error, Result};
use crate::membership::{GossipConfig, PeerGossip};
use crate::net::Listener;
use crate::net::grpc::{self, Routes};
use crate::net::peer::PeerTransport;
use crate::partition::TaskRunner;
use crate::raft::network::{ReceptionConfig, Receptions};
use crate::storage::disk::DirLock;
use crate::storage::log::{Recovery, SharedLog};
use crate::types::{GroupId, NodeId};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// With port 0: how often another port is tried when its UDP twin is taken.
const PORT_ATTEMPTS: usize = 16;
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

/// A running peer.
pub struct Node {
    pub(super) directory: Arc<Directory>,
    pub(super) hosting: Arc<Hosting>,
    pub(super) router: Arc<Router>,
    pub(super) facts: Arc<Facts>,
    pub(super) status: Arc<Status>,
    pub(super) settings: NodeSettings,
    founding: Arc<Founding>,
    housekeeper: Arc<Housekeeper>,
    transport: Arc<PeerTransport>,
    log: SharedLog,
    address: String,
    recovery: Recovery,
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
        routes: impl FnOnce(Arc<Node>) -> Result<Routes>,
    ) -> Result<Arc<Self>> {
        let lock = prepare_dir(&ports, &settings.data).await?;
        let (file, mut identity) = open_identity(&ports, &settings.data).await?;
        let backend = open_backend(&ports, &settings.data).await?;
        let (log, recovery) = open_log(&ports, &settings, &identity).await?;
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
        let hosting = Arc::new(Hosting::new(HostingParts {
            ports: ports.clone(),
            directory: directory.clone(),
            log: log.clone(),
            backend,
            transport: transport.clone(),
            receptions: Receptions::new(ReceptionConfig::default()),
            tasks,
            group_config: settings.group.clone(),
            network_config: settings.raft_network.clone(),
            executor_config: settings.executor.clone(),
        }));
        let router = Arc::new(Router::new(hosting.clone(), directory.clone()));
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
            changing: tokio::sync::Mutex::new(()),
        });
        let housekeeper = Arc::new(Housekeeper {
            directory: directory.clone(),
            hosting: hosting.clone(),
            config: settings.housekeeping.clone(),
        });
        let node = Arc::new(Node {
            directory,
            hosting,
            router,
            facts,
            status,
            settings,
            founding,
            housekeeper,
            transport,
            log,
            address,
            recovery,
            stop: CancellationToken::new(),
            ended: watch::Sender::new(None),
            tasks: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        });
        node.serve(listener, routes(node.clone())?);
        let living = node.clone();
        node.keep(clock::spawn(async move { living.live().await }));
        Ok(node)
    }

    fn keep(&self, task: clock::JoinHandle<()>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn serve(&self, listener: Box<dyn Listener>, routes: Routes) {
        let calls = PeerCalls {
            founding: self.founding.clone(),
            hosting: self.hosting.clone(),
            router: self.router.clone(),
            facts: self.facts.clone(),
            status: self.status.clone(),
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

    fn fail(&self, error: Error) {
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

    /// A grid first; then everything else until the end.
    async fn live(self: Arc<Self>) {
        if let Err(error) = self.enter_grid().await {
            return self.fail(error);
        }
        let (facts, reconciler) = (self.facts.clone(), self.reconciler());
        let (housekeeper, hosting, starter) = (self.housekeeper.clone(), self.clone(), self.clone());
        let (member, seeds) = (self.clone(), self.founding.clone());
        let housekeeping = self.clone();
        self.keep(clock::spawn(async move { facts.follow().await }));
        self.keep(clock::spawn(async move { hosting.start_replicas().await }));
        self.keep(clock::spawn(async move { reconciler.work().await }));
        self.keep(clock::spawn(async move { member.report_in().await }));
        self.keep(clock::spawn(async move { starter.replace_damaged().await }));
        self.keep(clock::spawn(async move {
            let why = housekeeper.work().await;
            housekeeping.fail(Error::new(Code::DiskFailed, why));
        }));
        let status = self.status.clone();
        self.keep(clock::spawn(async move { status.follow_leaders().await }));
        let checked = self.clone();
        self.keep(clock::spawn(async move {
            if let Err(error) = seeds.check_seeds().await {
                checked.fail(error);
            }
        }));
    }

    fn reconciler(&self) -> Reconciler {
        Reconciler { directory: self.directory.clone(), hosting: self.hosting.clone(), facts: self.facts.clone() }
    }

    /// Gets a grid and starts the meta group's replica.
    async fn enter_grid(&self) -> Result<()> {
        let record = self.founding.find_grid().await?;
        if let Some(gossip) = self.directory.gossip() {
            gossip.announce(Some(record.grid), 0).await;
        }
        let identity = self.directory.identity();
        let place = record.founders.iter().position(|founder| founder.node == identity.node);
        // The founders' replicas of the meta group are numbered in the record's order.
        let founding_replica = place.map(|place| place as u64 + 1);
        let Some(mut replica) = identity.meta_replica.or(founding_replica) else {
            return Err(Error::internal("a member that neither founded nor joined"));
        };
        let lost = |replica| {
            let key = (GroupId::META, replica);
            self.recovery.damaged.contains(&key) || self.recovery.tombstoned.contains(&key)
        };
        if lost(replica) {
            tracing::warn!(replica, "the log of this peer's replica of the meta group is damaged; it is replaced");
            self.hosting.give_up(GroupId::META, replica).await?;
            self.founding.replace_meta_replica(replica).await?;
            let replaced = self.directory.identity().meta_replica;
            replica = replaced.ok_or_else(|| Error::internal("a replacement without an id"))?;
        }
        let meta = self.hosting.ensure(GroupId::META, replica).await?;
        if place == Some(0) && identity.meta_replica.is_none() {
            let founders = record.founders.iter().map(|founder| founder.node);
            meta.group.initialize((1..).zip(founders).collect()).await?;
        }
        Ok(())
    }

    /// Starts the replicas that the placement gives this node, as it changes.
    async fn start_replicas(&self) {
        let mut view = self.directory.watch_view();
        loop {
            let now = view.borrow_and_update().clone();
            for (group, replica) in now.held_by(self.id()) {
                if group == GroupId::META || self.recovery.damaged.contains(&(group, replica)) {
                    continue;
                }
                let running = self.hosting.get(group).map(|hosted| hosted.group.replica());
                if running == Some(replica) {
                    continue;
                }
                match self.hosting.ensure(group, replica).await {
                    Ok(hosted) => {
                        let placed = now.placement_of(group);
                        let first = placed.and_then(|row| row.replicas.first()).map(|(id, _)| *id);
                        if first == Some(replica) && placed.is_some_and(|row| !row.formed) {
                            let members = now.replicas(group).iter().copied().collect();
                            if let Err(error) = hosted.group.initialize(members).await {
                                tracing::error!(%group, %error, "a partition could not be formed");
                            }
                        }
                    }
                    Err(error) => tracing::error!(%group, replica, %error, "a replica could not be started"),
                }
            }
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the own member row true: name, address, zone, weight, incarnation.
    async fn report_in(&self) {
        let settings = &self.founding.settings;
        let mut view = self.directory.watch_view();
        if view.wait_for(|view| view.grid.is_some()).await.is_err() {
            return;
        }
        let row = crate::meta::MemberRow {
            node: self.id(),
            name: settings.name.clone(),
            address: settings.address.clone(),
            zone: settings.zone.clone(),
            weight: settings.weight,
            incarnation: self.directory.identity().incarnation,
            since: self.router.time().ms(),
            extra: Default::default(),
        };
        while let Err(error) =
            self.facts.change(|view| Ok(((), crate::meta::member_change(view, &row)?.into_iter().collect()))).await
        {
            tracing::debug!(%error, "the own member row could not be written; trying again");
            clock::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Replicas whose log is damaged give up their ids; others are issued in their place.
    async fn replace_damaged(&self) {
        let mut view = self.directory.watch_view();
        if view.wait_for(|view| view.grid.is_some()).await.is_err() {
            return;
        }
        // Ids that were given up in an earlier life may still wait for their replacement.
        let given_up = self.log.tombstones();
        let waiting: Vec<_> = self.directory.view().held_by(self.id()).filter(|key| given_up.contains(key)).collect();
        let lost: std::collections::BTreeSet<_> = self.recovery.damaged.iter().copied().chain(waiting).collect();
        for (group, replica) in lost.into_iter().filter(|(group, _)| *group != GroupId::META) {
            tracing::warn!(%group, replica, "a replica's log is damaged; it is replaced under a new id");
            loop {
                let given_up = self.hosting.give_up(group, replica).await;
                let replaced = self.facts.change(|view| {
                    let replacement = crate::meta::replacement(view, group, replica)?;
                    Ok(((), replacement.map(|replacement| replacement.changes).unwrap_or_default()))
                });
                match given_up.and(replaced.await) {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(%group, %error, "a damaged replica could not be replaced yet");
                        clock::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
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
    pub fn votes_in(&self, group: GroupId) -> Vec<crate::types::ReplicaId> {
        let hosted = self.hosting.get(group);
        hosted.map(|hosted| hosted.group.status().voters.keys().copied().collect()).unwrap_or_default()
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

async fn prepare_dir(ports: &Ports, data: &Path) -> Result<Box<dyn DirLock>> {
    let (disk, dir) = (ports.disk.clone(), data.to_owned());
    let lock = run_on(&ports.threads, ThreadKind::Backend, move || {
        disk.create_dir_all(&dir)?;
        disk.lock(&dir)
    });
    lock.await?.map_err(|error| {
        let busy = error.kind() == std::io::ErrorKind::WouldBlock;
        let (code, what) = match busy {
            true => (Code::DataDirBusy, "the data directory is in use by another process".to_owned()),
            false => (Code::DiskFailed, format!("the data directory cannot be used: {error}")),
        };
        Error::new(code, what).at(data.display().to_string())
    })
}

async fn open_identity(ports: &Ports, data: &Path) -> Result<(Arc<IdentityFile>, super::identity::Identity)> {
    let file = Arc::new(IdentityFile::new(ports.disk.clone(), data));
    let (opened, random) = (file.clone(), ports.random.clone());
    let identity = run_on(&ports.threads, ThreadKind::Backend, move || opened.begin_life(&*random)).await??;
    Ok((file, identity))
}

async fn open_backend(ports: &Ports, data: &Path) -> Result<Arc<dyn crate::storage::backend::StateBackend>> {
    let (open, dir) = (ports.backend.clone(), data.join("state"));
    run_on(&ports.threads, ThreadKind::Backend, move || open(&dir)).await?
}

async fn open_log(
    ports: &Ports,
    settings: &NodeSettings,
    identity: &super::identity::Identity,
) -> Result<(SharedLog, Recovery)> {
    let (disk, threads, dir) = (ports.disk.clone(), ports.threads.clone(), settings.data.join("log"));
    if identity.log_created && disk.list(&dir).map_or(0, |names| names.len()) == 0 {
        let what = "the data directory has an identity and no log: part of it was removed";
        let remedy = "start with an empty data directory: the peer joins as a new node";
        return Err(Error::new(Code::CorruptLog, what).at(dir.display().to_string()).remedy(remedy));
    }
    let config = settings.log.clone();
    let open = {
        let (threads, dir) = (threads.clone(), dir.clone());
        move || SharedLog::open(disk, threads, &dir, config)
    };
    let (log, recovery) = run_on(&threads, ThreadKind::Backend, open).await??;
    if recovery.votes_lost {
        let what = "the log is damaged where votes may have been: none of its replicas may vote again";
        let remedy = "start with an empty data directory: the peer joins as a new node";
        return Err(Error::new(Code::CorruptLog, what).at(dir.display().to_string()).remedy(remedy));
    }
    if recovery.torn_tail_bytes > 0 {
        tracing::info!(bytes = recovery.torn_tail_bytes, "a torn write at the log's end was cut off");
    }
    Ok((log, recovery))
}

/// Listens on TCP, and gossips on UDP on the same number.
async fn listen(
    settings: &NodeSettings,
    ports: &Ports,
    directory: &Arc<Directory>,
) -> Result<(Box<dyn Listener>, String)> {
    let mut last = Error::internal("no attempt was made to listen");
    for _ in 0..PORT_ATTEMPTS {
        let listener = ports.network.listen(&settings.listen).await.map_err(|error| {
            Error::new(Code::InvalidConfig, format!("cannot listen: {error}"))
                .at(settings.listen.clone())
                .remedy("choose another --listen address, or stop the process that uses it")
        })?;
        let bound = listener.local_addr();
        let address = settings.advertise.clone().unwrap_or_else(|| bound.clone());
        let identity = directory.identity();
        let me = PeerGossip {
            node: identity.node,
            incarnation: identity.incarnation,
            name: settings.name.clone(),
            address: address.clone(),
            zone: settings.zone.clone(),
            grid: identity.record.filter(|_| identity.founded).map(|record| record.grid),
            placement_version: 0,
        };
        let seeds = settings.seeds.iter().filter(|seed| **seed != address).cloned().collect();
        let config = GossipConfig { me, listen: bound, advertise: address.clone(), seeds };
        match ports.membership.start(config).await {
            Ok(gossip) => {
                directory.set_gossip(gossip);
                return Ok((listener, address));
            }
            Err(error) if settings.listen.ends_with(":0") => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
