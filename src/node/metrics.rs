//! Metrics in Prometheus' text format, read at each scrape; `docs/METRICS.md` lists the names.

use super::grid_node::Node;
use super::service::GridService;
use crate::storage::log::LogHealth;
use crate::types::GroupId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::Ordering::Relaxed;

/// One reading: name without prefix, help, value, and whether it only grows.
type Reading = (&'static str, &'static str, u64, bool);

#[derive(Debug)]
struct Readings {
    plain: Vec<Reading>,
    frames: Vec<(u8, u64, u64)>,
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for (name, help, value, grows) in &self.plain {
            if *grows {
                let counter = ConstCounter::new(*value);
                counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
            } else {
                let gauge = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
            }
        }
        for (at, name, help) in [
            (0, "peer_frames_sent", "Frames sent to other peers, by kind"),
            (1, "peer_bytes_sent", "Payload bytes sent to other peers, by kind"),
        ] {
            let first = ConstCounter::new(0u64);
            let mut metric = encoder.encode_descriptor(name, help, None, first.metric_type())?;
            for (kind, frames, bytes) in &self.frames {
                let counter = ConstCounter::new(if at == 0 { *frames } else { *bytes });
                counter.encode(metric.encode_family(&[("kind", kind.to_string())])?)?;
            }
        }
        Ok(())
    }
}

/// All metrics of a node.
pub fn text(node: &Node) -> String {
    let mut registry = Registry::with_prefix("keystead");
    let frames = node.network_stats().iter().map(|stats| (stats.kind, stats.frames_out, stats.bytes_out)).collect();
    registry.register_collector(Box::new(Readings { plain: readings(node), frames }));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => format!("# the metrics cannot be encoded: {error}\n"),
    }
}

fn readings(node: &Node) -> Vec<Reading> {
    let groups = node.hosting.all();
    let partitions = || groups.iter().filter(|(group, _)| *group != GroupId::META);
    let executors = &node.hosting.stats;
    let log = node.log_stats();
    let healthy = matches!(*node.hosting.parts.log.health().borrow(), LogHealth::Ok);
    let rows: usize = partitions().map(|(_, hosted)| hosted.state.size().0).sum();
    let bytes: usize = partitions().map(|(_, hosted)| hosted.state.size().1).sum();
    let cold: usize = partitions().map(|(_, hosted)| hosted.state.cold_rows()).sum();
    let memory = &node.hosting.parts.memory;
    let view = node.directory.view();
    let wanted = view.grid.as_ref().map_or(0, |grid| grid.row.replicas);
    let node_is_alive = |id| node.directory.is_alive(id);
    let short = view.placement.iter().filter(|(group, row)| {
        let here = row.row.replicas.iter().filter(|(_, node)| node_is_alive(*node)).count();
        **group != GroupId::META && here < wanted
    });
    let tasks = &node.hosting.parts.tasks;
    let movement = &node.movement.stats;
    let moving = view.placement.values().filter(|placed| placed.row.is_moving()).count() as u64;
    vec![
        ("ready", "1 when the peer serves", u64::from(node.ready().is_ok()), false),
        ("members", "Members that the meta group knows", view.members.len() as u64, false),
        ("moves_under_way", "Partitions whose replicas are being replaced", moving, false),
        (
            "moves_begun",
            "Moves begun by this peer's plans, as the meta group's leader",
            movement.begun.load(Relaxed),
            true,
        ),
        (
            "moves_ended",
            "Moves brought to their end by this peer, as the partition's leader",
            movement.ended.load(Relaxed),
            true,
        ),
        ("moves_abandoned", "Moves given up by this peer's plans", movement.abandoned.load(Relaxed), true),
        ("members_alive", "Members that gossip holds for alive", node.directory.live().len() as u64, false),
        ("meta_version", "Revision of the local copy of the grid's facts", view.version, false),
        ("partition_replicas", "Partition replicas held", partitions().count() as u64, false),
        (
            "partition_leaders",
            "Partitions led",
            partitions().filter(|(_, h)| h.leadership().is_me).count() as u64,
            false,
        ),
        (
            "partitions_under_replicated",
            "Partitions with fewer living replicas than configured",
            short.count() as u64,
            false,
        ),
        ("rows", "Rows in the replicas held", rows as u64, false),
        ("row_bytes", "Bytes of the rows held", bytes as u64, false),
        ("rows_cold", "Rows whose values are on disk alone", cold as u64, false),
        (
            "memory_limit_bytes",
            "Bytes that the state may take in RAM; 0 without a limit",
            memory.limit().unwrap_or(0),
            false,
        ),
        ("memory_used_bytes", "Bytes that the state takes in RAM, overheads included", memory.used(), false),
        ("memory_changed_bytes", "Of these, bytes of rows not checkpointed yet", memory.dirty(), false),
        ("memory_evicted_values", "Values that left RAM", memory.stats.evicted.load(Relaxed), true),
        ("memory_cold_reads", "Values read from disk", memory.stats.cold_reads.load(Relaxed), true),
        (
            "memory_cold_reads_unforeseen",
            "Values read from disk one at a time, by whoever needed them",
            memory.stats.cold_reads_inline.load(Relaxed),
            true,
        ),
        (
            "memory_stalls",
            "Entries that waited for room before they were applied",
            memory.stats.stalls.load(Relaxed),
            true,
        ),
        (
            "memory_refused_writes",
            "Writes refused because the memory limit is reached",
            memory.stats.refused.load(Relaxed),
            true,
        ),
        ("commands", "Commands answered by executors here", executors.commands.load(Relaxed), true),
        ("batches", "Batches that took effect here", executors.batches.load(Relaxed), true),
        ("read_rounds", "Rounds that confirmed leadership for reads", executors.read_rounds.load(Relaxed), true),
        ("runs", "Executor runs begun", executors.runs.load(Relaxed), true),
        ("fenced_proposals", "Proposals refused, failed or without effect", executors.fenced.load(Relaxed), true),
        ("tasks", "Tasks run here", executors.tasks.load(Relaxed), true),
        ("entries_expired", "Entries deleted because their time was over", executors.expired.load(Relaxed), true),
        ("entries_evicted", "Entries deleted because their map was at a limit", executors.evicted.load(Relaxed), true),
        ("writes_map_full", "Writes refused because their map was at a limit", executors.map_full.load(Relaxed), true),
        (
            "task_cancellations",
            "Cancellations of tasks that the peer was told of",
            node.hosting.cancelled.count(),
            true,
        ),
        ("job_tasks_running", "Job tasks that run here", node.jobs.count() as u64, false),
        ("scatter_steps", "Steps of scatters run here", node.mapper.steps.load(Relaxed), true),
        ("task_threads_stuck", "Threads stuck in user code", tasks.stuck_threads() as u64, false),
        ("task_state_reads_local", "Entries that tasks read from local state", tasks.state_reads(), true),
        ("task_state_reads_remote", "Entries that tasks read over the network", node.remote_state_reads(), true),
        ("watches", "Watches served", node.watching.active() as u64, false),
        ("copy_bytes", "Bytes of the copies of replicated maps", node.copying.bytes() as u64, false),
        ("feed_bytes", "Bytes of the history of changes", node.hosting.parts.feeds.bytes() as u64, false),
        ("requests_forwarded", "Requests sent on to another peer", node.router.forwarded.load(Relaxed), true),
        (
            "clock_offset_ms",
            "How far this clock differs from the members' median",
            node.clock_watch.offset_ms().unsigned_abs(),
            false,
        ),
        ("log_ok", "1 when the log can be written", u64::from(healthy), false),
        ("log_disk_bytes", "Bytes of the log's segments", log.disk_bytes, false),
        ("log_live_bytes", "Bytes of entries still needed", log.live_bytes, false),
        ("log_segments", "Segments of the log", log.segments, false),
        ("log_syncs", "Syncs of the log", log.syncs, true),
        ("log_batches", "Batches written to the log", log.batches, true),
        ("log_entries", "Entries appended to the log", log.entries, true),
        ("log_entry_bytes", "Bytes of entries appended to the log", log.entry_bytes, true),
        ("log_moved_bytes", "Bytes rewritten so that old segments could go", log.moved_bytes, true),
    ]
}
