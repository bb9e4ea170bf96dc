//! [`GridService`] for a running node: what the edges see.

use super::broadcast;
use super::cancelling::CancelOnDrop;
use super::compute_service::{
    Broadcast, CancelReport, ComputeService, PartitionAnswer, Scatter, ScatterEvent, StartJob,
};
use super::copying::LocalEntry;
use super::directory::META_MAP;
use super::grid_node::Node;
use super::metrics;
use super::scatter;
use super::service::{Explanation, GridService, MemberInfo, PartitionInfo, PlacementTable};
use super::watching::WatchStream;
use crate::clock::{self, Instant};
use crate::compute::ResultMap;
use crate::error::{Code, Error, Result};
use crate::meta::{self, MemberIntent};
use crate::partition::executor::StreamReply;
use crate::types::{
    GroupId, HybridTime, JobId, JobInfo, JobStep, MapDescriptor, MapId, MapSpec, NodeId, Op, Reply, ReplyBody, Request,
    WatchRequest, affinity_of, slot_of,
};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::mpsc;

impl Node {
    /// A task without a session is cancelled when nobody waits for it any more: its client will
    /// not come back for the answer. One with a session may be on its way again already.
    fn cancel_if_dropped(&self, request: &mut Request) -> Option<CancelOnDrop> {
        let Op::Task { id, .. } = &mut request.op else { return None };
        if request.stamp.is_some() {
            return None;
        }
        if *id == 0 {
            *id = self.hosting.parts.ports.random.next_u64();
        }
        Some(CancelOnDrop::new(self.canceller.clone(), *id))
    }

    /// The map that a result goes to; created if there is none.
    pub(super) async fn map_for_result(&self, result: &ResultMap) -> Result<MapDescriptor> {
        let known = self.directory.view().map(&result.map).cloned();
        if let Some(map) = known {
            return Ok(map);
        }
        self.ensure_map(MapSpec::new(&result.map, result.key_codec, result.value_codec)).await
    }
}

#[async_trait::async_trait]
impl ComputeService for Node {
    async fn broadcast(&self, request: Broadcast) -> Result<mpsc::Receiver<PartitionAnswer>> {
        broadcast::start(self, request)
    }

    async fn scatter(&self, request: Scatter) -> Result<mpsc::Receiver<ScatterEvent>> {
        let node = self.myself.upgrade();
        scatter::start(node.ok_or_else(|| Error::new(Code::ShuttingDown, "the peer is shutting down"))?, request)
    }

    async fn start_job(&self, job: StartJob) -> Result<JobInfo> {
        if let Err(error) = self.registry.check_job(&job.name)
            && error.code == Code::InvalidRequest
        {
            return Err(error);
        }
        let random = match job.random {
            0 => self.hosting.parts.ports.random.next_u64(),
            drawn => drawn,
        };
        let id = JobId::new(slot_of(affinity_of(&job.key)), random);
        let StartJob { name, key, payload, time_ms, .. } = job;
        let started = self.jobs.step_of(id, JobStep::Start { name, key, payload, time_ms }).await;
        started.map_err(|error| self.router.for_clients(error))
    }

    async fn job(&self, id: JobId) -> Result<JobInfo> {
        self.jobs.step_of(id, JobStep::Get).await.map_err(|error| self.router.for_clients(error))
    }

    async fn jobs(&self) -> Result<Vec<JobInfo>> {
        let partitions = broadcast::partitions(self)?;
        let list =
            |(partition, _): broadcast::Ranged| self.jobs.step(partition.group(), JobId::default(), JobStep::List);
        let lists = futures::future::try_join_all(partitions.into_iter().map(list)).await;
        let lists = lists.map_err(|error| self.router.for_clients(error))?;
        let jobs = |list| match list {
            ReplyBody::Jobs(jobs) => jobs,
            _ => Vec::new(),
        };
        let mut all: Vec<JobInfo> = lists.into_iter().flat_map(jobs).collect();
        all.sort_by_key(|job| (job.submitted_ms, job.id));
        Ok(all)
    }

    async fn cancel_job(&self, id: JobId) -> Result<JobInfo> {
        self.jobs.step_of(id, JobStep::Cancel).await.map_err(|error| self.router.for_clients(error))
    }

    async fn cancel(&self, id: u64) -> CancelReport {
        self.canceller.cancel(id).await
    }
}

#[async_trait::async_trait]
impl GridService for Node {
    async fn execute(&self, mut request: Request, hops: u32) -> Result<Reply> {
        let guard = self.cancel_if_dropped(&mut request);
        let outcome = self.router.execute(request, hops).await;
        if let Some(guard) = guard {
            guard.disarm();
        }
        outcome.map_err(|error| self.router.for_clients(error))
    }

    fn submit_here(
        &self,
        request: Request,
        reply: StreamReply,
    ) -> std::result::Result<GroupId, Box<(Request, StreamReply)>> {
        self.router.submit_here(request, reply)
    }

    fn trouble(&self, group: GroupId) -> Option<Error> {
        self.router.trouble(group).map(|error| self.router.for_clients(error))
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        self.watching.watch(request).await
    }

    async fn get_local(&self, map: &str, key: Bytes, at_least: u64, at_most: Duration) -> Result<LocalEntry> {
        self.copying.get(map, &key, at_least, at_most).await
    }

    async fn ensure_map(&self, wanted: MapSpec) -> Result<MapDescriptor> {
        let wanted = bounded(wanted, self.settings.watch.replicated_map_bytes as u64)?;
        let name = wanted.name.as_str();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name == META_MAP || !(1..=128).contains(&name.len()) || !name.chars().all(allowed) {
            return Err(Error::new(Code::InvalidName, format!("{name:?} cannot be a map's name")));
        }
        if let Some(error) = self.router.trouble(GroupId::META) {
            return Err(error);
        }
        match self.directory.view().map(name).is_some() {
            // It may have been created a moment ago, through another peer.
            false => self.facts.refresh().await,
            // It may have been dropped a moment ago, through another peer: that it is there is only said by
            // rows that are not older than the question.
            true => self.facts.catch_up().await.map_err(|error| self.router.for_clients(error))?,
        }
        let plan = |view: &meta::MetaView| {
            let map = meta::new_map(view, &wanted)?;
            Ok((map.descriptor, map.changes))
        };
        self.facts.change(plan).await.map_err(|error| self.router.for_clients(error))
    }

    async fn fresh_maps(&self) -> Result<Vec<MapDescriptor>> {
        self.facts.catch_up().await.map_err(|error| self.router.for_clients(error))?;
        Ok(self.maps())
    }

    async fn drop_map(&self, name: &str, id: Option<MapId>) -> Result<(MapDescriptor, u32)> {
        if name == META_MAP {
            return Err(Error::new(Code::InvalidName, "the grid's own map cannot be dropped"));
        }
        self.drops().drop_map(name, id).await.map_err(|error| self.router.for_clients(error))
    }

    fn maps(&self) -> Vec<MapDescriptor> {
        self.directory.view().maps.values().map(|map| map.row.descriptor.clone()).collect()
    }

    async fn intend(&self, member: &str, intent: MemberIntent) -> Result<NodeId> {
        // Two requests that meet are told apart by the newest rows, and a peer that joined a moment ago is
        // only known to them.
        self.facts.catch_up().await.map_err(|error| self.router.for_clients(error))?;
        let change = self.facts.change(|view| meta::intend(view, member, intent)).await;
        change.map_err(|error| self.router.for_clients(error))
    }

    async fn members(&self) -> Result<Vec<MemberInfo>> {
        Ok(self.status.members().await)
    }

    async fn partitions(&self) -> Result<Vec<PartitionInfo>> {
        self.status.partitions().await
    }

    fn placement(&self) -> PlacementTable {
        self.status.placement()
    }

    async fn explain(&self, key: Bytes, affinity: Option<Bytes>) -> Result<Explanation> {
        self.status.explain(key, affinity).await
    }

    fn time(&self) -> HybridTime {
        self.router.time()
    }

    fn tasks(&self) -> Vec<String> {
        self.hosting.parts.tasks.names()
    }

    fn ready(&self) -> std::result::Result<(), String> {
        let view = self.directory.view();
        if view.grid.is_none() {
            return Err("no grid has been founded or joined yet".to_owned());
        }
        if let Some(trouble) = self.directory.trouble() {
            return Err(trouble);
        }
        for (group, replica) in view.held_by(self.id()) {
            let Some(hosted) = self.hosting.get(group) else {
                return Err(format!("replica {replica} of group {group} has not started"));
            };
            let leadership = hosted.leadership();
            if leadership.leader.is_none() {
                return Err(format!("group {group} has no leader at the moment"));
            }
            if leadership.is_me && !*hosted.executor.leads().borrow() {
                return Err(format!("group {group} begins a run"));
            }
        }
        match view.held_by(self.id()).any(|(group, _)| group == GroupId::META) {
            true => Ok(()),
            false => Err("this peer has no place in the meta group yet".to_owned()),
        }
    }

    async fn wait_ready(&self, at_most: Duration) -> Result<()> {
        let until = Instant::now() + at_most;
        loop {
            match self.ready() {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() >= until => return Err(Error::new(Code::NotReady, why)),
                Err(_) => clock::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn metrics(&self) -> String {
        metrics::text(self)
    }
}

/// A replicated map without a limit gets that of the configuration, and none gets more: every peer
/// holds all of it in RAM.
fn bounded(mut wanted: MapSpec, limit: u64) -> Result<MapSpec> {
    let Some(options) = wanted.options.as_mut().filter(|options| options.replicated) else { return Ok(wanted) };
    match options.max_bytes {
        0 => options.max_bytes = limit,
        asked if asked > limit => {
            let what = format!("a replicated map may hold {limit} bytes, {asked} were asked for");
            return Err(Error::new(Code::ReplicatedFull, what).at(format!("map {:?}", wanted.name)));
        }
        _ => {}
    }
    Ok(wanted)
}
