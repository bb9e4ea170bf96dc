//! One replica that runs, with all its parts in reach.
//!
//! In: a disk, a network, a seed. Out: the replica's log, state, Raft and executor, and what scripts
//! look at in them. It is put together as a peer puts its own together.

use super::ask;
use super::wire::{End, Wire};
use crate::backend::SimBackend;
use crate::dice::Dice;
use crate::disk::SimDisk;
use crate::ports::{SimClock, SimRandom, SimThreads};
use bytes::Bytes;
use keystead::clock::Gate;
use keystead::partition::entry::{Batch, Marker, PartitionEntry, RowWrite};
use keystead::partition::executor::{Executor, ExecutorConfig, ExecutorParts, ExecutorStats, Pacer};
use keystead::partition::{
    MapDirectory, Memory, ReplicaMachine, ReplicaState, SlotView, TaskCall, TaskOutcome, TaskRunner, rows,
};
use keystead::raft::network::{GroupNetwork, RaftNetworkConfig, ReceptionConfig, Receptions};
use keystead::raft::{Confirmer, EntryPayload, Group, GroupConfig, LogStore, Verdict, decode_entry};
use keystead::storage::backend::{MemoryBackend, ReplicaKey, StateBackend};
use keystead::storage::disk::Disk;
use keystead::storage::log::{GroupLog, LogConfig, SharedLog};
use keystead::types::{
    GroupId, KeyCodec, MapDescriptor, MapId, MapSpec, NodeId, RunId, StoredValue, Value, ValueCodec, slot_of,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);

/// A replica's rows, in order.
pub(super) type Rows = Vec<(Bytes, Bytes)>;

/// A replica that runs.
pub(super) struct Replica {
    pub(super) group: Arc<Group>,
    pub(super) state: Arc<ReplicaState>,
    pub(super) executor: Executor,
    pub(super) log: GroupLog,
    pub(super) stats: Arc<ExecutorStats>,
    pub(super) gate: Arc<Gate>,
    _shared: SharedLog,
}

impl Replica {
    /// The applied index.
    pub(super) fn applied(&self) -> u64 {
        self.state.applied_now()
    }

    /// The last index in its log.
    pub(super) fn last(&self) -> u64 {
        self.log.extent().last().unwrap_or(0)
    }

    /// Whether it takes itself for the leader.
    pub(super) fn leads(&self) -> bool {
        self.group.leadership().borrow().is_me
    }

    /// Its term.
    pub(super) fn term(&self) -> u64 {
        self.group.leadership().borrow().term
    }

    /// Proposals of its executor that had no effect.
    pub(super) fn fenced(&self) -> u64 {
        self.stats.fenced.load(Ordering::Relaxed)
    }

    /// Rounds that its executor has begun to confirm reads.
    pub(super) fn rounds(&self) -> u64 {
        self.stats.read_rounds.load(Ordering::Relaxed)
    }

    /// All its rows.
    pub(super) fn rows(&self) -> Result<Rows, String> {
        self.state.scan(&[], None, usize::MAX).map_err(|error| error.to_string())
    }

    /// The number that is applied to a key.
    pub(super) fn applied_number(&self, key: &str) -> Option<i64> {
        let row = self.state.get(&row_of(key)).ok()??;
        ask::number(&StoredValue::decode(&row).ok()?)
    }

    /// The last payload in its log that begins a run or changes rows: its index and its bytes.
    pub(super) async fn last_payload(&self) -> Result<(u64, Bytes), String> {
        let extent = self.log.extent().entries;
        let read = self.log.read(extent.clone(), usize::MAX).await.map_err(|error| error.to_string())?;
        for (index, bytes) in read.iter().rev() {
            let entry = decode_entry(bytes).map_err(|error| error.to_string())?;
            if let EntryPayload::Normal(payload) = entry.payload {
                return Ok((*index, payload.0));
            }
        }
        Err("the log holds no payload".to_owned())
    }

    /// The run that wrote last to its log, and the number of the run's last batch there.
    pub(super) async fn last_batch(&self) -> Result<(RunId, u64), String> {
        let (_, payload) = self.last_payload().await?;
        match PartitionEntry::decode(&payload).map_err(|error| error.to_string())? {
            PartitionEntry::Marker(Marker { run, .. }) => Ok((run, 0)),
            PartitionEntry::Batch(Batch { run, number, .. }) => Ok((run, number)),
        }
    }

    /// Proposes a batch as the executor of that run would have; says whether it took effect, `None`
    /// when it was refused.
    pub(super) async fn propose(&self, term: u64, batch: Bytes) -> Result<Option<bool>, String> {
        let receiver = self.group.propose(term, batch).await.map_err(|error| error.to_string())?;
        Ok(match receiver.wait().await {
            Verdict::Applied(outcome) => Some(outcome.took_effect),
            Verdict::Unknown => None,
        })
    }
}

/// The row of a key of the scenarios' map.
pub(super) fn row_of(key: &str) -> Bytes {
    rows::map_row(slot_of(key.as_bytes()), MapId(1), key.as_bytes())
}

/// A batch that writes one key.
pub(super) fn batch(term: u64, run: RunId, number: u64, key: &str, value: i64) -> Bytes {
    let stored = StoredValue { revision: 1 << 32, value: Value::i64(value), expires_ms: 0 };
    let writes = vec![RowWrite::put(row_of(key), stored.encode())];
    PartitionEntry::Batch(Batch { term, run, number, writes }).encode()
}

fn group_config() -> GroupConfig {
    // Quick elections: what waits meanwhile stays within its deadline.
    let (heartbeat, election) = (Duration::from_millis(30), (Duration::from_millis(100), Duration::from_millis(150)));
    GroupConfig { heartbeat, election, ..GroupConfig::default() }
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 128 << 10,
        cache_bytes: 16 << 10,
        slack_bytes: 768 << 10,
        move_bytes: 16 << 10,
        ..LogConfig::default()
    }
}

/// What a life of a replica is put together from.
pub(super) struct Parts {
    pub(super) id: u64,
    pub(super) seed: u64,
    pub(super) life: u32,
    pub(super) disk: SimDisk,
    pub(super) clock: Arc<SimClock>,
    pub(super) wire: Arc<Wire>,
    pub(super) chunk_bytes: usize,
}

impl Parts {
    /// Starts it; called behind that gate.
    pub(super) async fn start(self, gate: Arc<Gate>) -> keystead::error::Result<Replica> {
        let (id, mount, threads) = (self.id, self.disk.mount(), Arc::new(SimThreads));
        let disk: Arc<dyn Disk> = Arc::new(mount.clone());
        let (shared, _) = SharedLog::open(disk.clone(), threads.clone(), Path::new("/log"), log_config())?;
        let log = shared.register(GROUP, id).await?;
        // Which backend keeps the state is the seed's choice.
        let backend: Arc<dyn StateBackend> = match Dice::new(self.seed, "backend").per_mille(500) {
            true => Arc::new(SimBackend::open(mount)?),
            false => Arc::new(MemoryBackend::open(disk, "/state")?),
        };
        let key = ReplicaKey { group: GROUP, replica: id };
        let state = ReplicaState::load(key, backend, threads.clone(), Memory::new(None))?;
        let network = RaftNetworkConfig { snapshot_chunk_bytes: self.chunk_bytes, ..RaftNetworkConfig::default() };
        let transport = self.wire.seen_by(id);
        let network = GroupNetwork::new(GROUP, id, transport.clone(), threads, network);
        let machine = Arc::new(ReplicaMachine(state.clone()));
        let store = LogStore::new(log.clone());
        let group = Group::start(GROUP, id, &group_config(), store, network, machine).await?;
        let receptions = Arc::new(Receptions::new(ReceptionConfig::default()));
        self.wire.plug(id, End { group: group.clone(), receptions, gate: gate.clone() });
        let (config, stats) = (ExecutorConfig::default(), Arc::<ExecutorStats>::default());
        let executor = Executor::start(ExecutorParts {
            group: group.clone(),
            confirmer: Arc::new(Confirmer::new(transport)),
            pacer: Pacer::new(&config),
            replica: state.clone(),
            maps: Arc::new(OneMap),
            tasks: Arc::new(OneMap),
            cancelled: Arc::default(),
            clock: self.clock,
            random: SimRandom::new(self.seed, &format!("{id} life {}", self.life)),
            node: NodeId(id),
            config,
            stats: stats.clone(),
        });
        Ok(Replica { group, state, executor, log, stats, gate, _shared: shared })
    }
}

/// The scenarios' map.
pub(super) fn map() -> MapDescriptor {
    MapSpec::new(ask::MAP, KeyCodec::Utf8, ValueCodec::I64).descriptor(MapId(1))
}

/// One map, and no tasks.
struct OneMap;

impl MapDirectory for OneMap {
    fn map(&self, name: &str) -> Option<MapDescriptor> {
        (name == ask::MAP).then(map)
    }

    fn partitions(&self) -> u32 {
        1
    }
}

#[async_trait::async_trait]
impl TaskRunner for OneMap {
    async fn run(&self, _: Arc<dyn SlotView>, _: Vec<TaskCall>) -> Vec<TaskOutcome> {
        Vec::new()
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn state_reads(&self) -> u64 {
        0
    }

    fn stuck_threads(&self) -> usize {
        0
    }
}
