//! Brings fact to intent: the leader of each group compares the group's committed membership with
//! the placement in the meta group and takes one step; the meta group's leader also writes the
//! founding rows, takes members in and directs movement. Every step is conditional, so that it does
//! not matter which peer takes it, or that two do.

use super::directory::Directory;
use super::facts::Facts;
use super::hosting::{Hosted, Hosting};
use super::leading::Leading;
use super::movement::Movement;
use crate::clock::{self, Instant};
use crate::error::Result;
use crate::failpoint;
use crate::meta::{self, MemberIntent, MetaView, PlacementRow, RowChange};
use crate::planted::{Bug, planted};
use crate::raft::GroupStatus;
use crate::types::{Condition, GroupId, NodeId, ReplicaId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(250);
/// How long one step may take before the next group has its turn.
const STEP: Duration = Duration::from_secs(5);
/// Between two looks while something led here moves.
const BUSY_PERIOD: Duration = Duration::from_millis(25);
/// How long those that are to vote may take to answer before they are made the voters.
const HEAR: Duration = Duration::from_millis(500);
/// Groups that take a step at once.
const AT_ONCE: usize = 16;

/// Reconciles the groups that this node leads.
pub struct Reconciler {
    /// What the node knows of the grid.
    pub directory: Arc<Directory>,
    /// The node's replicas.
    pub hosting: Arc<Hosting>,
    /// The grid's facts.
    pub facts: Arc<Facts>,
    /// Directs movement, at the meta group's leader.
    pub movement: Arc<Movement>,
    /// Groups whose voters were asked to change, with the term: until the answer comes.
    pub changing: Mutex<BTreeMap<GroupId, u64>>,
    /// Groups that were marked as switching from here: the term, and the row's revision.
    pub marked: Mutex<BTreeMap<GroupId, (u64, u64)>>,
}

/// How the voters of a group stand to the wanted ones.
enum Voters {
    /// The wanted ones are the committed voters.
    AsWanted,
    /// They are not, and cannot be yet.
    Waiting,
    /// They may be made the voters now.
    Changeable,
}

impl Reconciler {
    /// Works until it is dropped. A group without a majority does not hold up the others: each has
    /// its own step under way, or none.
    pub async fn work(&self) {
        let mut view = self.directory.watch_view();
        let (mut steps, mut under_way) = (FuturesUnordered::new(), BTreeSet::new());
        let mut waiting: VecDeque<(GroupId, Arc<Hosted>)> = VecDeque::new();
        let (mut due, mut next) = (true, Instant::now());
        loop {
            if due && waiting.is_empty() {
                due = false;
                waiting = self.led().into_iter().filter(|(group, _)| !under_way.contains(group)).collect();
                next = Instant::now() + if self.is_busy(&waiting) { BUSY_PERIOD } else { PERIOD };
            }
            while steps.len() < AT_ONCE
                && let Some((group, hosted)) = waiting.pop_front()
            {
                under_way.insert(group);
                steps.push(async move {
                    self.step(group, hosted).await;
                    group
                });
            }
            tokio::select! {
                biased;
                Some(group) = steps.next(), if !steps.is_empty() => drop(under_way.remove(&group)),
                changed = view.changed() => match changed {
                    Ok(()) => due = true,
                    Err(_) => return,
                },
                () = clock::sleep_until(next), if waiting.is_empty() => due = true,
            }
        }
    }

    /// The groups that are led here. Movement is directed where the meta group is.
    fn led(&self) -> Vec<(GroupId, Arc<Hosted>)> {
        let leads = |hosted: &Arc<Hosted>| *hosted.executor.leads().borrow();
        let led: Vec<_> = self.hosting.all().into_iter().filter(|(_, hosted)| leads(hosted)).collect();
        if !led.iter().any(|(group, _)| *group == GroupId::META) {
            self.movement.forget();
        }
        led
    }

    fn is_busy(&self, led: &VecDeque<(GroupId, Arc<Hosted>)>) -> bool {
        let view = self.directory.view();
        led.iter().any(|(group, _)| view.placement_of(*group).is_some_and(PlacementRow::is_moving))
    }

    async fn step(&self, group: GroupId, hosted: Arc<Hosted>) {
        let step = async {
            match group {
                GroupId::META => self.meta(&hosted).await,
                _ => self.partition(group, &hosted).await,
            }
        };
        match clock::timeout(STEP, step).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%group, %error, "a step did not succeed; it is tried again"),
            Err(_) => tracing::debug!(%group, "a step takes too long; it is tried again"),
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
        let wanted = view.replicas(GroupId::META).iter().map(|(id, _)| *id).collect();
        match self.voters(hosted, &status, &wanted).await? {
            Voters::AsWanted => {
                self.changing().remove(&GroupId::META);
                self.movement.step(&status).await
            }
            Voters::Changeable => self.change_voters(hosted, &status, wanted, true).await,
            // Who was to vote may have died since: then others are to, or this would wait for ever.
            // Nor does the rest of the grid wait for these voters.
            Voters::Waiting if status.settled && !self.may_be_changing(GroupId::META, &status) => {
                self.movement.step(&status).await
            }
            Voters::Waiting => Ok(()),
        }
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
        let Some(row) = view.placement_of(group) else { return Ok(()) };
        let status = hosted.group.status();
        let target = row.target();
        let missing = |id: &ReplicaId| !status.voters.contains_key(id) && !status.learners.contains_key(id);
        if let Some((id, node)) = target.iter().find(|(id, _)| missing(id)) {
            tracing::debug!(%group, replica = id, %node, "a replica is added; it catches up");
            return hosted.group.add_learner(*id, *node).await;
        }
        let wanted: BTreeSet<ReplicaId> = target.iter().map(|(id, _)| *id).collect();
        let gone: BTreeSet<ReplicaId> = status.learners.keys().copied().filter(|id| !wanted.contains(id)).collect();
        if !wanted.is_empty() && !gone.is_empty() {
            return hosted.group.remove_learners(gone).await;
        }
        let newcomer_votes = || row.learners.iter().any(|(id, _)| status.voters.contains_key(id));
        match self.voters(hosted, &status, &wanted).await? {
            Voters::AsWanted => self.end_move(group, hosted, &view, &wanted).await,
            // The newcomers are kept from now on, whatever this leader or the next comes to.
            Voters::Changeable if row.is_moving() && !self.has_marked(&view, group, status.term) => {
                self.mark(&view, group, status.term).await
            }
            Voters::Changeable => {
                // An old copy may show a mark that has been taken away: the newcomers may then be
                // given up, and destroyed, while they become voters.
                self.facts.catch_up().await?;
                if self.directory.view().placement_of(group) != Some(row) {
                    return Ok(());
                }
                self.change_voters(hosted, &status, wanted, false).await
            }
            // It has not come to the change: a newcomer that is away may be given up again.
            Voters::Waiting
                if row.switching && status.settled && !newcomer_votes() && !self.may_be_changing(group, &status) =>
            {
                self.facts.write(meta::switching(&view, group, false)?.into_iter().collect()).await
            }
            Voters::Waiting => Ok(()),
        }
    }

    /// Whether this leader has marked the row as it is. The mark of a leader before it is not enough: that
    /// one may be about to take it back, and does not know that it leads no more.
    fn has_marked(&self, view: &MetaView, group: GroupId, term: u64) -> bool {
        let marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner).get(&group).copied();
        view.placement.get(&group).is_some_and(|placed| placed.row.switching && marked == Some((term, placed.revision)))
    }

    async fn mark(&self, view: &MetaView, group: GroupId, term: u64) -> Result<()> {
        let change = match meta::switching(view, group, true)? {
            None => meta::switching_still(view, group)?,
            change => change,
        };
        self.facts.write(change.into_iter().collect()).await?;
        if let Some(placed) = self.directory.view().placement.get(&group).filter(|placed| placed.row.switching) {
            let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
            marked.insert(group, (term, placed.revision));
        }
        Ok(())
    }

    /// The voters are the wanted ones: ends the move, if there is one, and lets the preferred
    /// replica lead.
    async fn end_move(
        &self,
        group: GroupId,
        hosted: &Hosted,
        view: &MetaView,
        wanted: &BTreeSet<ReplicaId>,
    ) -> Result<()> {
        let Some(change) = meta::moved(view, group, wanted)? else { return Ok(()) };
        failpoint::reach("moved-before-row");
        self.facts.write(vec![change]).await?;
        failpoint::reach("moved-after-row");
        self.movement.stats.ended.fetch_add(1, Relaxed);
        tracing::info!(%group, replicas = ?wanted, "a partition has moved");
        if let Some((better, _)) = Leading::of(&self.directory, hosted).better() {
            return hosted.group.transfer_leadership(better).await;
        }
        Ok(())
    }

    /// Whether the voters are the wanted ones, or may be replaced by them: those must have caught up.
    async fn voters(&self, hosted: &Hosted, status: &GroupStatus, wanted: &BTreeSet<ReplicaId>) -> Result<Voters> {
        let present: BTreeSet<ReplicaId> = status.voters.keys().copied().collect();
        if *wanted == present && status.settled {
            return Ok(Voters::AsWanted);
        }
        let me = hosted.group.replica();
        let caught_up = |id: &ReplicaId| *id == me || status.has_caught_up(*id) || planted(Bug::PromoteEarly);
        let group = hosted.group.id();
        if wanted.is_empty() || !wanted.difference(&present).all(caught_up) {
            tracing::debug!(%group, ?present, ?wanted, "a change waits: a newcomer has not caught up");
            return Ok(Voters::Waiting);
        }
        if !self.is_safe(status, wanted, |_| true) {
            tracing::debug!(%group, ?present, ?wanted, "a change waits: too few of the voters would be alive");
            return Ok(Voters::Waiting);
        }
        if !wanted.contains(&me) && present.intersection(wanted).next().is_some() {
            // The leader is to go: one that stays takes over first, and goes on with the change.
            let next = Leading::of(&self.directory, hosted).successor().filter(|next| wanted.contains(next));
            if let Some(next) = next.filter(caught_up) {
                tracing::debug!(%group, next, "leadership is handed over: this replica is to go");
                hosted.group.transfer_leadership(next).await?;
            }
            return Ok(Voters::Waiting);
        }
        // Gossip says late that a peer has died, and a change that needs it is never undone.
        let heard = hosted.group.hear_from(wanted, HEAR).await?;
        if !self.is_safe(status, wanted, |id| heard.contains(id)) {
            tracing::debug!(%group, ?present, ?wanted, ?heard, "a change waits: too few of the voters answer");
            return Ok(Voters::Waiting);
        }
        Ok(Voters::Changeable)
    }

    /// Replaces the voters by the wanted ones, in one joint change.
    async fn change_voters(
        &self,
        hosted: &Hosted,
        status: &GroupStatus,
        wanted: BTreeSet<ReplicaId>,
        keep_old: bool,
    ) -> Result<()> {
        let group = hosted.group.id();
        tracing::info!(%group, present = ?status.voters.keys(), ?wanted, "replacing voters");
        self.changing().insert(group, status.term);
        let changed = hosted.group.change_voters(wanted, keep_old).await;
        // Only an answer says that nothing is on its way any more; a step that takes too long ends
        // without one.
        self.changing().remove(&group);
        changed
    }

    /// Whether this leader has asked for a change of voters in this term, and was not answered.
    fn may_be_changing(&self, group: GroupId, status: &GroupStatus) -> bool {
        self.changing().get(&group) == Some(&status.term)
    }

    fn changing(&self) -> MutexGuard<'_, BTreeMap<GroupId, u64>> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a change of voters leaves no fewer of them alive than there are, and a majority of
    /// the new ones: unless a member is being removed for good, whose copy goes in any case. Of the new ones
    /// only those count that answer.
    fn is_safe(
        &self,
        status: &GroupStatus,
        wanted: &BTreeSet<ReplicaId>,
        answers: impl Fn(&ReplicaId) -> bool,
    ) -> bool {
        let view = self.directory.view();
        let known: BTreeMap<ReplicaId, NodeId> =
            status.voters.iter().chain(&status.learners).map(|(id, node)| (*id, *node)).collect();
        let counts = |id: &&ReplicaId| known.get(id).is_some_and(|node| self.directory.is_alive(*node));
        let stays = |node: &NodeId| view.member(*node).is_some_and(|row| row.intent != MemberIntent::Removing);
        let before = status.voters.iter().filter(|(id, node)| counts(id) && stays(node)).count();
        let after = wanted.iter().filter(counts).filter(|id| answers(id)).count();
        // In a joint change both sets count as voters; what was safe to begin is brought to its end.
        (status.joint || after >= before) && after > wanted.len() / 2
    }
}
