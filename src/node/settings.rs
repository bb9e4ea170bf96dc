//! What a node is built with: the checked configuration, and the parts' own bounds.

use super::housekeeping::HousekeepingConfig;
use super::movement::MovementConfig;
use super::watching::WatchConfig;
use crate::config::NodeConfig;
use crate::meta::TaskMark;
use crate::net::peer::PeerConfig;
use crate::partition::MemoryLimit;
use crate::partition::executor::ExecutorConfig;
use crate::raft::GroupConfig;
use crate::raft::network::{RaftNetworkConfig, ReceptionConfig};
use crate::storage::log::LogConfig;
use std::path::PathBuf;

/// Everything that a node is built with, besides its ports.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The node's name.
    pub name: String,
    /// TCP address to listen on; gossip takes UDP on the same number.
    pub listen: String,
    /// Where others reach it, if not as listened on.
    pub advertise: Option<String>,
    /// Addresses to find the grid by.
    pub seeds: Vec<String>,
    /// The data directory.
    pub data: PathBuf,
    /// Partitions of a new grid.
    pub partitions: u32,
    /// Replicas per partition of a new grid.
    pub replicas: usize,
    /// The zone.
    pub zone: Option<String>,
    /// The weight.
    pub weight: u32,
    /// How much RAM the state may take.
    pub memory: MemoryLimit,
    /// Bounds of connections to peers, and gRPC's.
    pub peer: PeerConfig,
    /// Replicas that start at the same time. A start reads a checkpoint and replays the log behind it:
    /// on one thread each, with what it reads in RAM. Default 4.
    pub starts_at_once: usize,
    /// Timing of Raft.
    pub group: GroupConfig,
    /// Bounds of snapshots that come in.
    pub receptions: ReceptionConfig,
    /// Bounds of Raft's messages.
    pub raft_network: RaftNetworkConfig,
    /// Bounds of the executors.
    pub executor: ExecutorConfig,
    /// Bounds of the log.
    pub log: LogConfig,
    /// Timing of housekeeping.
    pub housekeeping: HousekeepingConfig,
    /// Bounds of watches and of the history behind them.
    pub watch: WatchConfig,
    /// Bounds and delays of movement.
    pub movement: MovementConfig,
    /// The tasks that the peer carries besides the built-in ones.
    pub tasks: Vec<TaskMark>,
}

/// See [`NodeSettings::starts_at_once`].
const STARTS_AT_ONCE: usize = 4;

impl From<&NodeConfig> for NodeSettings {
    fn from(config: &NodeConfig) -> Self {
        let mut peer = PeerConfig::default();
        peer.grpc.max_streams = config.limits.max_streams_per_connection;
        peer.grpc.max_connections = config.limits.max_connections;
        NodeSettings {
            name: config.name.clone(),
            listen: config.listen.clone(),
            advertise: config.advertise.clone(),
            seeds: config.seeds.clone(),
            data: config.data.clone(),
            partitions: config.partitions,
            replicas: config.replicas as usize,
            zone: config.zone.clone(),
            weight: config.weight,
            memory: config.memory_limit.into(),
            peer,
            starts_at_once: STARTS_AT_ONCE,
            group: GroupConfig::default(),
            receptions: ReceptionConfig::default(),
            raft_network: RaftNetworkConfig::default(),
            executor: ExecutorConfig::default(),
            watch: WatchConfig::from(&config.limits),
            log: log_config(config.memory_limit),
            housekeeping: housekeeping_config(config.memory_limit),
            movement: MovementConfig::from(&config.limits),
            tasks: Vec::new(),
        }
    }
}

/// What the log keeps of each group in RAM stays small beside a memory limit.
fn housekeeping_config(memory_limit: Option<u64>) -> HousekeepingConfig {
    let mut config = HousekeepingConfig::default();
    if let Some(limit) = memory_limit {
        config.checkpoint_bytes = config.checkpoint_bytes.min(limit / 64).max(1 << 20);
        config.replay_bytes = 0;
    }
    config
}

/// The log's cache stays small beside a memory limit.
fn log_config(memory_limit: Option<u64>) -> LogConfig {
    let mut config = LogConfig::default();
    if let Some(limit) = memory_limit {
        config.cache_bytes = config.cache_bytes.min(limit / 32).max(1 << 20);
    }
    config
}
