//! Routing: from a request to the executor of its group's leader, here or one hop away, with
//! retries until the request's time is over.

use super::directory::{Directory, META_MAP, meta_map};
use super::hosting::{Hosted, Hosting};
use super::stamper::{Stamped, Stamper};
use super::trouble::{self, place};
use super::wire::{self, Forward, kind};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result, Retry};
use crate::net::peer::{AddressBook, Lane};
use crate::partition::executor::{Job, ReplyTo, StreamReply};
use crate::partition::{View, check_key, read, rows_read, slot_in};
use crate::types::{
    AckLevel, GroupId, HybridTime, MapDescriptor, NodeId, Op, ReadLevel, Reply, ReplyBody, Request, Served,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// One attempt at one peer takes no longer than this, so that a stuck connection costs a retry
/// and not the whole deadline.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long the local copy of the grid's facts may take to come up to the meta group's leader when
/// a map is not known here.
const CATCH_UP: Duration = Duration::from_millis(1_000);
/// How long a task that the leader's peer does not carry waits for leadership to go where it is.
const CARRY_WAIT: Duration = Duration::from_secs(3);
/// Requests of several partitions are split into at most so many at once.
const MAX_SPLIT: usize = 4096;

/// Routes requests.
pub struct Router {
    hosting: Arc<Hosting>,
    directory: Arc<Directory>,
    stamper: Stamper,
    /// Last known leaders of groups that are not held here.
    leaders: Mutex<BTreeMap<GroupId, NodeId>>,
    /// Requests that were sent on to another peer.
    pub forwarded: AtomicU64,
}

enum Route {
    Here(Arc<Hosted>),
    There(NodeId),
    Nowhere,
}

impl Router {
    /// Routes to what `hosting` holds, and elsewhere.
    pub fn new(hosting: Arc<Hosting>, directory: Arc<Directory>) -> Self {
        let stamper = Stamper::new(&*hosting.parts.ports.random);
        Router { hosting, directory, stamper, leaders: Mutex::default(), forwarded: AtomicU64::new(0) }
    }

    /// The grid's time, as far as this node knows it.
    pub fn time(&self) -> HybridTime {
        HybridTime::from_ms(self.hosting.parts.ports.clock.unix_ms())
    }

    /// A stamp of this peer's own session, for a client that has none.
    pub(super) fn stamp(&self) -> Stamped<'_> {
        self.stamper.stamp(self.time())
    }

    fn leaders(&self) -> std::sync::MutexGuard<'_, BTreeMap<GroupId, NodeId>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who leads a group that is not held here.
    pub fn note_leader(&self, group: GroupId, leader: NodeId) {
        self.leaders().insert(group, leader);
    }

    /// Forgets who leads a group that is not held here: a peer has said that it is another.
    pub(super) fn forget_leader(&self, group: GroupId) {
        self.leaders().remove(&group);
    }

    /// The node that leads a group, or, if that is not known, a live one that will know.
    pub(super) fn leader_or_replica(&self, group: GroupId) -> Option<NodeId> {
        self.leader_of(group).or_else(|| {
            let view = self.directory.view();
            view.replicas(group).iter().map(|(_, node)| *node).find(|node| self.directory.is_alive(*node))
        })
    }

    /// The node that leads a group, as far as known.
    pub fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        match self.hosting.get(group).filter(|hosted| !hosted.group.has_stopped()) {
            Some(hosted) => hosted.leadership().leader.map(|(_, node)| node),
            None => self.leaders().get(&group).copied(),
        }
    }

    /// Executes a request wherever its slots' partitions are led.
    ///
    /// # Errors
    /// Coded; see the table in `error`.
    pub async fn execute(&self, request: Request, hops: u32) -> Result<Reply> {
        if request.op.map() == Some(META_MAP) {
            return Err(Error::new(Code::InvalidName, "the grid's own map is not for requests"));
        }
        let expires = Instant::now() + Duration::from_millis(u64::from(request.deadline_ms));
        let map = self.map_of(&request).await?;
        let known = map.as_ref().map(|map| map.id);
        let request = by_map(request, map.as_ref());
        let answer = self.execute_with(request.clone(), map, hops, expires).await;
        // The map may have been dropped, and another created under its name, unheard of here.
        let Some(known) = known.filter(|_| answer.as_ref().is_err_and(|error| error.code == Code::NoSuchMap)) else {
            return answer;
        };
        self.catch_up().await?;
        match self.map_of(&request).await? {
            Some(map) if map.id != known => {
                let request = by_map(request, Some(&map));
                self.execute_with(request, Some(map), hops, expires).await
            }
            _ => answer,
        }
    }

    /// Hands a request that needs its partition's executor and nothing else to it, if that is here:
    /// an operation on one key of a map that is known here, which may be repeated. In order: what is
    /// handed over first is executed first.
    ///
    /// # Errors
    /// Gives both back if it is not of that kind: then [`Router::execute`] is to be asked.
    pub fn submit_here(
        &self,
        request: Request,
        reply: StreamReply,
    ) -> std::result::Result<(), Box<(Request, StreamReply)>> {
        let Some((hosted, map)) = self.short_way(&request) else { return Err(Box::new((request, reply))) };
        let expires = Instant::now() + Duration::from_millis(u64::from(request.deadline_ms));
        let job = Job { request, map: Some(map), hops: 0, expires, reply: ReplyTo::Stream(reply) };
        // One that is refused answers so: its stream goes the long way.
        hosted.executor.submit_or_refuse(job);
        Ok(())
    }

    fn short_way(&self, request: &Request) -> Option<(Arc<Hosted>, MapDescriptor)> {
        let (Op::Get { map, key }
        | Op::Put { map, key, .. }
        | Op::Touch { map, key, .. }
        | Op::Delete { map, key, .. }
        | Op::Increment { map, key, .. }) = &request.op
        else {
            return None;
        };
        let is_read = request.op.is_read();
        if map == META_MAP || (is_read && request.read == ReadLevel::Local) || (!is_read && request.stamp.is_none()) {
            return None;
        }
        let view = self.directory.view();
        let map = view.map(map).filter(|map| !map.options.replicated)?;
        check_key(map, key).ok()?;
        match self.route(view.partition_of(slot_in(request, key))?.group(), 0) {
            Route::Here(hosted) => Some((hosted, map.clone())),
            Route::There(_) | Route::Nowhere => None,
        }
    }

    async fn execute_with(
        &self,
        request: Request,
        map: Option<MapDescriptor>,
        hops: u32,
        expires: Instant,
    ) -> Result<Reply> {
        match (&request.op, &map) {
            (Op::Scan { .. }, Some(map)) => return self.scan(request, map.clone(), hops, expires).await,
            (Op::Clear { .. }, Some(map)) => return self.clear(request, map.clone(), hops, expires).await,
            (Op::Size { slot: None, .. }, Some(map)) => return self.size(request, map.clone(), hops, expires).await,
            _ => {}
        }
        let mut groups = self.groups_of(&request)?;
        match (groups.len(), groups.pop_first()) {
            (0, _) | (_, None) => Err(Error::new(Code::InvalidRequest, "the request names no key")),
            (1, Some((group, _))) => self.execute_in(group, request, map, hops, expires).await,
            (_, Some(first)) => {
                groups.insert(first.0, first.1);
                self.execute_split(request, map, hops, expires, groups).await
            }
        }
    }

    async fn map_of(&self, request: &Request) -> Result<Option<MapDescriptor>> {
        let Some(name) = request.op.map() else { return Ok(None) };
        let known = || self.directory.view().map(name).cloned();
        let map = match known() {
            Some(map) => map,
            None => {
                self.catch_up().await.map_err(|error| {
                    let what = format!("this peer cannot tell at the moment whether there is a map {name:?}: {error}");
                    Error::new(Code::NotReady, what).remedy("try again in a moment")
                })?;
                known().ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map {name:?}")))?
            }
        };
        match &request.op {
            Op::GetMany { keys, .. } => keys.iter().try_for_each(|key| check_key(&map, key))?,
            op => op.routing_key().into_iter().try_for_each(|key| check_key(&map, key))?,
        }
        Ok(Some(map))
    }

    /// Brings the local copy of the grid's facts up to what the meta group's leader has now: what
    /// was created or dropped before this call, anywhere, is known here afterwards.
    ///
    /// # Errors
    /// What the meta group answers; `NotReady` when the copy lags.
    pub async fn catch_up(&self) -> Result<()> {
        let expires = Instant::now() + CATCH_UP;
        let request = Request {
            affinity: Some(Bytes::new()),
            op: Op::Get { map: META_MAP.to_owned(), key: Bytes::from_static(b"grid") },
            read: ReadLevel::Linearizable,
            ack: AckLevel::MajorityFsync,
            stamp: None,
            deadline_ms: CATCH_UP.as_millis() as u32,
        };
        // Boxed: a request may ask for this, and this is a request.
        let reply = Box::pin(self.execute_in(GroupId::META, request, Some(meta_map()), 0, expires)).await?;
        let mut reflected = self.directory.reflected();
        match clock::timeout_at(expires, reflected.wait_for(|at| *at >= reply.served.applied)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(Code::NotReady, "the local copy of the grid's facts lags behind")),
        }
    }

    /// What this node knows of the grid.
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The groups of a request's keys, each with the keys' places in the request.
    fn groups_of(&self, request: &Request) -> Result<BTreeMap<GroupId, Vec<usize>>> {
        let view = self.directory.view();
        let group_of = |key: &Bytes| {
            let partition = view.partition_of(slot_in(request, key));
            partition.map(|partition| partition.group()).ok_or_else(not_ready)
        };
        if let Some(slot) = request.op.slot() {
            let partition = view.partition_of(slot).ok_or_else(not_ready)?;
            return Ok(BTreeMap::from([(partition.group(), vec![0])]));
        }
        let keys: Vec<&Bytes> = match &request.op {
            Op::GetMany { keys, .. } => keys.iter().collect(),
            Op::PutMany { entries, .. } => entries.iter().map(|(key, _)| key).collect(),
            Op::Transact { checks, writes, .. } => {
                checks.iter().map(|(key, _)| key).chain(writes.iter().map(|(key, _)| key)).collect()
            }
            op => op.routing_key().into_iter().collect(),
        };
        let mut groups: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (place, key) in keys.into_iter().enumerate() {
            groups.entry(group_of(key)?).or_default().push(place);
        }
        Ok(groups)
    }

    /// One request per partition, all at once; the answers merged. Atomic within each partition.
    async fn execute_split(
        &self,
        request: Request,
        map: Option<MapDescriptor>,
        hops: u32,
        expires: Instant,
        groups: BTreeMap<GroupId, Vec<usize>>,
    ) -> Result<Reply> {
        if request.stamp.is_some() || hops > 0 || groups.len() > MAX_SPLIT {
            let what = "the keys lie in several partitions, which one stamped request cannot reach";
            return Err(Error::new(Code::CrossSlot, what));
        }
        let mut parts = Vec::new();
        for (group, places) in groups {
            let op = match &request.op {
                Op::GetMany { map, keys } => {
                    let keys = places.iter().filter_map(|place| keys.get(*place).cloned()).collect();
                    Op::GetMany { map: map.clone(), keys }
                }
                Op::PutMany { map, entries } => {
                    let entries = places.iter().filter_map(|place| entries.get(*place).cloned()).collect();
                    Op::PutMany { map: map.clone(), entries }
                }
                _ => return Err(Error::new(Code::CrossSlot, "the keys of the request lie in several slots")),
            };
            let part = Request { op, ..request.clone() };
            let answer = self.execute_in(group, part, map.clone(), hops, expires);
            parts.push(async move { answer.await.map(|reply| (places, reply)) });
        }
        let answers = futures::future::try_join_all(parts).await?;
        merge(answers)
    }

    /// Executes a request at the leader of its group.
    ///
    /// # Errors
    /// Coded.
    pub async fn execute_in(
        &self,
        group: GroupId,
        mut request: Request,
        map: Option<MapDescriptor>,
        hops: u32,
        expires: Instant,
    ) -> Result<Reply> {
        if request.op.is_read()
            && request.read == ReadLevel::Local
            && let Some(reply) = self.read_here(group, &request, map.as_ref(), hops).await
        {
            return reply;
        }
        let simple = request.stamp.is_none() && !request.op.is_read() && group != GroupId::META;
        let stamped = simple.then(|| self.stamp());
        if let Some(stamped) = &stamped {
            request.stamp = Some(stamped.stamp());
        }
        let repeatable = request.op.is_read() || request.stamp.is_some();
        let mut pause = Duration::from_millis(5);
        let (mut asked, mut caught_up, mut unsure) = (0, false, false);
        let carried_by = Instant::now() + CARRY_WAIT.min(expires.saturating_duration_since(Instant::now()) / 2);
        loop {
            let left = expires.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.time_is_over(group, unsure && !request.op.is_read()));
            }
            let error = match self.attempt(group, &request, map.as_ref(), hops, left, asked).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            // What may have reached a log may take effect yet.
            unsure |= matches!(error.code, Code::OutcomeUnknown | Code::DeadlineExceeded | Code::PeerUnreachable);
            // What only the session's owner can mend goes back to it at once.
            let owners =
                matches!(error.code, Code::ResendFrom | Code::SessionFull | Code::ClockAhead | Code::TaskNotCarried);
            // The leader may not have heard of a task's map yet.
            let unheard = error.code == Code::NoSuchMap && request.op.is_task();
            if unheard && !caught_up && matches!(self.route(group, asked), Route::Here(_)) {
                caught_up = true;
                self.catch_up().await?;
                continue;
            }
            // Nobody else has the partition: there is nobody to wait for.
            let alone_and_full = error.code == Code::DiskFull && !unsure;
            let final_here = error.code.retry() == Retry::Never || alone_and_full;
            if hops > 0 || final_here || (owners && !simple) {
                return Err(error);
            }
            if !repeatable && matches!(error.code, Code::OutcomeUnknown | Code::DeadlineExceeded) {
                return Err(error);
            }
            asked += 1;
            // Unless an attempt may have reached a log, nothing can have happened.
            if error.code == Code::TaskNotCarried && !unsure && Instant::now() >= carried_by {
                return Err(error);
            }
            self.leaders().remove(&group);
            let known = error.leader.as_deref().and_then(|leader| leader.parse().ok());
            if let Some(leader) = known {
                self.note_leader(group, leader);
            }
            if known.is_none() || asked > 1 {
                self.pause(group, pause.min(left)).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }

    /// Why a request found no answer in its time, as far as this peer can tell.
    fn time_is_over(&self, group: GroupId, unsure: bool) -> Error {
        match self.trouble(group) {
            Some(error) if unsure => Error { code: Code::OutcomeUnknown, ..error },
            Some(error) => error,
            None => Error::new(Code::DeadlineExceeded, "the request's time is over").at(place(group)),
        }
    }

    /// What keeps a group from answering, if this peer can see it.
    pub fn trouble(&self, group: GroupId) -> Option<Error> {
        trouble::of_group(&self.hosting, &self.directory, group)
    }

    /// Waits a while, or until the leadership of a group that is held here changes.
    async fn pause(&self, group: GroupId, pause: Duration) {
        let Some(hosted) = self.hosting.get(group) else { return clock::sleep(pause).await };
        let mut leadership = hosted.group.leadership();
        leadership.borrow_and_update();
        if let Ok(Err(_)) = clock::timeout(pause, leadership.changed()).await {
            // The group has stopped: nothing will change any more.
            clock::sleep(pause).await;
        }
    }

    fn route(&self, group: GroupId, asked: usize) -> Route {
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

    async fn attempt(
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
            Route::Here(hosted) => self.execute_here(&hosted, request, map, hops, time).await,
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
                let error = Error::new(Code::NotLeader, "this peer does not lead the partition").at(place(group));
                Err(error.leader(node.to_string()))
            }
            Route::Nowhere => {
                let full = self.trouble(group).filter(|error| error.code == Code::DiskFull);
                Err(full
                    .unwrap_or_else(|| Error::new(Code::NoLeader, "no leader is known at the moment").at(place(group))))
            }
        }
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
        hosted.executor.submit(Job { request: request.clone(), map: map.cloned(), hops, expires, reply })?;
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
    async fn read_here(
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

    /// Answers a request that another peer has sent on. A leader is named by its address.
    ///
    /// # Errors
    /// Coded.
    pub async fn execute_forwarded(&self, group: GroupId, forward: Forward) -> Result<Reply> {
        let expires = Instant::now() + Duration::from_millis(u64::from(forward.request.deadline_ms));
        let map = if group == GroupId::META { Some(meta_map()) } else { self.map_of(&forward.request).await? };
        self.execute_in(group, forward.request, map, forward.hops, expires).await
    }

    /// Makes of an error what clients understand: a leader is named by its address, and a peer that
    /// was removed is one that serves no more.
    pub fn for_clients(&self, mut error: Error) -> Error {
        if error.code == Code::MemberRemoved {
            return Error::new(Code::ShuttingDown, error.what);
        }
        let node = error.leader.as_deref().and_then(|leader| leader.parse::<NodeId>().ok());
        if let Some(node) = node {
            error.leader = self.directory.address_of(node);
        }
        error
    }
}

/// The keys of a replicated map live together, whatever the caller named.
fn by_map(mut request: Request, map: Option<&MapDescriptor>) -> Request {
    if let Some(affinity) = map.and_then(MapDescriptor::affinity) {
        request.affinity = Some(affinity);
    }
    request
}

pub(super) fn not_ready() -> Error {
    Error::new(Code::NotReady, "this peer does not know its grid's partitions yet")
}

/// Puts the answers of a split request together again, in the order of the keys.
fn merge(answers: Vec<(Vec<usize>, Reply)>) -> Result<Reply> {
    let mut entries: BTreeMap<usize, _> = BTreeMap::new();
    let mut newest = 0;
    let mut served = None;
    for (places, reply) in answers {
        match reply.body {
            ReplyBody::Entries(some) => entries.extend(places.into_iter().zip(some)),
            ReplyBody::Written { revision, .. } => newest = newest.max(revision),
            _ => return Err(Error::internal("a split request got an answer of another kind")),
        }
        served = Some(reply.served);
    }
    let served = served.ok_or_else(|| Error::internal("a split request got no answer"))?;
    let body = match entries.is_empty() {
        true => ReplyBody::Written { revision: newest, previous: None },
        false => ReplyBody::Entries(entries.into_values().collect()),
    };
    Ok(Reply { body, served })
}
