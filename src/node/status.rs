//! What people and clients ask about the grid: members, partitions, leaders, and why a key is
//! where it is. Gathered from all members, each of which knows its own replicas best.

use super::directory::Directory;
use super::hosting::Hosting;
use super::router::Router;
use super::service::{Explanation, MemberInfo, MemberState, PartitionInfo, PlacementTable, ReplicaInfo, ReplicaState};
use super::wire::{self, GroupReport, StatusReport, kind};
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::meta::{MemberIntent, PlacementRow, TaskMark};
use crate::net::peer::{AddressBook, Lane, PeerTransport};
use crate::ring;
use crate::types::{GroupId, NodeId, PartitionId, ReplicaId, affinity_of, slot_of};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long another peer may take to say how it stands.
const ASK: Duration = Duration::from_millis(500);
/// How often a peer that does not hold every partition asks who leads the others.
const FOLLOW: Duration = Duration::from_secs(1);

/// Answers questions about the grid.
pub struct Status {
    /// What the node knows of the grid.
    pub directory: Arc<Directory>,
    /// The node's replicas.
    pub hosting: Arc<Hosting>,
    /// Learns from the answers who leads.
    pub router: Arc<Router>,
    /// Connections to the others.
    pub transport: Arc<PeerTransport>,
}

impl Status {
    /// How this node stands.
    pub fn own_report(&self) -> StatusReport {
        let report = |(group, hosted): (GroupId, Arc<super::hosting::Hosted>)| {
            let leadership = hosted.leadership();
            GroupReport {
                group,
                replica: hosted.group.replica(),
                leader: leadership.leader.map(|(_, node)| node),
                term: leadership.term,
                applied: *hosted.state.applied_index().borrow(),
                rows: hosted.state.size().0 as u64,
            }
        };
        StatusReport {
            groups: self.hosting.all().into_iter().map(report).collect(),
            time: self.router.time(),
            trouble: self.directory.trouble(),
        }
    }

    /// How another node stands, if it answers.
    pub async fn report_of(&self, node: NodeId) -> Option<StatusReport> {
        let call = self.transport.call(node, Lane::Request, GroupId::META, kind::STATUS, Bytes::new(), ASK);
        wire::decode(&call.await.ok()?).ok()
    }

    /// How all living members stand; a member that does not answer is left out.
    async fn gather(&self) -> BTreeMap<NodeId, StatusReport> {
        let me = self.directory.me();
        let view = self.directory.view();
        let others = view.members.keys().copied().filter(|node| *node != me && self.directory.is_alive(*node));
        let asked = others.map(|node| async move { Some((node, self.report_of(node).await?)) });
        let answers = futures::future::join_all(asked.collect::<Vec<_>>()).await;
        let mut reports: BTreeMap<NodeId, StatusReport> = answers.into_iter().flatten().collect();
        reports.insert(me, self.own_report());
        for (group, leader, _) in leaders(&reports).values() {
            self.router.note_leader(*group, *leader);
        }
        reports
    }

    /// How far each other living member's clock is ahead of this node's, in milliseconds. The
    /// answer is taken to have been given half-way through the question's time.
    pub async fn clock_offsets(&self) -> Vec<i64> {
        let view = self.directory.view();
        let me = self.directory.me();
        let others = view.members.keys().copied().filter(|node| *node != me && self.directory.is_alive(*node));
        let asked = others.map(|node| async move {
            let before = self.router.time().ms() as i64;
            let call = self.transport.call(node, Lane::Request, GroupId::META, kind::STATUS, Bytes::new(), ASK);
            let report: StatusReport = wire::decode(&call.await.ok()?).ok()?;
            let after = self.router.time().ms() as i64;
            Some(report.time.ms() as i64 - (before + after) / 2)
        });
        let answers = futures::future::join_all(asked.collect::<Vec<_>>()).await;
        answers.into_iter().flatten().collect()
    }

    /// Asks the others from time to time who leads the groups that are not held here, so that the
    /// placement table and routing know.
    pub async fn follow_leaders(&self) {
        let mut tick = clock::interval(FOLLOW);
        loop {
            tick.tick().await;
            let partitions = self.directory.view().partitions();
            if (0..partitions).any(|id| self.hosting.get(PartitionId(id).group()).is_none()) {
                self.gather().await;
            }
        }
    }

    /// All members, by name.
    pub async fn members(&self) -> Vec<MemberInfo> {
        let view = self.directory.view();
        let live = self.directory.live();
        let reports = self.gather().await;
        let leaders = leaders(&reports);
        let mut members: Vec<MemberInfo> = Vec::new();
        for (node, row) in &view.members {
            let row = &row.row;
            let gossip = live.get(node);
            let led = leaders.iter().filter(|(group, (_, leader, _))| **group != GroupId::META && leader == node);
            let held = view.held_by(*node).filter(|(group, _)| *group != GroupId::META);
            let alive = self.directory.is_alive(*node);
            members.push(MemberInfo {
                name: row.name.clone(),
                id: *node,
                address: gossip.map_or_else(|| row.address.clone(), |peer| peer.address.clone()),
                zone: row.zone.clone(),
                state: match row.intent {
                    MemberIntent::Removing => MemberState::Removing,
                    _ if !alive => MemberState::Unreachable,
                    MemberIntent::Draining => MemberState::Draining,
                    MemberIntent::Active => MemberState::Alive,
                },
                leaders: led.count() as u32,
                replicas: held.count() as u32,
                trouble: reports.get(node).and_then(|report| report.trouble.clone()),
                tasks: row.tasks.iter().map(TaskMark::shown).collect(),
            });
        }
        let own_grid = self.directory.record().map(|record| record.grid);
        for (node, peer) in live.iter().filter(|(node, _)| !view.members.contains_key(node)) {
            if peer.grid.is_none() || peer.grid == own_grid {
                members.push(MemberInfo {
                    name: peer.name.clone(),
                    id: *node,
                    address: peer.address.clone(),
                    zone: peer.zone.clone(),
                    state: MemberState::Joining,
                    leaders: 0,
                    replicas: 0,
                    trouble: None,
                    tasks: Vec::new(),
                });
            }
        }
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        members
    }

    /// All partitions.
    ///
    /// # Errors
    /// `NotReady` before the grid is founded.
    pub async fn partitions(&self) -> Result<Vec<PartitionInfo>> {
        let view = self.directory.view();
        let wanted = view.grid.as_ref().map(|grid| grid.row.replicas).ok_or_else(not_ready)?;
        let reports = self.gather().await;
        let leaders = leaders(&reports);
        let info = |id: PartitionId| {
            let slots = ring::slot_range(id, view.partitions());
            let leader = leaders.get(&id.group());
            let row = view.placement_of(id.group());
            let replicas = view.replicas(id.group());
            let standing = leader.and_then(|(group, leader, _)| report_of(&reports, *leader, *group));
            PartitionInfo {
                id,
                first_slot: *slots.start(),
                last_slot: *slots.end(),
                leader: leader.map(|(_, node, _)| self.directory.name_of(*node)),
                replicas: row.map(|row| self.replicas(row)).unwrap_or_default(),
                term: leader.map_or(0, |(_, _, term)| *term),
                applied: standing.map_or(0, |report| report.applied),
                rows: standing.map_or(0, |report| report.rows),
                under_replicated: wanted
                    .saturating_sub(replicas.iter().filter(|(_, node)| self.directory.is_alive(*node)).count())
                    as u32,
            }
        };
        Ok((0..view.partitions()).map(|id| info(PartitionId(id))).collect())
    }

    fn replicas(&self, row: &PlacementRow) -> Vec<ReplicaInfo> {
        let state = |id: ReplicaId| match () {
            () if row.leaving.contains(&id) => ReplicaState::Leaving,
            () if row.learners.iter().any(|(learner, _)| *learner == id) => ReplicaState::Coming,
            () => ReplicaState::Holding,
        };
        let info = |(replica, node): (ReplicaId, NodeId)| ReplicaInfo {
            replica,
            node,
            name: self.directory.name_of(node),
            state: state(replica),
        };
        row.all().map(info).collect()
    }

    /// Where partitions are led, as far as this peer knows.
    pub fn placement(&self) -> PlacementTable {
        let view = self.directory.view();
        let row = |id: u32| {
            let group = PartitionId(id).group();
            let first = *ring::slot_range(PartitionId(id), view.partitions()).start();
            let leader = self.router.leader_of(group).and_then(|node| self.directory.address_of(node));
            let term = self.hosting.get(group).map_or(0, |hosted| hosted.leadership().term);
            (first, leader.unwrap_or_default(), term)
        };
        PlacementTable {
            grid: self.directory.record().map(|record| record.grid).unwrap_or_default(),
            version: view.version,
            partitions: (0..view.partitions()).map(row).collect(),
        }
    }

    /// Where a key lives and why.
    ///
    /// # Errors
    /// `NotReady` before the grid is founded.
    pub async fn explain(&self, key: Bytes, affinity: Option<Bytes>) -> Result<Explanation> {
        let deciding = affinity.clone().unwrap_or_else(|| Bytes::copy_from_slice(affinity_of(&key)));
        let slot = slot_of(&deciding);
        let id = self.directory.view().partition_of(slot).ok_or_else(not_ready)?;
        let partitions = self.partitions().await?;
        let partition = partitions.into_iter().find(|partition| partition.id == id).ok_or_else(not_ready)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut why = vec![
            match (&affinity, deciding.len() == key.len()) {
                (Some(_), _) => "the caller named the affinity".to_owned(),
                (None, true) => "the whole key decides: it has no {tag}".to_owned(),
                (None, false) => format!("the bytes inside the first {{...}} decide: {:?}", text(&deciding)),
            },
            format!("crc16_xmodem({:?}) mod 16384 = slot {slot}", text(&deciding)),
            format!("slots {} to {} are partition {id}", partition.first_slot, partition.last_slot),
        ];
        let view = self.directory.view();
        let replicas = view.grid.as_ref().map_or(1, |grid| grid.row.replicas);
        why.extend(ring::why(&view.ring_nodes(), replicas, &view.table(), id, |node| self.directory.name_of(node)));
        if partition.under_replicated > 0 {
            why.push(format!("wanted replicas that are missing or away: {}", partition.under_replicated));
        }
        Ok(Explanation { key: text(&key), affinity: text(&deciding), slot, partition, why })
    }
}

/// Per group who leads it, by the highest term that a leader itself reports.
fn leaders(reports: &BTreeMap<NodeId, StatusReport>) -> BTreeMap<GroupId, (GroupId, NodeId, u64)> {
    let mut leaders: BTreeMap<GroupId, (GroupId, NodeId, u64)> = BTreeMap::new();
    for (node, report) in reports {
        for group in report.groups.iter().filter(|group| group.leader == Some(*node)) {
            let known = leaders.entry(group.group).or_insert((group.group, *node, group.term));
            if group.term > known.2 {
                *known = (group.group, *node, group.term);
            }
        }
    }
    leaders
}

fn report_of(reports: &BTreeMap<NodeId, StatusReport>, node: NodeId, group: GroupId) -> Option<&GroupReport> {
    reports.get(&node)?.groups.iter().find(|report| report.group == group)
}

fn not_ready() -> Error {
    Error::new(Code::NotReady, "this peer does not know its grid's partitions yet")
}
