//! Gossip by chitchat: the only module that names it.
//!
//! In: the own entry, and datagrams from peers through a transport (UDP, or the simulator's). Out: the
//! set of live peers, as a watch. Every peer is shown, whatever its grid: who must not talk to a peer
//! of another grid looks at its grid id. Nothing here decides anything about members or data.
//!
//! chitchat runs on tasks and a clock of its own. Inside a [`Gate`] its datagrams wait while the gate
//! is shut, which stops it with the rest of the node.

use super::{Gossip, GossipConfig, LivePeers, Membership, PeerGossip};
use crate::clock::{self, Gate, JoinHandle};
use crate::error::{Code, Error, Result};
use crate::types::{Incarnation, NodeId};
use ::chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpTransport};
use ::chitchat::{
    ChitchatConfig, ChitchatEnvelope, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion,
    spawn_chitchat,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Peers of another protocol do not hear each other. The number grows with incompatible changes only.
const CLUSTER: &str = "keystead-gossip-1";

const NAME: &str = "name";
const ADDRESS: &str = "address";
const ZONE: &str = "zone";
const GRID: &str = "grid";
const PLACEMENT: &str = "placement";
/// Set by a peer that stops on purpose.
const LEAVING: &str = "leaving";

/// How to gossip.
#[derive(Clone, Copy, Debug)]
pub struct ChitchatOptions {
    /// Time between rounds. Default: 200 ms.
    pub interval: Duration,
    /// A peer is held for dead after so many mean intervals without a heartbeat. Default: 8, which
    /// with 200 ms takes 0.7 to 1.5 s.
    pub phi: f64,
    /// A dead peer's entry is forgotten after this. Default: one hour.
    pub forget_after: Duration,
}

impl Default for ChitchatOptions {
    fn default() -> Self {
        ChitchatOptions { interval: Duration::from_millis(200), phi: 8.0, forget_after: Duration::from_secs(3600) }
    }
}

/// Starts gossips over a transport.
pub struct ChitchatMembership {
    transport: Arc<dyn Transport>,
    options: ChitchatOptions,
}

impl Default for ChitchatMembership {
    fn default() -> Self {
        ChitchatMembership::new(Arc::new(UdpTransport), ChitchatOptions::default())
    }
}

impl ChitchatMembership {
    /// Gossip over any transport.
    pub fn new(transport: Arc<dyn Transport>, options: ChitchatOptions) -> Self {
        ChitchatMembership { transport, options }
    }

    /// Starts to gossip. Port 0 picks a free one, which is then also what others are told if the
    /// advertised port is 0.
    ///
    /// # Errors
    /// `AddressInUse`; `InvalidConfig` when an address cannot be resolved or listened on.
    pub async fn launch(&self, config: GossipConfig) -> Result<Arc<ChitchatGossip>> {
        let refused = |what: String| Error::new(Code::InvalidConfig, what).at("gossip");
        let listen = resolve(&config.listen, None).await.map_err(refused)?;
        let socket = self.transport.open(listen).await.map_err(|error| {
            let cause = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
            let place = format!("gossip, {listen}");
            cause.map_or_else(|| refused(format!("{error:#}")), |cause| Error::cannot_listen("UDP", cause).at(place))
        })?;
        let listen = socket.local_addr().map_err(|error| refused(format!("{error:#}")))?;
        let mut advertise = resolve(&config.advertise, Some(listen)).await.map_err(refused)?;
        if advertise.port() == 0 {
            advertise.set_port(listen.port());
        }
        let opened = Opened(Mutex::new(Some(Box::new(GatedSocket { gate: Gate::current(), socket }))));
        let chitchat = self.chitchat_config(&config, listen, advertise);
        let handle = spawn_chitchat(chitchat, entries_of(&config.me), &opened)
            .await
            .map_err(|error| refused(format!("gossip cannot start: {error:#}")))?;
        let me = watch::Sender::new(config.me);
        let live = watch::Sender::new(Arc::new(with_me(LivePeers::new(), &me.borrow())));
        let receiver = live.subscribe();
        let seen = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let ended = handle.termination_watcher();
        let follow = follow(seen, me.subscribe(), live);
        let follower = clock::spawn(async move {
            tokio::select! {
                biased;
                result = ended => if let Err(error) = result {
                    tracing::error!(%error, "gossip has ended; the live peers are no longer kept up to date");
                },
                () = follow => {}
            }
        });
        Ok(Arc::new(ChitchatGossip {
            handle,
            me,
            live: receiver,
            follower,
            advertise,
            interval: self.options.interval,
        }))
    }

    fn chitchat_config(&self, config: &GossipConfig, listen: SocketAddr, advertise: SocketAddr) -> ChitchatConfig {
        let (node, incarnation) = (config.me.node.to_string(), config.me.incarnation.0);
        ChitchatConfig {
            chitchat_id: ChitchatId::new(node, incarnation, advertise),
            cluster_id: CLUSTER.to_owned(),
            gossip_interval: self.options.interval,
            listen_addr: listen,
            seed_nodes: config.seeds.clone(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: self.options.phi,
                // The default of 5 s would make a fresh peer's death unnoticed for seconds.
                initial_interval: self.options.interval,
                dead_node_grace_period: self.options.forget_after,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: self.options.forget_after,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        }
    }
}

#[async_trait::async_trait]
impl Membership for ChitchatMembership {
    async fn start(&self, config: GossipConfig) -> Result<Arc<dyn Gossip>> {
        Ok(self.launch(config).await?)
    }
}

/// A running gossip. Dropped, it falls silent without telling anyone, as in a crash.
pub struct ChitchatGossip {
    handle: ChitchatHandle,
    me: watch::Sender<PeerGossip>,
    live: watch::Receiver<Arc<LivePeers>>,
    follower: JoinHandle<()>,
    advertise: SocketAddr,
    interval: Duration,
}

impl ChitchatGossip {
    /// The address that others gossip with, with the port that was given for port 0.
    pub fn advertised(&self) -> SocketAddr {
        self.advertise
    }
}

impl Drop for ChitchatGossip {
    fn drop(&mut self) {
        self.follower.abort();
        self.handle.abort();
    }
}

#[async_trait::async_trait]
impl Gossip for ChitchatGossip {
    fn live(&self) -> watch::Receiver<Arc<LivePeers>> {
        self.live.clone()
    }

    async fn announce(&self, grid: Option<crate::types::GridId>, placement_version: u64) {
        self.me.send_modify(|me| {
            me.grid = grid;
            me.placement_version = placement_version;
        });
        self.handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                state.set(PLACEMENT, placement_version);
                match grid {
                    Some(grid) => state.set(GRID, grid),
                    None if state.contains_key(GRID) => state.delete(GRID),
                    None => {}
                }
            })
            .await;
    }

    async fn seek(&self, address: &str) {
        match resolve(address, Some(self.advertise)).await {
            // Gossip that has ended greets nobody.
            Ok(found) => drop(self.handle.gossip(found)),
            Err(error) => tracing::debug!(%error, "a peer cannot be looked for"),
        }
    }

    async fn leave(&self) {
        self.handle.with_chitchat(|chitchat| chitchat.self_node_state().set(LEAVING, "1")).await;
        // Two rounds carry the word to the first peers; they carry it on.
        clock::sleep(2 * self.interval).await;
        let stopped = self.handle.initiate_shutdown().is_ok()
            && clock::timeout(Duration::from_secs(1), self.handle.termination_watcher()).await.is_ok();
        if !stopped {
            self.handle.abort();
        }
    }
}

/// Keeps the live set up to date for as long as chitchat runs and someone may look.
async fn follow(
    mut seen: watch::Receiver<BTreeMap<ChitchatId, NodeState>>,
    mut me: watch::Receiver<PeerGossip>,
    live: watch::Sender<Arc<LivePeers>>,
) {
    loop {
        let peers = with_me(peers_of(&seen.borrow_and_update()), &me.borrow_and_update());
        live.send_if_modified(|known| {
            let changed = **known != peers;
            if changed {
                *known = Arc::new(peers);
            }
            changed
        });
        tokio::select! {
            biased;
            changed = me.changed() => if changed.is_err() { return },
            changed = seen.changed() => if changed.is_err() { return },
        }
    }
}

/// The own entry as it is now, whatever gossip says of this node.
fn with_me(mut peers: LivePeers, me: &PeerGossip) -> LivePeers {
    peers.insert(me.node, me.clone());
    peers
}

/// What gossip holds for alive, less who is leaving; of two incarnations the higher.
fn peers_of(seen: &BTreeMap<ChitchatId, NodeState>) -> LivePeers {
    let mut latest: BTreeMap<NodeId, (Incarnation, &NodeState)> = BTreeMap::new();
    for (id, state) in seen {
        let Ok(node) = id.node_id.parse::<NodeId>() else { continue };
        let incarnation = Incarnation(id.generation_id);
        if latest.get(&node).is_none_or(|(known, _)| *known < incarnation) {
            latest.insert(node, (incarnation, state));
        }
    }
    let peers = latest.into_iter().filter_map(|(node, (incarnation, state))| peer_of(node, incarnation, state));
    peers.map(|peer| (peer.node, peer)).collect()
}

/// A peer's entry; `None` until its name and address have arrived, and once it is leaving.
fn peer_of(node: NodeId, incarnation: Incarnation, state: &NodeState) -> Option<PeerGossip> {
    if state.contains_key(LEAVING) {
        return None;
    }
    Some(PeerGossip {
        node,
        incarnation,
        name: state.get(NAME)?.to_owned(),
        address: state.get(ADDRESS)?.to_owned(),
        zone: state.get(ZONE).map(str::to_owned),
        grid: state.get(GRID).and_then(|grid| grid.parse().ok()),
        placement_version: state.get(PLACEMENT).and_then(|version| version.parse().ok()).unwrap_or(0),
    })
}

fn entries_of(me: &PeerGossip) -> Vec<(String, String)> {
    let mut entries =
        vec![(NAME, me.name.clone()), (ADDRESS, me.address.clone()), (PLACEMENT, me.placement_version.to_string())];
    entries.extend(me.zone.iter().map(|zone| (ZONE, zone.clone())));
    entries.extend(me.grid.iter().map(|grid| (GRID, grid.to_string())));
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// An address, or the first that a host name resolves to, of the same family as `like` if there is one.
async fn resolve(address: &str, like: Option<SocketAddr>) -> Result<SocketAddr, String> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let found = tokio::net::lookup_host(address).await.map_err(|error| format!("{address}: {error}"))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(|address| like.is_some_and(|like| like.is_ipv4() != address.is_ipv4()));
    found.first().copied().ok_or_else(|| format!("{address} has no address"))
}

/// A transport that hands out the one socket that is open already: so its port is known beforehand.
struct Opened(Mutex<Option<Box<dyn Socket>>>);

#[async_trait::async_trait]
impl Transport for Opened {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        socket.ok_or_else(|| anyhow::anyhow!("the gossip socket has been taken already"))
    }
}

/// A socket that waits while the node's gate is shut: chitchat's own tasks are outside the gate.
struct GatedSocket {
    gate: Option<Arc<Gate>>,
    socket: Box<dyn Socket>,
}

impl GatedSocket {
    async fn opened(&self) {
        if let Some(gate) = &self.gate {
            gate.opened().await;
        }
    }
}

#[async_trait::async_trait]
impl Socket for GatedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.opened().await;
        self.socket.send(to, envelope).await
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.opened().await;
        self.socket.recv().await
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
#[path = "chitchat_tests.rs"]
mod tests;
