//! One replica of one group, running: the handle through which everything above proposes, reads
//! and changes members. A group's payloads are opaque here.

use super::log_store::LogStore;
use super::machine::{Machine, MachineAdapter, term_of};
use super::types::{LogPayload, Outcome, ReplicaNode, TypeConfig, Vote};
use super::witness::{Watched, Witness};
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::failpoint;
use crate::planted::{self, Loss};
use crate::types::{GroupId, NodeId, ReplicaId};
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{ChangeMembers, Raft, RaftNetworkFactory, ReadPolicy, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The running openraft of a group.
pub type RaftHandle = Raft<TypeConfig, MachineAdapter>;

/// Timing and bounds of every group of a node.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// An election starts after a silence between these two.
    pub election: (Duration, Duration),
    /// Entries in one AppendEntries; bytes are bounded by the network adapter.
    pub max_append_entries: u64,
    /// Is told whenever a replica here finds itself leader. Only the simulator sets it.
    pub on_leader: Option<LeaderObserver>,
    /// Is told what each replica here does to its log, vote and state. Only the simulator sets it.
    pub witness: Option<Witness>,
}

/// Told of each leadership: group, term, replica.
#[derive(Clone)]
pub struct LeaderObserver(pub Arc<dyn Fn(GroupId, u64, ReplicaId) + Send + Sync>);

impl std::fmt::Debug for LeaderObserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaderObserver")
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(500)),
            max_append_entries: 256,
            on_leader: None,
            witness: None,
        }
    }
}

impl GroupConfig {
    /// A follower that has answered an append within this time needs no heartbeat; `None` where
    /// the silence could then be taken for a dead leader's.
    fn spared_heartbeats(&self) -> Option<u64> {
        let (heartbeat, election) = (self.heartbeat.as_millis() as u64, self.election.0.as_millis() as u64);
        (heartbeat * 2 < election).then_some(heartbeat / 2)
    }

    fn openraft(&self, group: GroupId) -> Result<Arc<openraft::Config>> {
        let config = openraft::Config {
            cluster_name: format!("group-{group}"),
            heartbeat_interval: self.heartbeat.as_millis() as u64,
            election_timeout_min: self.election.0.as_millis() as u64,
            election_timeout_max: self.election.1.as_millis() as u64,
            heartbeat_min_interval: self.spared_heartbeats(),
            max_payload_entries: self.max_append_entries,
            // Checkpoints and purges are ours to time: see the node's housekeeping.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            install_snapshot_timeout: 60_000,
            enable_pre_vote: Some(true),
            // A restart always begins a new run (DESIGN section 3): leadership is won again.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        let config = config.validate().map_err(|error| Error::new(Code::InvalidConfig, error.to_string()))?;
        Ok(Arc::new(config))
    }
}

/// Who leads, as this replica knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leading replica and its node.
    pub leader: Option<(ReplicaId, NodeId)>,
    /// Whether this replica leads.
    pub is_me: bool,
}

/// What became of a proposal.
#[derive(Debug)]
pub enum Verdict {
    /// Committed and applied; says whether it took effect.
    Applied(Outcome),
    /// Not known to be committed: refused, overwritten, or the group has stopped.
    Unknown,
}

/// Waits for a proposal's verdict.
pub struct VerdictReceiver(openraft::alias::OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>);

impl VerdictReceiver {
    /// The verdict.
    pub async fn wait(self) -> Verdict {
        match self.0.await {
            Ok(Ok(response)) => Verdict::Applied(response.data),
            Ok(Err(_)) | Err(_) => Verdict::Unknown,
        }
    }
}

/// How late a proposal is that was planted as lost.
const LOST_FOR: Duration = Duration::from_millis(20);

/// A replica has caught up when it lacks at most so many entries.
const CAUGHT_UP: u64 = 64;

/// Where a group stands, for people and metrics.
#[derive(Clone, Debug, Default)]
pub struct GroupStatus {
    /// The term.
    pub term: u64,
    /// Last log index.
    pub last_log: u64,
    /// Last applied index.
    pub applied: u64,
    /// Voters with their nodes.
    pub voters: BTreeMap<ReplicaId, NodeId>,
    /// Learners with their nodes.
    pub learners: BTreeMap<ReplicaId, NodeId>,
    /// At the leader: each replica's last matching index; `None` of one that has not
    /// acknowledged anything to this leader.
    pub matched: BTreeMap<ReplicaId, Option<u64>>,
    /// The log is purged up to here.
    pub purged: u64,
    /// Index of the entry that named these members.
    pub members_at: u64,
    /// Whether these members are the committed ones, and no joint change is under way.
    pub settled: bool,
    /// Whether a joint change is under way: then the voters are the old and the new ones together.
    pub joint: bool,
}

impl GroupStatus {
    /// At the leader: whether another replica could do a voter's work at once. One that has never
    /// acknowledged anything could not, however short the log is: it may not even run yet.
    pub fn has_caught_up(&self, replica: ReplicaId) -> bool {
        self.is_close(self.matched.get(&replica).copied().flatten())
    }

    /// As [`GroupStatus::has_caught_up`], of a replica that has acknowledged up to here.
    pub fn is_close(&self, matched: Option<u64>) -> bool {
        matched.is_some_and(|at| at + CAUGHT_UP >= self.last_log)
    }
}

/// One replica of one group.
pub struct Group {
    group: GroupId,
    replica: ReplicaId,
    raft: RaftHandle,
    log: LogStore,
    leadership: watch::Receiver<Leadership>,
    watcher: clock::JoinHandle<()>,
}

fn fatal(group: GroupId, error: impl std::fmt::Display) -> Error {
    Error::new(Code::ShuttingDown, format!("group {group} has stopped: {error}"))
}

impl Group {
    /// Starts a replica on its log and state.
    ///
    /// # Errors
    /// An unusable configuration, or a log that cannot be read.
    pub async fn start<N>(
        group: GroupId,
        replica: ReplicaId,
        config: &GroupConfig,
        log: LogStore,
        network: N,
        machine: Arc<dyn Machine>,
    ) -> Result<Arc<Self>>
    where
        N: RaftNetworkFactory<TypeConfig>,
        N::Network: openraft::network::NetSnapshot<TypeConfig, SnapshotData = super::SnapshotData>,
    {
        let watched = Watched::new(config.witness.as_ref(), group, replica);
        let log = log.watched(watched.clone());
        let adapter = MachineAdapter::new(machine, watched);
        let raft = Raft::new(replica, config.openraft(group)?, network, log.clone(), adapter)
            .await
            .map_err(|error| fatal(group, error))?;
        let (sender, leadership) = watch::channel(Leadership::default());
        let mut metrics = raft.server_metrics();
        let observer = config.on_leader.clone();
        let watcher = clock::spawn(async move {
            loop {
                let now = {
                    let metrics = metrics.borrow_watched();
                    let members = metrics.membership_config.membership();
                    let node = |id: ReplicaId| members.get_node(&id).map_or(NodeId(0), |node| node.node);
                    Leadership {
                        term: metrics.vote.leader_id.term,
                        leader: metrics.current_leader.map(|id| (id, node(id))),
                        is_me: metrics.state == ServerState::Leader && metrics.current_leader == Some(replica),
                    }
                };
                if let Some(LeaderObserver(told)) = observer.as_ref().filter(|_| now.is_me) {
                    told(group, now.term, replica);
                }
                sender.send_if_modified(|known| std::mem::replace(known, now) != now);
                if metrics.changed().await.is_err() {
                    sender.send_replace(Leadership::default());
                    return;
                }
            }
        });
        Ok(Arc::new(Group { group, replica, raft, log, leadership, watcher }))
    }

    /// Which group.
    pub fn id(&self) -> GroupId {
        self.group
    }

    /// Which replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// openraft itself, for the network's receiving side.
    pub fn raft(&self) -> &RaftHandle {
        &self.raft
    }

    /// Who leads, and every change.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Hands a proposal to the log, if this replica still leads `term`. Proposals reach the log
    /// in the order of the calls of one task.
    ///
    /// # Errors
    /// `ShuttingDown` when the group has stopped. A refusal comes as a verdict.
    pub async fn propose(&self, term: u64, payload: Bytes) -> Result<VerdictReceiver> {
        let (responder, receiver) = ProgressResponder::complete_only();
        let leader = openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(term);
        if self.group != GroupId::META
            && let Some(loss) = planted::lost_proposal()
        {
            let raft = self.raft.clone();
            clock::spawn(async move {
                if loss == Loss::ForAWhile {
                    drop(responder);
                    clock::sleep(LOST_FOR).await;
                    let (unheard, _) = ProgressResponder::complete_only();
                    let _ = raft.write(LogPayload(payload)).with_leader(leader).responder(unheard).await;
                } else {
                    clock::sleep(LOST_FOR / 4).await;
                    drop(responder);
                }
            });
            return Ok(VerdictReceiver(receiver));
        }
        self.raft
            .write(LogPayload(payload))
            .with_leader(leader)
            .responder(responder)
            .await
            .map_err(|error| fatal(self.group, error))?;
        Ok(VerdictReceiver(receiver))
    }

    /// The vote that this replica has saved last.
    pub fn saved_vote(&self) -> Option<Vote> {
        self.log.saved_vote()
    }

    /// Confirms leadership by heartbeats begun after this call, which renew the right to write as
    /// well; gives the term confirmed.
    ///
    /// # Errors
    /// `NotLeader`, or `NoLeader` when no majority answers.
    pub async fn confirm_leadership(&self) -> Result<u64> {
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        let linearizer = linearizer.map_err(|error| Error::new(Code::NoLeader, error.to_string()))?;
        Ok(linearizer.read_log_id().log_id().committed_leader_id().term)
    }

    /// Forms a pristine group. Does nothing on one that is formed already.
    ///
    /// # Errors
    /// When the group has stopped or the members are refused.
    pub async fn initialize(&self, members: BTreeMap<ReplicaId, NodeId>) -> Result<()> {
        if self.raft.is_initialized().await.map_err(|error| fatal(self.group, error))? {
            return Ok(());
        }
        let members: BTreeMap<_, _> = members.into_iter().map(|(id, node)| (id, ReplicaNode { node })).collect();
        self.raft.initialize(members).await.map_err(|error| Error::internal(format!("group {}: {error}", self.group)))
    }

    /// At the leader: adds a learner; returns at once, before it has caught up.
    ///
    /// # Errors
    /// `RowChanged` when another change is under way, `NotLeader`.
    pub async fn add_learner(&self, replica: ReplicaId, node: NodeId) -> Result<()> {
        failpoint::reach("learner-before-ask");
        let added = self.raft.add_learner(replica, ReplicaNode { node }, false).await;
        failpoint::reach("learner-after-ask");
        added.map(drop).map_err(|error| self.refused(error))
    }

    /// At the leader: replaces voters by others, in one joint change; the old ones leave the group, or
    /// go on as learners.
    ///
    /// # Errors
    /// As [`Group::add_learner`].
    pub async fn change_voters(&self, voters: BTreeSet<ReplicaId>, keep_old: bool) -> Result<()> {
        failpoint::reach("voters-before-ask");
        let changed = self.raft.change_membership(voters, keep_old).await;
        failpoint::reach("voters-after-ask");
        changed.map(drop).map_err(|error| self.refused(error))
    }

    /// At the leader: removes learners.
    ///
    /// # Errors
    /// As [`Group::add_learner`].
    pub async fn remove_learners(&self, learners: BTreeSet<ReplicaId>) -> Result<()> {
        let change = ChangeMembers::RemoveNodes(learners);
        self.raft.change_membership(change, false).await.map(drop).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: impl std::fmt::Display) -> Error {
        Error::new(Code::RowChanged, format!("group {} refused a change of its members: {error}", self.group))
    }

    /// At the leader: hands leadership to another voter; tries once.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn transfer_leadership(&self, to: ReplicaId) -> Result<()> {
        self.raft.trigger().transfer_leader(to).await.map_err(|error| fatal(self.group, error))
    }

    /// Asks for a checkpoint; returns before it is made.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn checkpoint(&self) -> Result<()> {
        self.raft.trigger().snapshot().await.map_err(|error| fatal(self.group, error))
    }

    /// Lets the log forget entries up to this index, as far as the last checkpoint allows.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn purge(&self, upto: u64) -> Result<()> {
        self.raft.trigger().purge_log(upto).await.map_err(|error| fatal(self.group, error))
    }

    /// Whether it has stopped by itself: its log or state failed.
    pub fn has_stopped(&self) -> bool {
        self.raft.metrics().borrow_watched().running_state.is_err()
    }

    /// Where the group stands.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let voters: BTreeSet<ReplicaId> = members.voter_ids().collect();
        let (mut voting, mut learning) = (BTreeMap::new(), BTreeMap::new());
        for (id, node) in members.nodes() {
            let kind = if voters.contains(id) { &mut voting } else { &mut learning };
            kind.insert(*id, node.node);
        }
        let matched = metrics.replication.iter().flatten();
        let changed_at = metrics.membership_config.log_id().as_ref().map_or(0, |id| id.index);
        let applied = metrics.last_applied.as_ref().map_or(0, |id| id.index);
        GroupStatus {
            members_at: changed_at,
            settled: members.get_joint_config().len() == 1 && changed_at <= applied,
            joint: members.get_joint_config().len() > 1,
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            voters: voting,
            learners: learning,
            matched: matched.map(|(id, at)| (*id, at.as_ref().map(|at| at.index))).collect(),
            purged: metrics.purged.map_or(0, |id| id.index),
        }
    }

    /// At the leader: those of these replicas that have answered what was sent to them after this call;
    /// waits for all of them, at most for so long. The leader has heard of itself.
    ///
    /// # Errors
    /// When the group has stopped.
    pub async fn hear_from(&self, replicas: &BTreeSet<ReplicaId>, within: Duration) -> Result<BTreeSet<ReplicaId>> {
        let (asked, mut metrics) = (clock::Instant::now(), self.raft.metrics());
        self.raft.trigger().heartbeat().await.map_err(|error| fatal(self.group, error))?;
        let mut heard = BTreeSet::new();
        let all = async {
            loop {
                {
                    let known = metrics.borrow_watched();
                    let answered =
                        known.heartbeat.iter().flatten().filter(|(_, sent)| sent.is_some_and(|at| *at >= asked));
                    heard =
                        answered.map(|(id, _)| *id).chain([self.replica]).filter(|id| replicas.contains(id)).collect();
                }
                if heard.len() == replicas.len() || metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        // Who has not answered by now is left out.
        let _ = clock::timeout(within, all).await;
        Ok(heard)
    }

    /// The term in which a log id was proposed.
    pub fn term_of(log_id: &super::LogId) -> u64 {
        term_of(log_id)
    }

    /// Stops the replica; its log and state stay.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.group, %error, "a group did not stop cleanly");
        }
        self.watcher.abort();
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
