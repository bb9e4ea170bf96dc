//! Movement, as the meta group's leader directs it: who is gone, which partitions move next, who
//! votes in the meta group, which members' removal is done. It only writes rows, on the condition
//! that nothing changed meanwhile; the groups' leaders make them true. What it remembers between
//! two looks (since when a peer is away, since when the members are as they are) may be lost with
//! it: whoever leads next begins to count anew.

use super::directory::Directory;
use super::facts::Facts;
use crate::clock::Instant;
use crate::config::Limits;
use crate::error::Result;
use crate::meta::{self, MemberIntent, MetaView, MoveLimits, MovePlan, Standing};
use crate::raft::GroupStatus;
use crate::types::{GroupId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bounds and delays of movement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovementConfig {
    /// Nothing is planned until the members have been the same for so long, so that two peers that
    /// join together make one plan.
    pub settle: Duration,
    /// The replicas of a peer that is away for longer are created elsewhere.
    pub replace_after: Duration,
    /// A move whose newcomer is away for so long is given up.
    pub abandon_after: Duration,
    /// Partitions that move at once in the whole grid.
    pub moves_per_grid: usize,
    /// Partitions that move at once to or from one peer.
    pub moves_per_node: usize,
}

impl From<&Limits> for MovementConfig {
    fn from(limits: &Limits) -> Self {
        MovementConfig {
            settle: Duration::from_millis(limits.move_settle_ms),
            replace_after: Duration::from_millis(limits.move_replace_after_ms),
            abandon_after: Duration::from_millis(limits.move_abandon_after_ms),
            moves_per_grid: limits.moves_per_grid,
            moves_per_node: limits.moves_per_node,
        }
    }
}

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct MovementStats {
    /// Moves begun by this peer's plans.
    pub begun: AtomicU64,
    /// Moves ended by this peer, as the leader of the partition.
    pub ended: AtomicU64,
    /// Moves given up by this peer's plans.
    pub abandoned: AtomicU64,
}

/// What a plan depends on; when it changes, the plan waits for it to settle.
type Roster = Vec<(NodeId, u32, Option<String>, MemberIntent, bool)>;

#[derive(Default)]
struct Memory {
    away_since: BTreeMap<NodeId, Instant>,
    roster: Roster,
    settled_since: Option<Instant>,
}

/// Directs movement while this node leads the meta group.
pub struct Movement {
    /// What the node knows of the grid.
    pub directory: Arc<Directory>,
    /// The grid's facts.
    pub facts: Arc<Facts>,
    /// Bounds and delays.
    pub config: MovementConfig,
    /// Counts.
    pub stats: Arc<MovementStats>,
    memory: Mutex<Memory>,
}

impl Movement {
    /// Knows nothing yet.
    pub fn new(
        directory: Arc<Directory>,
        facts: Arc<Facts>,
        config: MovementConfig,
        stats: Arc<MovementStats>,
    ) -> Self {
        Movement { directory, facts, config, stats, memory: Mutex::default() }
    }

    /// Another peer leads the meta group now.
    pub fn forget(&self) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Memory::default();
    }

    /// One look at the grid, and at most one write. No change of the meta group's voters may be on its
    /// way.
    ///
    /// # Errors
    /// What the write says; the next look works it out anew.
    pub async fn step(&self, status: &GroupStatus) -> Result<()> {
        let view = self.directory.view();
        let (standing, settled) = self.look(&view);
        let voters: BTreeSet<NodeId> = status.voters.values().copied().collect();
        let removed = meta::removed(&view, &voters)?;
        if !removed.is_empty() {
            tracing::info!("a member holds nothing any more and is removed");
            return self.facts.write(removed).await;
        }
        if !settled {
            return Ok(());
        }
        if let Some(change) = meta::meta_voters(&view, &standing, &status.voters.keys().copied().collect())? {
            tracing::info!("the voters of the meta group change");
            return self.facts.write(vec![change]).await;
        }
        let limits = MoveLimits { per_grid: self.config.moves_per_grid, per_node: self.config.moves_per_node };
        let plan = meta::plan_moves(&view, &standing, &limits)?;
        if plan.changes.is_empty() {
            return Ok(());
        }
        self.facts.write(plan.changes.clone()).await?;
        self.report(&plan);
        Ok(())
    }

    fn report(&self, plan: &MovePlan) {
        self.stats.begun.fetch_add(plan.begun.len() as u64, Relaxed);
        self.stats.abandoned.fetch_add(plan.abandoned.len() as u64, Relaxed);
        let names = |replicas: &[(ReplicaId, NodeId)]| -> Vec<String> {
            replicas.iter().map(|(id, node)| format!("{id}@{}", self.directory.name_of(*node))).collect()
        };
        for planned in &plan.begun {
            let (coming, leaving) = (names(&planned.coming), names(&planned.leaving));
            tracing::info!(group = %planned.group, ?coming, ?leaving, why = planned.why, "a partition moves");
        }
        for group in &plan.abandoned {
            tracing::warn!(%group, "a move is given up: a peer that it needs is away or goes");
        }
    }

    /// Who stands where, and whether that has been so for a while.
    fn look(&self, view: &MetaView) -> (Standing, bool) {
        let now = Instant::now();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alive = |node: &NodeId| self.directory.is_alive(*node);
        let alive: BTreeSet<NodeId> = view.members.keys().copied().filter(is_alive).collect();
        memory.away_since.retain(|node, _| view.members.contains_key(node) && !alive.contains(node));
        for node in view.members.keys().filter(|node| !alive.contains(node)) {
            memory.away_since.entry(*node).or_insert(now);
        }
        let away_for = |node: &NodeId, long: Duration| {
            memory.away_since.get(node).is_some_and(|since| now.saturating_duration_since(*since) >= long)
        };
        let gone: BTreeSet<NodeId> =
            view.members.keys().copied().filter(|node| away_for(node, self.config.replace_after)).collect();
        let waits_in_vain = |(_, node): &(ReplicaId, NodeId)| away_for(node, self.config.abandon_after);
        let stuck: BTreeSet<GroupId> = view
            .placement
            .values()
            .filter(|placed| placed.row.is_moving() && placed.row.learners.iter().any(waits_in_vain))
            .map(|placed| placed.row.group)
            .collect();
        let roster: Roster = view
            .members
            .values()
            .map(|member| &member.row)
            .map(|row| (row.node, row.weight, row.zone.clone(), row.intent, gone.contains(&row.node)))
            .collect();
        if memory.roster != roster {
            memory.roster = roster;
            memory.settled_since = Some(now);
        }
        let settled =
            memory.settled_since.is_some_and(|since| now.saturating_duration_since(since) >= self.config.settle);
        (Standing { alive, gone, stuck }, settled)
    }
}
