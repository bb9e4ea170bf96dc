//! Brings fact to intent: the leader of each group compares the group's committed membership with
//! the placement in the meta group and takes one step; the meta group's leader also writes the
//! founding rows and takes members in. Every step is conditional, so that it does not matter which
//! peer takes it, or that two do.

use super::directory::Directory;
use super::facts::Facts;
use super::hosting::{Hosted, Hosting};
use crate::clock;
use crate::error::Result;
use crate::meta::{self, RowChange};
use crate::raft::GroupStatus;
use crate::types::{Condition, GroupId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(250);
/// How long one step may take before the next group has its turn.
const STEP: Duration = Duration::from_secs(5);
/// A learner may vote when it lacks at most so many entries.
const CAUGHT_UP: u64 = 64;

/// Reconciles the groups that this node leads.
pub struct Reconciler {
    /// What the node knows of the grid.
    pub directory: Arc<Directory>,
    /// The node's replicas.
    pub hosting: Arc<Hosting>,
    /// The grid's facts.
    pub facts: Arc<Facts>,
}

impl Reconciler {
    /// Works until it is dropped.
    pub async fn work(&self) {
        let mut tick = clock::interval(PERIOD);
        let mut view = self.directory.watch_view();
        loop {
            for (group, hosted) in self.hosting.all() {
                if !*hosted.executor.leads().borrow() {
                    continue;
                }
                let step = async {
                    match group {
                        GroupId::META => self.meta(&hosted).await,
                        _ => self.partition(group, &hosted).await,
                    }
                };
                // A group without a majority must not hold up the others.
                match clock::timeout(STEP, step).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%group, %error, "a step did not succeed; it is tried again"),
                    Err(_) => tracing::debug!(%group, "a step takes too long; it is tried again"),
                }
            }
            tokio::select! {
                biased;
                () = tick.tick() => {}
                changed = view.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The meta group's leader: founding rows, members, followers.
    async fn meta(&self, hosted: &Hosted) -> Result<()> {
        let view = self.directory.view();
        if view.grid.is_none() {
            return self.write_founding_rows().await;
        }
        let status = hosted.group.status();
        let members: BTreeMap<ReplicaId, NodeId> =
            status.voters.iter().chain(&status.learners).map(|(id, node)| (*id, *node)).collect();
        let learners = meta::missing_learners(&view, &members)?;
        if !learners.changes.is_empty() {
            return self.facts.write(learners.changes).await;
        }
        if let Some((id, node)) = learners.add.first() {
            return hosted.group.add_learner(*id, *node).await;
        }
        let gone: BTreeSet<ReplicaId> =
            learners.remove.into_iter().filter(|id| status.learners.contains_key(id)).collect();
        if !gone.is_empty() {
            return hosted.group.remove_learners(gone).await;
        }
        let replicas = view.replicas(GroupId::META);
        self.voters(hosted, &status, replicas.iter().map(|(id, _)| *id).collect()).await
    }

    async fn write_founding_rows(&self) -> Result<()> {
        let Some(record) = self.directory.record() else { return Ok(()) };
        let rows = meta::founding_rows(&record)?.into_iter();
        let absent = |(key, value)| RowChange { key, condition: Condition::Absent, value: Some(value) };
        self.facts.write(rows.map(absent).collect()).await
    }

    /// A partition's leader: marks it as formed, brings missing replicas in.
    async fn partition(&self, group: GroupId, hosted: &Hosted) -> Result<()> {
        let view = self.directory.view();
        if let Some(change) = meta::formed(&view, group)? {
            return self.facts.write(vec![change]).await;
        }
        let status = hosted.group.status();
        let wanted = view.replicas(group);
        let missing = |id: &ReplicaId| !status.voters.contains_key(id) && !status.learners.contains_key(id);
        if let Some((id, node)) = wanted.iter().find(|(id, _)| missing(id)) {
            return hosted.group.add_learner(*id, *node).await;
        }
        let wanted: BTreeSet<ReplicaId> = wanted.iter().map(|(id, _)| *id).collect();
        let gone: BTreeSet<ReplicaId> = status.learners.keys().copied().filter(|id| !wanted.contains(id)).collect();
        if !wanted.is_empty() && !gone.is_empty() {
            return hosted.group.remove_learners(gone).await;
        }
        self.voters(hosted, &status, wanted).await
    }

    /// Replaces the voters by the wanted ones, in one joint change, once those have caught up.
    async fn voters(&self, hosted: &Hosted, status: &GroupStatus, wanted: BTreeSet<ReplicaId>) -> Result<()> {
        let present: BTreeSet<ReplicaId> = status.voters.keys().copied().collect();
        if wanted.is_empty() || wanted == present || !wanted.contains(&hosted.group.replica()) {
            return Ok(());
        }
        let caught_up = |id: &ReplicaId| {
            *id == hosted.group.replica() || status.matched.get(id).is_some_and(|at| at + CAUGHT_UP >= status.last_log)
        };
        if wanted.difference(&present).all(caught_up) {
            tracing::info!(group = %hosted.group.id(), ?present, ?wanted, "replacing voters");
            hosted.group.change_voters(wanted).await?;
        }
        Ok(())
    }
}
