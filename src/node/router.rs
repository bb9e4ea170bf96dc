//! Routing: from a request to the executor of its group's leader, here or one hop away, with
//! retries until the request's time is over.

mod attempt;
mod short_way;
mod split;

use super::directory::{Directory, META_MAP, meta_map};
use super::hosting::Hosting;
use super::stamper::{Stamped, Stamper};
use super::trouble::{self, place};
use super::wire::Forward;
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result, Retry};
use crate::net::peer::AddressBook;
use crate::partition::check_key;
use crate::types::{AckLevel, GroupId, HybridTime, MapDescriptor, MapId, NodeId, Op, Reach, ReadLevel, Reply, Request};
use attempt::Route;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the local copy of the grid's facts may take to come up to the meta group's leader when
/// a map is not known here.
const CATCH_UP: Duration = Duration::from_millis(1_000);
/// How long a task that the leader's peer does not carry, or a write that it has no room for, waits
/// for leadership to go elsewhere.
pub(super) const CARRY_WAIT: Duration = Duration::from_secs(3);
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

    /// A stamp of this peer's own session, for a client that has none: for a write to these slots.
    ///
    /// # Errors
    /// `SessionFull`.
    pub(super) fn stamp(&self, reach: Reach) -> Result<Stamped<'_>> {
        self.stamper.stamp(self.time(), reach)
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
        match self.later_map(&request, known, &answer).await? {
            Some(map) => {
                let request = by_map(request, Some(&map));
                self.execute_with(request, Some(map), hops, expires).await
            }
            None => answer,
        }
    }

    /// The map of a request's name that was created after the one which this peer knew, and which has
    /// been dropped: unheard of here. `None` if the answer is no such refusal, or true.
    async fn later_map(
        &self,
        request: &Request,
        known: Option<MapId>,
        answer: &Result<Reply>,
    ) -> Result<Option<MapDescriptor>> {
        let refused = answer.as_ref().is_err_and(|error| error.code == Code::NoSuchMap);
        let Some(known) = known.filter(|_| refused) else { return Ok(None) };
        self.catch_up().await.map_err(|error| unsure_of_map(request.op.map().unwrap_or_default(), &error))?;
        Ok(self.map_of(request).await?.filter(|map| map.id != known))
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
                self.catch_up().await.map_err(|error| unsure_of_map(name, &error))?;
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
        if request.stamp.is_some() || request.op.is_read() || group == GroupId::META {
            return self.ask_until_answered(group, request, map, hops, expires, false).await;
        }
        let stamped = self.stamp(request.reach())?;
        request.stamp = Some(stamped.stamp());
        let answer = self.ask_until_answered(group, request, map, hops, expires, true).await;
        stamped.answered(&answer);
        answer
    }

    /// Asks until there is an answer, or the time is over. `simple`: the request's stamp is this peer's.
    async fn ask_until_answered(
        &self,
        group: GroupId,
        request: Request,
        map: Option<MapDescriptor>,
        hops: u32,
        expires: Instant,
        simple: bool,
    ) -> Result<Reply> {
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
            let write_before = unsure && !request.op.is_read();
            let said = |error: Error| if write_before { error.of_unsure_write() } else { error };
            // What may have reached a log may take effect yet.
            unsure |= matches!(error.code, Code::OutcomeUnknown | Code::DeadlineExceeded | Code::PeerUnreachable);
            // What only the session's owner can mend goes back to it at once.
            let owners =
                matches!(error.code, Code::ResendFrom | Code::SessionFull | Code::ClockAhead | Code::TaskNotCarried);
            // The leader may not have heard of a task's map yet.
            let unheard = error.code == Code::NoSuchMap && request.op.is_task();
            if unheard && !caught_up && matches!(self.route(group, asked), Route::Here(_)) {
                caught_up = true;
                self.catch_up().await.map_err(said)?;
                continue;
            }
            // Nobody else has the partition: there is nobody to wait for.
            let full = error.code == Code::DiskFull && !unsure;
            let alone_and_full = full && trouble::is_alone(&self.directory, group);
            let final_here = error.code.retry() == Retry::Never || alone_and_full;
            if hops > 0 || final_here || (owners && !simple) {
                // Others may refuse this peer from now on, say, and one of them have taken the write in before.
                return Err(said(error));
            }
            if !repeatable && matches!(error.code, Code::OutcomeUnknown | Code::DeadlineExceeded) {
                return Err(error);
            }
            asked += 1;
            // Unless an attempt may have reached a log, nothing can have happened.
            if (full || error.code == Code::TaskNotCarried && !unsure) && Instant::now() >= carried_by {
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
            Some(error) if unsure => error.of_unsure_write(),
            Some(error) => error,
            None => {
                // Who changes the grid's own facts goes by what they say afterwards, if he asks again at all.
                let code = if unsure && group != GroupId::META { Code::OutcomeUnknown } else { Code::DeadlineExceeded };
                Error::new(code, "the request's time is over").at(place(group))
            }
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

    /// Answers a request that another peer has sent on. A leader is named by its address.
    ///
    /// # Errors
    /// Coded.
    pub async fn execute_forwarded(&self, group: GroupId, forward: Forward) -> Result<Reply> {
        let expires = Instant::now() + Duration::from_millis(u64::from(forward.request.deadline_ms));
        let Forward { request, hops } = forward;
        if group == GroupId::META {
            return self.execute_in(group, request, Some(meta_map()), hops, expires).await;
        }
        let map = self.map_of(&request).await?;
        let known = map.as_ref().map(|map| map.id);
        let answer = self.execute_in(group, request.clone(), map, hops, expires).await;
        // Whoever asked may know of the later map, and would take this peer's word that there is none.
        match self.later_map(&request, known, &answer).await? {
            Some(map) => self.execute_in(group, request, Some(map), hops, expires).await,
            None => answer,
        }
    }

    /// Makes of an error what clients understand: a leader is named by its address, and a peer that
    /// was removed is one that serves no more.
    pub fn for_clients(&self, error: Error) -> Error {
        let mut error = serves_no_more(error);
        let node = error.leader.as_deref().and_then(|leader| leader.parse::<NodeId>().ok());
        if let Some(node) = node {
            error.leader = self.directory.address_of(node);
        }
        error
    }
}

/// That this peer was removed is nobody else's end: whoever asked it is to ask another. Other errors
/// stay what they are.
pub(super) fn serves_no_more(error: Error) -> Error {
    match error.code {
        Code::MemberRemoved => Error::new(Code::ShuttingDown, error.what),
        _ => error,
    }
}

/// Why nothing is said of a map.
pub(super) fn unsure_of_map(name: &str, error: &Error) -> Error {
    let what = format!("this peer cannot tell at the moment whether there is a map {name:?}: {error}");
    Error::new(Code::NotReady, what).remedy("try again in a moment")
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
