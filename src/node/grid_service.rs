//! [`GridService`] for a running node: what the edges see.

use super::broadcast;
use super::cancelling::CancelOnDrop;
use super::compute_service::{Broadcast, CancelReport, ComputeService, PartitionAnswer};
use super::directory::META_MAP;
use super::grid_node::Node;
use super::metrics;
use super::service::{Explanation, GridService, MemberInfo, PartitionInfo, PlacementTable};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::meta::{self, MemberIntent};
use crate::types::{GroupId, HybridTime, MapDescriptor, MapSpec, NodeId, Op, Reply, Request};
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
}

#[async_trait::async_trait]
impl ComputeService for Node {
    async fn broadcast(&self, request: Broadcast) -> Result<mpsc::Receiver<PartitionAnswer>> {
        broadcast::start(self, request)
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

    async fn ensure_map(&self, wanted: MapSpec) -> Result<MapDescriptor> {
        let name = wanted.name.as_str();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name == META_MAP || !(1..=128).contains(&name.len()) || !name.chars().all(allowed) {
            return Err(Error::new(Code::InvalidName, format!("{name:?} cannot be a map's name")));
        }
        if self.directory.view().map(name).is_none() {
            // It may have been created a moment ago, through another peer.
            self.facts.refresh().await;
        }
        let plan = |view: &meta::MetaView| {
            let map = meta::new_map(view, &wanted)?;
            Ok((map.descriptor, map.changes))
        };
        self.facts.change(plan).await.map_err(|error| self.router.for_clients(error))
    }

    fn maps(&self) -> Vec<MapDescriptor> {
        self.directory.view().maps.values().map(|map| map.row.descriptor.clone()).collect()
    }

    async fn intend(&self, member: &str, intent: MemberIntent) -> Result<NodeId> {
        // Two requests that meet are told apart by the newest rows.
        self.facts.refresh().await;
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
