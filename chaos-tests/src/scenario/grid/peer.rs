//! One life of a peer.

use super::shape::Shape;
use super::workload::{MAP, partition_key};
use super::{Kind, Records, jobs, local};
use crate::backend::SimBackend;
use crate::checks::{LeaderLog, Violation};
use crate::machine::Life;
use crate::ports::SimThreads;
use crate::runner::PLANNED_PANIC;
use keystead::Grid;
use keystead::clock::sleep;
use keystead::compute::{PartitionContext, PartitionScan, ResultMap, Scatter, TaskContext, TaskError};
use keystead::config::{Limits, NodeConfig};
use keystead::error::{Code, Error};
use keystead::membership::{ChitchatMembership, ChitchatOptions};
use keystead::node::{Ended, NodeSettings, OpenBackend, Ports};
use keystead::raft::{LeaderObserver, Witness};
use keystead::storage::backend::MemoryBackend;
use keystead::storage::disk::Disk;
use keystead::storage::log::LogConfig;
use keystead::types::Value;
use std::sync::Arc;
use std::time::Duration;

/// The map that tasks keep their lists in.
pub(super) const LISTS: &str = "lists";

/// What a task is asked to do with its mark.
pub(super) const KEEP: u8 = 0;
/// The handler panics after it has written.
pub(super) const PANIC: u8 = 1;
/// The handler fails after it has written.
pub(super) const FAIL: u8 = 2;
/// The handler writes, too, what its map does not take: all that it wrote is refused.
pub(super) const REFUSE: u8 = 3;

/// Runs a peer until its end.
pub(super) async fn run(life: Life, shape: Shape, addresses: Vec<String>, records: Records) {
    let at = index_of(&life.name);
    records.lives.borrow_mut().insert(life.name.clone(), life.number);
    let listen = addresses[at].clone();
    if life.number == 1 {
        sleep(Duration::from_millis(shape.starts_ms[at])).await;
    }
    // Without another peer it is a grid of one, which has no seeds. A founder whose disk is new must
    // not found another grid: it is told of all.
    let seeds = match shape.peers {
        1 => Vec::new(),
        _ if life.disk.is_new() => addresses,
        _ => addresses.into_iter().take(shape.founders).collect(),
    };
    let removed = shape.removed();
    let limits = Limits { max_value_bytes: shape.value_bytes, ..Limits::default() };
    let config = NodeConfig {
        name: life.name.clone(),
        listen,
        seeds,
        data: "/data".into(),
        partitions: shape.partitions,
        insecure: true,
        limits,
        ..NodeConfig::default()
    };
    let observer = observe(&life, records.leaders.clone());
    let witness = records.witnessed.on(&life.name);
    let mut builder = Grid::builder().config(config).ports(ports(&life, &shape)).scatter("count-marks", CountMarks);
    if shape.plain != Some(at) {
        builder = builder.task("append", append).job(jobs::NAME, jobs::steps);
        builder = builder.partition_task("mark", mark);
    }
    let started = builder.adjust(move |settings| adjust(settings, &shape, (observer, witness))).start().await;
    let failed = match started {
        Ok(grid) => {
            records.nodes.borrow_mut().insert(life.name.clone(), Arc::downgrade(grid.node()));
            let ended = match records.kind {
                Kind::LocalReads => local::read_until_end(&grid, &life.name, &records).await,
                _ => grid.ended().await,
            };
            match ended {
                Ended::Stopped => Error::internal("it stopped, and nobody asked"),
                Ended::Failed(error) => error,
            }
        }
        Err(error) => error,
    };
    crate::event!(&life.name, "the peer has ended: {failed}");
    let was_removed = failed.code == Code::MemberRemoved && removed.contains(&life.name);
    if !life.lost_power() && !was_removed && !disk_excuses(&life, &failed) {
        let what = format!("{} gave up: {failed}", life.name);
        records.violations.borrow_mut().push(Violation { check: "a peer goes on", what });
    }
}

/// Whether the peer ended as it should on such a disk.
fn disk_excuses(life: &Life, failed: &Error) -> bool {
    let failing = life.disk.has_failed() && failed.code == Code::DiskFailed;
    let full = life.disk.has_limit() && failed.code == Code::DiskFull;
    let damaged = life.disk.is_damaged() && matches!(failed.code, Code::CorruptLog | Code::UnknownFormat);
    failing || full || damaged
}

fn index_of(name: &str) -> usize {
    name.trim_start_matches('n').parse::<usize>().map_or(0, |number| number - 1)
}

fn observe(life: &Life, leaders: LeaderLog) -> LeaderObserver {
    let node = life.name.clone();
    LeaderObserver(Arc::new(move |group, term, _| leaders.leader_observed(group.0, term, &node)))
}

fn ports(life: &Life, shape: &Shape) -> Ports {
    let disk: Arc<dyn Disk> = Arc::new(life.disk.clone());
    let (mount, on) = (life.disk.clone(), disk.clone());
    let backend: OpenBackend = match shape.sled {
        true => Arc::new(move |_| Ok(Arc::new(SimBackend::open(mount.clone())?))),
        false => Arc::new(move |dir| Ok(Arc::new(MemoryBackend::open(on.clone(), dir)?))),
    };
    Ports {
        clock: life.clock.clone(),
        random: life.random.clone(),
        threads: Arc::new(SimThreads),
        disk,
        network: Arc::new(life.network.clone()),
        membership: Arc::new(ChitchatMembership::new(Arc::new(life.transport()), ChitchatOptions::default())),
        backend,
    }
}

fn adjust(settings: &mut NodeSettings, shape: &Shape, (observer, witness): (LeaderObserver, Witness)) {
    settings.group.on_leader = Some(observer);
    settings.group.witness = Some(witness);
    settings.peer.grpc.keepalive = None;
    settings.housekeeping.checkpoint_bytes = shape.checkpoint_bytes;
    settings.housekeeping.replay_bytes = 0;
    settings.memory = shape.memory;
    settings.receptions.max_held_bytes = shape.held_snapshot_bytes;
    settings.housekeeping.keep_entries = 5;
    settings.housekeeping.max_lag_entries = shape.max_lag_entries;
    settings.watch.feed_per_partition = shape.feed_bytes;
    settings.watch.message_bytes = 2_000;
    settings.watch.progress = Duration::from_millis(500);
    settings.movement.settle = Duration::from_millis(300);
    settings.movement.replace_after = Duration::from_millis(shape.replace_after_ms);
    settings.movement.abandon_after = Duration::from_millis(1000);
    settings.log = LogConfig {
        segment_bytes: shape.segment_bytes,
        cache_bytes: 64 << 10,
        slack_bytes: shape.segment_bytes * 6,
        move_bytes: 16 << 10,
        ..LogConfig::default()
    };
}

/// Appends a mark to the key's list; answers the list's length.
fn append(context: &mut TaskContext<'_>, (mark, how): (u64, u8)) -> Result<u64, TaskError> {
    let key = context.key().to_vec();
    let mut list: Vec<u64> = context.get(LISTS, &key)?.unwrap_or_default();
    list.push(mark);
    context.put(LISTS, &key, &list)?;
    match how {
        PANIC => panic!("{PLANNED_PANIC}"),
        REFUSE => {
            // Only the partition finds out that the map holds numbers.
            context.put_value(MAP, &key, Value::utf8("no number"))?;
            Ok(0)
        }
        FAIL => Err(TaskError::new("planned", "a planned failure")),
        _ => Ok(list.len() as u64),
    }
}

/// Appends a mark to the partition's own list; answers the list's length.
fn mark(context: &mut PartitionContext<'_, '_>, mark: u64) -> Result<u64, TaskError> {
    let key = partition_key(context.slots());
    let mut list: Vec<u64> = context.get(LISTS, key.as_bytes())?.unwrap_or_default();
    list.push(mark);
    context.put(LISTS, key.as_bytes(), &list)?;
    Ok(list.len() as u64)
}

/// Counts the marks in the partitions' lists.
struct CountMarks;

impl Scatter for CountMarks {
    type Input = ();
    type Part = u64;
    type Output = u64;

    fn map(&self, partition: &mut PartitionScan<'_>, (): &()) -> Result<u64, TaskError> {
        let (key, mut count) = (partition_key(partition.slots()), 0);
        partition.each(LISTS, |found, value| {
            if found == key.as_bytes() {
                let list: Vec<u64> =
                    rmp_serde::from_slice(&value.data).map_err(|error| TaskError::new("no-list", error.to_string()))?;
                count += list.len() as u64;
            }
            Ok(())
        })?;
        Ok(count)
    }

    fn combine(&self, (): &(), into: &mut u64, other: u64) {
        *into += other;
    }

    fn reduce(&self, (): &(), all: Option<u64>, _into: &mut Vec<ResultMap>) -> Result<u64, TaskError> {
        Ok(all.unwrap_or(0))
    }
}
