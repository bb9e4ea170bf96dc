//! A scatter's steps on the partitions that this peer leads, combined here before they travel.
//!
//! Each step waits until its partition's leadership has been confirmed by a read that came after
//! it, so that it misses nothing that was acknowledged before; then it reads the applied rows on
//! a thread of its own. A handler that does not come back keeps its thread and its place.

use super::compute_service::{MapCall, MapReply};
use super::hosting::Hosting;
use super::router::Router;
use crate::clock::{self, Instant, ThreadKind, run_on};
use crate::compute::{PartitionScan, Registry};
use crate::error::{Code, Error, Result};
use crate::partition::View;
use crate::ring;
use crate::types::{AckLevel, Op, PartitionId, ReadLevel, Request, Slot, TaskPayload};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Steps that run at once on a peer; further ones wait.
const AT_ONCE: usize = 2;

/// The largest part that travels.
const MAX_PART: usize = 8 << 20;

/// Runs scatters' steps.
pub struct Mapper {
    hosting: Arc<Hosting>,
    router: Arc<Router>,
    registry: Arc<Registry>,
    places: Arc<Semaphore>,
    /// Steps begun.
    pub(super) steps: AtomicU64,
}

impl Mapper {
    /// Runs what the registry holds on what `hosting` leads.
    pub fn new(hosting: Arc<Hosting>, router: Arc<Router>, registry: Arc<Registry>) -> Self {
        Mapper { hosting, router, registry, places: Arc::new(Semaphore::new(AT_ONCE)), steps: AtomicU64::new(0) }
    }

    /// Runs a scatter's step on some partitions and combines what they give.
    pub async fn map(&self, call: MapCall) -> MapReply {
        let expires = Instant::now() + Duration::from_millis(call.deadline_ms.into());
        let (mut reply, mut parts) = (MapReply::default(), Vec::new());
        let steps = call.partitions.iter().map(|partition| self.map_one(&call, *partition, expires));
        let outcomes = futures::future::join_all(steps).await;
        for (partition, outcome) in call.partitions.iter().zip(outcomes) {
            match outcome {
                Ok(part) => {
                    parts.push(part);
                    reply.done.push(*partition);
                }
                Err(error) => reply.failed.push((*partition, error)),
            }
        }
        if parts.is_empty() {
            return reply;
        }
        match self.combine(call.name, call.payload, parts).await {
            Ok(part) => reply.part = Some(part),
            Err(error) => reply.failed.extend(reply.done.drain(..).map(|partition| (partition, error.clone()))),
        }
        reply
    }

    /// Combines parts, on a thread for user code.
    pub(super) async fn combine(&self, name: String, payload: TaskPayload, parts: Vec<Bytes>) -> Result<Bytes> {
        let registry = self.registry.clone();
        let combine = move || registry.scatter_combine(&name, &payload, parts);
        let part = run_on(&self.hosting.parts.ports.threads, ThreadKind::Task, combine).await??;
        if part.len() > MAX_PART {
            let what = format!("the partitions' results have {} bytes together; the limit is {MAX_PART}", part.len());
            return Err(Error::new(Code::TooLarge, what).remedy("ask for less, or of a smaller map"));
        }
        Ok(part)
    }

    /// Waits until everything that was acknowledged before is applied here, and this peer leads.
    async fn confirm(&self, partition: PartitionId, slot: Slot, expires: Instant) -> Result<()> {
        let left = expires.saturating_duration_since(Instant::now());
        let request = Request {
            affinity: None,
            op: Op::Barrier { slot },
            read: ReadLevel::Linearizable,
            ack: AckLevel::default(),
            stamp: None,
            deadline_ms: left.as_millis() as u32,
        };
        // One hop has been taken: it is answered here or not at all.
        self.router.execute_in(partition.group(), request, None, 1, expires).await.map(drop)
    }

    async fn map_one(&self, call: &MapCall, partition: PartitionId, expires: Instant) -> Result<Bytes> {
        let directory = &self.hosting.parts.directory;
        let range = ring::slot_range(partition, directory.view().partitions());
        let slots = (Slot(*range.start()), Slot(*range.end()));
        self.confirm(partition, slots.0, expires).await?;
        // Only a leader that lacks it is in the way.
        let lacking = |error| directory.lacking(error, &call.name, "leads the partition and ");
        self.registry.check_scatter(&call.name).map_err(lacking)?;
        let late = || Error::new(Code::DeadlineExceeded, "the scatter's time is over");
        let place = clock::timeout_at(expires, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(Error::new(Code::Overloaded, format!("{AT_ONCE} steps of scatters are running on the peer")));
        };
        let hosted =
            self.hosting.get(partition.group()).ok_or_else(|| Error::new(Code::NotLeader, "the replica has gone"))?;
        self.steps.fetch_add(1, Ordering::Relaxed);
        let view = View::new(hosted.state.clone(), directory.clone());
        let (registry, cancelled) = (self.registry.clone(), self.hosting.cancelled.clone());
        let (name, payload, id) = (call.name.clone(), call.payload.clone(), call.id);
        let step = move || {
            let _place = place;
            let go_on = || match () {
                () if cancelled.contains(id) => Err(Error::new(Code::TaskCancelled, "the scatter was cancelled")),
                () if Instant::now() >= expires => Err(late()),
                // A snapshot is being installed over the rows.
                () if !hosted.state.may_serve() => Err(Error::new(Code::NotLeader, "the replica is being replaced")),
                () => Ok(()),
            };
            let mut scan = PartitionScan::new(&view, partition, slots, &go_on);
            registry.scatter_map(&name, &payload, &mut scan)
        };
        let running = run_on(&self.hosting.parts.ports.threads, ThreadKind::Task, step);
        clock::timeout_at(expires, running).await.map_err(|clock::Elapsed| late())??
    }
}
