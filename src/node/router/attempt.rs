//! One attempt at a request: at the replica here if it leads, else at the peer that does; and reads of
//! level `local`.

use super::Router;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result};
use crate::net::peer::Lane;
use crate::node::hosting::Hosted;
use crate::node::trouble::{self, place};
use crate::node::wire::{self, Forward, kind};
use crate::partition::executor::{Job, ReplyTo};
use crate::partition::{View, read, rows_read};
use crate::types::{AckLevel, GroupId, MapDescriptor, NodeId, Reply, Request, Served};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// One attempt at one peer takes no longer than this, so that a stuck connection costs a retry
/// and not the whole deadline.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Where a group is led.
pub(super) enum Route {
    Here(Arc<Hosted>),
    There(NodeId),
    Nowhere,
}

impl Router {
    pub(super) fn route(&self, group: GroupId, asked: usize) -> Route {
        // A replica that has stopped, its disk being full, say, knows of no leader: others do.
        if let Some(hosted) = self.hosting.get(group).filter(|hosted| !hosted.group.has_stopped()) {
            let leadership = hosted.leadership();
            return match leadership.leader {
                _ if leadership.is_me => Route::Here(hosted),
                Some((_, node)) => Route::There(node),
                None => Route::Nowhere,
            };
        }
        let me = self.directory.me();
        if let Some(node) = self.leaders().get(&group).filter(|node| **node != me) {
            return Route::There(*node);
        }
        let view = self.directory.view();
        let replicas = view.replicas(group);
        let others = replicas.iter().map(|(_, node)| *node).filter(|node| *node != me);
        let alive: Vec<NodeId> = others.filter(|node| self.directory.is_alive(*node)).collect();
        match alive.len() {
            0 => Route::Nowhere,
            some => Route::There(alive[asked % some]),
        }
    }

    pub(super) async fn attempt(
        &self,
        group: GroupId,
        request: &Request,
        map: Option<&MapDescriptor>,
        hops: u32,
        left: Duration,
        asked: usize,
    ) -> Result<Reply> {
        let time = left.min(ATTEMPT);
        match self.route(group, asked) {
            Route::Here(hosted) => {
                // What cannot be written is not begun: another replica may lead in a moment, and if none
                // does, the caller is to hear why.
                match self.no_room(group, request) {
                    Some(full) => Err(full),
                    None => self.execute_here(&hosted, request, map, hops, time).await,
                }
            }
            Route::There(node) if hops == 0 => {
                tokio::select! {
                    biased;
                    answer = self.forward(node, group, request, time) => answer,
                    () = self.leads_no_more(group, node) => {
                        Err(Error::new(Code::OutcomeUnknown, "the leadership changed meanwhile").at(place(group)))
                    }
                }
            }
            Route::There(node) => {
                // Where all replicas have stopped for want of room, each names another.
                let error = self.stopped_for_room(group).unwrap_or_else(|| {
                    Error::new(Code::NotLeader, "this peer does not lead the partition").at(place(group))
                });
                Err(error.leader(node.to_string()))
            }
            Route::Nowhere => Err(self
                .stopped_for_room(group)
                .unwrap_or_else(|| Error::new(Code::NoLeader, "no leader is known at the moment").at(place(group)))),
        }
    }

    fn stopped_for_room(&self, group: GroupId) -> Option<Error> {
        self.trouble(group).filter(|error| error.code == Code::DiskFull)
    }

    /// Why a request cannot be executed here because it writes.
    pub(super) fn no_room(&self, group: GroupId, request: &Request) -> Option<Error> {
        if request.op.is_read() { None } else { trouble::of_log(&self.hosting, group) }
    }

    /// Waits until the replica here knows that another node than this leads; for ever without one.
    async fn leads_no_more(&self, group: GroupId, node: NodeId) {
        // One that has stopped knows nothing any more.
        let hosted = self.hosting.get(group).filter(|hosted| !hosted.group.has_stopped());
        let Some(hosted) = hosted else { return std::future::pending().await };
        let mut leadership = hosted.group.leadership();
        drop(hosted);
        let other = leadership.wait_for(|now| now.leader.map(|(_, leader)| leader) != Some(node)).await.is_ok();
        if !other {
            std::future::pending::<()>().await;
        }
    }

    async fn execute_here(
        &self,
        hosted: &Hosted,
        request: &Request,
        map: Option<&MapDescriptor>,
        hops: u32,
        time: Duration,
    ) -> Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let expires = Instant::now() + time;
        let reply = ReplyTo::Caller(reply);
        let job = Job { request: request.clone(), map: map.cloned(), hops, expires, flown: false, reply };
        hosted.executor.submit(job)?;
        match clock::timeout_at(expires, answer).await {
            Ok(Ok(answer)) => answer.map_err(|error| self.directory.not_carried(error, request)),
            Ok(Err(_)) => Err(Error::new(Code::OutcomeUnknown, "the partition stopped before it answered")),
            Err(_) => Err(Error::new(Code::DeadlineExceeded, "the partition did not answer in time")),
        }
    }

    async fn forward(&self, node: NodeId, group: GroupId, request: &Request, time: Duration) -> Result<Reply> {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
        let mut request = request.clone();
        request.deadline_ms = time.as_millis() as u32;
        let kind = if request.op.is_read() && group != GroupId::META { kind::FORWARD_READ } else { kind::FORWARD };
        let payload = wire::encode(&Forward { request, hops: 1 })?;
        let transport = &self.hosting.parts.transport;
        let answer = transport.call(node, Lane::Request, group, kind, payload, time).await?;
        wire::decode(&answer)
    }

    /// A read at level `local`, from the applied state of a replica here. `None` if there is none
    /// that may serve.
    pub(super) async fn read_here(
        &self,
        group: GroupId,
        request: &Request,
        map: Option<&MapDescriptor>,
        hops: u32,
    ) -> Option<Result<Reply>> {
        let hosted = self.hosting.get(group)?;
        let map = map?;
        if !hosted.state.may_serve() {
            return None;
        }
        let view = View::new(hosted.state.clone(), self.directory.clone());
        let rows = rows_read(&view, map, request);
        // Values that are not in RAM are loaded where waiting is allowed, and stay until they are read.
        let _pinned = match hosted.state.any_cold(rows.iter().map(|row| &row[..])) {
            true => hosted.state.warm(rows).await,
            false => Ok(None),
        };
        let applied = *hosted.state.applied_index().borrow();
        let body = read(&view, map, request);
        let served =
            Served { node: self.directory.me(), term: 0, hops, time: self.time(), applied, ack: AckLevel::default() };
        // A snapshot may have been installed while the rows were read.
        hosted.state.may_serve().then(|| body.map(|body| Reply { body, served }))
    }
}
