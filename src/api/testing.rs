//! A grid in memory for tests: several peers over one state, with sessions as a partition keeps
//! them, and scripted trouble.

use crate::config::Limits;
use crate::error::{Code, Error, Result};
use crate::meta::MemberIntent;
use crate::net::grpc::{self, GrpcConfig};
use crate::net::{Network, TcpNetwork};
use crate::node::{
    Explanation, GridService, LocalEntry, MemberInfo, MemberState, PartitionInfo, PlacementTable, ReplicaInfo,
    ReplicaState, StreamReply, WatchStream,
};
use crate::partition::executor::ReplyTo;
use crate::types::*;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What happens to a request instead of the usual.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Refused before anything happens.
    Refuse(Error),
    /// Executed, but the answer is this error.
    LoseAnswer(Error),
    /// Executed, but never answered.
    Silence,
}

/// One execution: session, number, slot, operation.
pub(crate) type Executed = (u64, u64, Slot, Op);

#[derive(Default)]
struct State {
    entries: BTreeMap<(String, Bytes), StoredValue>,
    maps: Vec<MapDescriptor>,
    revision: u64,
    sessions: BTreeMap<u64, (u64, BTreeMap<u64, Result<ReplyBody>>)>,
    given_up: BTreeMap<u64, Vec<NumberRange>>,
    executed: Vec<Executed>,
    leader: String,
    term: u64,
}

/// What all peers share.
#[derive(Default)]
pub(crate) struct World {
    state: Mutex<State>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        let world = Arc::new(World::default());
        world.add_map("m", KeyCodec::Utf8, ValueCodec::Utf8);
        world
    }

    pub(crate) fn add_map(&self, name: &str, key_codec: KeyCodec, value_codec: ValueCodec) {
        self.add_map_of(&MapSpec::new(name, key_codec, value_codec));
    }

    fn add_map_of(&self, wanted: &MapSpec) -> MapDescriptor {
        let mut state = self.state.lock().expect("lock");
        let map = wanted.descriptor(MapId(state.maps.len() as u32 + 1));
        state.maps.push(map.clone());
        map
    }

    pub(crate) fn lead(&self, address: &str) {
        let mut state = self.state.lock().expect("lock");
        state.leader = address.to_owned();
        state.term += 1;
    }

    pub(crate) fn executed(&self) -> Vec<Executed> {
        self.state.lock().expect("lock").executed.clone()
    }

    pub(crate) fn forget_sessions(&self) {
        for (lowest, answers) in self.state.lock().expect("lock").sessions.values_mut() {
            *lowest = u64::MAX;
            answers.clear();
        }
    }

    /// As a partition executes: kept answers, order by predecessor, once.
    pub(crate) fn execute(&self, request: &Request) -> Result<ReplyBody> {
        let mut state = self.state.lock().expect("lock");
        let state = &mut *state;
        let key = request.op.routing_key().cloned().unwrap_or_default();
        let slot = slot_of(request.affinity.as_deref().unwrap_or(affinity_of(&key)));
        let Some(stamp) = request.stamp.clone() else { return apply(state, &request.op) };
        let session = state.sessions.entry(stamp.session.0).or_default();
        if session.0 == u64::MAX {
            return Err(Error::new(Code::SessionEnded, "forgotten"));
        }
        session.0 = session.0.max(stamp.lowest_unanswered);
        session.1 = session.1.split_off(&session.0);
        if let Some(kept) = session.1.get(&stamp.number) {
            return kept.clone();
        }
        let given_up = state.given_up.entry(stamp.session.0).or_default();
        let is_named = given_up.iter().any(|(first, last)| (*first..=*last).contains(&stamp.number));
        if is_named || stamp.number < session.0 {
            return Err(Error::new(Code::SessionEnded, "already given up"));
        }
        if let Some(previous) = stamp.previous
            && previous >= session.0
            && !session.1.contains_key(&previous)
        {
            return Err(Error::new(Code::ResendFrom, format!("resend from {previous}")));
        }
        given_up.extend(&stamp.given_up);
        let answer = apply(state, &request.op);
        state.executed.push((stamp.session.0, stamp.number, slot, request.op.clone()));
        if let Some(session) = state.sessions.get_mut(&stamp.session.0) {
            session.1.insert(stamp.number, answer.clone());
        }
        answer
    }
}

fn holds(condition: &Condition, present: Option<&StoredValue>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => present.is_none(),
        Condition::Present => present.is_some(),
        Condition::Value(value) => present.is_some_and(|present| present.value == *value),
        Condition::Revision(at) => present.is_some_and(|present| present.revision == *at),
    }
}

fn apply(state: &mut State, op: &Op) -> Result<ReplyBody> {
    if let Some(map) = op.map()
        && !state.maps.iter().any(|known| known.name == map)
    {
        return Err(Error::new(Code::NoSuchMap, format!("there is no map \"{map}\"")));
    }
    let entry = |state: &State, map: &String, key: &Bytes| state.entries.get(&(map.clone(), key.clone())).cloned();
    Ok(match op {
        Op::Forget { .. } => return Err(Error::new(Code::InvalidRequest, "clients send no such operation")),
        Op::Transact { map, checks, writes } => {
            for (key, expected) in checks {
                let present = entry(state, map, key);
                if !holds(expected, present.as_ref()) {
                    return Ok(ReplyBody::CheckFailed { key: key.clone(), present });
                }
            }
            state.revision += 1;
            for (key, value) in writes {
                match value {
                    Some(value) => {
                        let stored = StoredValue::new(state.revision, value.clone());
                        drop(state.entries.insert((map.clone(), key.clone()), stored));
                    }
                    None => drop(state.entries.remove(&(map.clone(), key.clone()))),
                }
            }
            ReplyBody::Written { revision: state.revision, previous: None }
        }
        Op::Scan { map, prefix, from, limit, .. } => {
            let id = state.maps.iter().find(|known| known.name == *map).map_or(MapId(0), |known| known.id);
            let after = from.as_ref().and_then(|from| from.after.clone());
            // All in slot 0: the order of the keys.
            let of_map = state.entries.iter().filter(|((of, key), _)| of == map && key.starts_with(prefix));
            let mut rest = of_map.filter(|((_, key), _)| after.as_ref().is_none_or(|after| key > after));
            let entries: Vec<_> =
                rest.by_ref().take(*limit as usize).map(|((_, key), stored)| (key.clone(), stored.clone())).collect();
            let more = rest.next().is_some();
            let after = entries.last().map(|(key, _)| key.clone());
            let next = more.then_some(Cursor { map: id, slot: Slot(0), after });
            ReplyBody::Page { entries, next }
        }
        Op::Size { map, .. } => {
            let of_map = || state.entries.iter().filter(|((of, _), _)| of == map);
            let bytes = of_map().map(|((_, key), stored)| (key.len() + stored.value.data.len()) as u64).sum();
            ReplyBody::Size { entries: of_map().count() as u64, bytes }
        }
        Op::Clear { map, limit, .. } => {
            let of_map = state.entries.keys().filter(|(of, _)| of == map).take(*limit as usize);
            let gone: Vec<_> = of_map.cloned().collect();
            gone.iter().for_each(|key| drop(state.entries.remove(key)));
            let more = state.entries.keys().any(|(of, _)| of == map);
            let id = state.maps.iter().find(|known| known.name == *map).map_or(MapId(0), |known| known.id);
            ReplyBody::Cleared { deleted: gone.len() as u64, next: if more { Cursor::at_slot(id, 0) } else { None } }
        }
        Op::Get { map, key } => ReplyBody::Entry(entry(state, map, key)),
        Op::GetMany { map, keys } => ReplyBody::Entries(keys.iter().map(|key| entry(state, map, key)).collect()),
        Op::Put { map, key, value, condition, previous, ttl_ms } => {
            let present = entry(state, map, key);
            if !holds(condition, present.as_ref()) {
                return Ok(ReplyBody::ConditionFailed(present));
            }
            state.revision += 1;
            // Time stands still here.
            let expires_ms = ttl_ms.unwrap_or(0);
            let stored = StoredValue { expires_ms, ..StoredValue::new(state.revision, value.clone()) };
            state.entries.insert((map.clone(), key.clone()), stored);
            ReplyBody::Written { revision: state.revision, previous: present.filter(|_| *previous) }
        }
        Op::Touch { map, key, ttl_ms } => {
            let revision = state.revision + 1;
            match state.entries.get_mut(&(map.clone(), key.clone())) {
                None => ReplyBody::Touched { existed: false, revision: 0 },
                Some(present) => {
                    (present.revision, present.expires_ms) = (revision, ttl_ms.unwrap_or(0));
                    state.revision = revision;
                    ReplyBody::Touched { existed: true, revision }
                }
            }
        }
        Op::PutMany { map, entries } => {
            state.revision += 1;
            for (key, value) in entries {
                let stored = StoredValue::new(state.revision, value.clone());
                state.entries.insert((map.clone(), key.clone()), stored);
            }
            ReplyBody::Written { revision: state.revision, previous: None }
        }
        Op::Delete { map, key, condition, previous } => {
            let present = entry(state, map, key);
            if !holds(condition, present.as_ref()) {
                return Ok(ReplyBody::ConditionFailed(present));
            }
            state.entries.remove(&(map.clone(), key.clone()));
            let existed = present.is_some();
            state.revision += u64::from(existed);
            let revision = if existed { state.revision } else { 0 };
            ReplyBody::Deleted { existed, revision, previous: present.filter(|_| *previous) }
        }
        Op::Increment { map, key, delta } => {
            let present = entry(state, map, key);
            let text = present.map_or(Ok("0".to_owned()), |stored| String::from_utf8(stored.value.data.to_vec()));
            let number: i64 = text
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Error::new(Code::WrongCodec, "the entry holds no number"))?;
            state.revision += 1;
            let value = Value::utf8((number + delta).to_string());
            state.entries.insert((map.clone(), key.clone()), StoredValue::new(state.revision, value));
            ReplyBody::Number { value: number + delta, revision: state.revision }
        }
        Op::Task { name, payload, .. } if name == "echo" => ReplyBody::Task(payload.clone()),
        Op::Job { .. } => return Err(Error::new(Code::InvalidRequest, "clients send no such operation")),
        Op::Barrier { .. } => ReplyBody::Entries(Vec::new()),
        Op::Task { name, .. } | Op::PartitionTask { name, .. } => {
            return Err(Error::new(Code::NoSuchTask, format!("there is no task \"{name}\"")));
        }
    })
}

/// A peer of the world.
pub(crate) struct FakePeer {
    pub(crate) world: Arc<World>,
    pub(crate) address: Mutex<String>,
    /// Trouble for the next requests, one each.
    pub(crate) script: Mutex<VecDeque<Option<Trouble>>>,
    /// Why it is not ready, if it is not.
    pub(crate) not_ready: Mutex<Option<String>>,
    /// Forwards what it does not lead, instead of naming the leader.
    pub(crate) forwards: bool,
    /// Requests that it was asked.
    pub(crate) asked: AtomicUsize,
    /// While closed, requests wait.
    pub(crate) door: tokio::sync::Semaphore,
    pub(crate) inside: AtomicUsize,
    pub(crate) inside_max: AtomicUsize,
    /// Requests as they came.
    pub(crate) seen: Mutex<Vec<Request>>,
    /// Broadcasts as they came.
    pub(crate) broadcasts: Mutex<Vec<crate::node::Broadcast>>,
    /// Ids that were cancelled.
    pub(crate) cancelled: Mutex<Vec<u64>>,
    /// Job tasks.
    pub(crate) jobs: Mutex<BTreeMap<JobId, JobInfo>>,
}

impl FakePeer {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(FakePeer::with(world, false))
    }

    pub(crate) fn with(world: &Arc<World>, forwards: bool) -> Self {
        FakePeer {
            world: world.clone(),
            address: Mutex::default(),
            script: Mutex::default(),
            not_ready: Mutex::default(),
            forwards,
            asked: AtomicUsize::new(0),
            door: tokio::sync::Semaphore::new(1 << 20),
            inside: AtomicUsize::new(0),
            inside_max: AtomicUsize::new(0),
            seen: Mutex::default(),
            broadcasts: Mutex::default(),
            cancelled: Mutex::default(),
            jobs: Mutex::default(),
        }
    }

    pub(crate) fn trouble(&self, troubles: impl IntoIterator<Item = Option<Trouble>>) {
        self.script.lock().expect("lock").extend(troubles);
    }

    fn address(&self) -> String {
        self.address.lock().expect("lock").clone()
    }

    /// Serves it on a free port; the token stops it at once, connections included.
    pub(crate) async fn serve(self: &Arc<Self>) -> (String, CancellationToken) {
        self.serve_with(&Limits::default()).await
    }

    pub(crate) async fn serve_with(self: &Arc<Self>, limits: &Limits) -> (String, CancellationToken) {
        let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr();
        *self.address.lock().expect("lock") = address.clone();
        let routes = super::routes(self.clone(), limits).expect("routes");
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let config = GrpcConfig { shutdown_grace: Duration::ZERO, ..GrpcConfig::default() };
        crate::clock::spawn(grpc::serve(listener, routes, config, stopped));
        (address, stop)
    }

    async fn answer(&self, request: Request) -> Result<Reply> {
        let trouble = self.script.lock().expect("lock").pop_front().flatten();
        if let Some(Trouble::Refuse(error)) = trouble {
            return Err(error);
        }
        let (leader, term, revision) = {
            let state = self.world.state.lock().expect("lock");
            (state.leader.clone(), state.term, state.revision)
        };
        let here = leader.is_empty() || leader == self.address();
        if !here && !self.forwards {
            return Err(Error::new(Code::NotLeader, "not the leader").leader(leader));
        }
        let body = self.world.execute(&request)?;
        match trouble {
            Some(Trouble::LoseAnswer(error)) => return Err(error),
            Some(Trouble::Silence) => std::future::pending().await,
            _ => {}
        }
        let time = HybridTime::from_ms(1_000_000 + revision);
        let ack = request.ack;
        Ok(Reply {
            body,
            served: Served { node: NodeId(7), term, hops: u32::from(!here), time, applied: revision, ack },
        })
    }
}

#[async_trait::async_trait]
impl GridService for FakePeer {
    /// The short way is for keys that begin with "short".
    fn submit_here(
        &self,
        request: Request,
        reply: StreamReply,
    ) -> std::result::Result<GroupId, Box<(Request, StreamReply)>> {
        if request.op.routing_key().is_none_or(|key| !key.starts_with(b"short")) {
            return Err(Box::new((request, reply)));
        }
        self.seen.lock().expect("lock").push(request.clone());
        let outcome = match self.script.lock().expect("lock").pop_front().flatten() {
            Some(Trouble::Refuse(error)) => Err(error),
            _ => self.world.execute(&request).map(|body| Reply { body, served: Served::default() }),
        };
        match outcome {
            // Nobody answers it.
            Err(error) if error.code == Code::NoMajority => drop(reply),
            outcome => ReplyTo::Stream(reply).send(outcome, request),
        }
        Ok(GroupId(1))
    }

    fn trouble(&self, group: GroupId) -> Option<Error> {
        (group == GroupId(1)).then(|| Error::new(Code::NoMajority, "2 of 3 peers cannot be reached"))
    }

    async fn execute(&self, request: Request, hops: u32) -> Result<Reply> {
        assert_eq!(hops, 0, "the edge is where a request enters");
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().expect("lock").push(request.clone());
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.inside_max.fetch_max(inside, Ordering::SeqCst);
        self.door.acquire().await.expect("never closed").forget();
        let answer = self.answer(request).await;
        self.door.add_permits(1);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        Err(Error::new(Code::NoSuchMap, format!("there is no map {:?}", request.map)))
    }

    async fn get_local(&self, map: &str, _key: Bytes, _at_least: u64, _at_most: Duration) -> Result<LocalEntry> {
        if let Some(why) = self.not_ready.lock().expect("lock").clone() {
            return Err(Error::new(Code::NotReady, why));
        }
        Err(Error::new(Code::NoLocalCopy, format!("there is no copy of {map:?}")))
    }

    async fn ensure_map(&self, wanted: MapSpec) -> Result<MapDescriptor> {
        let known = self.maps().into_iter().find(|map| map.name == wanted.name);
        if let Some(map) = known {
            if !wanted.matches(&map) {
                return Err(Error::new(Code::MapExists, "it has other codecs or options"));
            }
            return Ok(map);
        }
        wanted.options.as_ref().map_or(Ok(()), MapOptions::check)?;
        Ok(self.world.add_map_of(&wanted))
    }

    async fn fresh_maps(&self) -> Result<Vec<MapDescriptor>> {
        Ok(self.maps())
    }

    async fn drop_map(&self, name: &str, id: Option<MapId>) -> Result<(MapDescriptor, u32)> {
        let mut state = self.world.state.lock().expect("lock");
        let at = state.maps.iter().position(|map| map.name == name && id.is_none_or(|id| map.id == id));
        let at = at.ok_or_else(|| Error::new(Code::NoSuchMap, format!("there is no map \"{name}\"")))?;
        state.entries.retain(|(map, _), _| map != name);
        Ok((state.maps.remove(at), 0))
    }

    fn maps(&self) -> Vec<MapDescriptor> {
        self.world.state.lock().expect("lock").maps.clone()
    }

    async fn intend(&self, member: &str, _intent: MemberIntent) -> Result<NodeId> {
        match member {
            "n1" => Ok(NodeId(7)),
            _ => Err(Error::new(Code::NoSuchMember, format!("the grid has no member {member:?}"))),
        }
    }

    async fn members(&self) -> Result<Vec<MemberInfo>> {
        let (name, address) = ("n1".to_owned(), self.address());
        let state = MemberState::Alive;
        let tasks = ["bill", "count@2", "errand", "tally"].map(str::to_owned).to_vec();
        let (leaders, replicas) = (2, 3);
        Ok(vec![MemberInfo {
            name,
            id: NodeId(7),
            address,
            zone: None,
            state,
            leaders,
            replicas,
            trouble: None,
            tasks,
        }])
    }

    async fn partitions(&self) -> Result<Vec<PartitionInfo>> {
        let replica = |node| ReplicaInfo {
            replica: node,
            node: NodeId(node),
            name: format!("n{node}"),
            state: if node == 3 { ReplicaState::Coming } else { ReplicaState::Holding },
        };
        let one = |id: u32, first_slot, last_slot| PartitionInfo {
            id: PartitionId(id),
            first_slot,
            last_slot,
            leader: (id == 0).then(|| "n1".to_owned()),
            replicas: (1..=2 + u64::from(id)).map(replica).collect(),
            term: 3,
            applied: 17,
            rows: 5,
            under_replicated: id,
        };
        Ok(vec![one(0, 0, 8191), one(1, 8192, 16383)])
    }

    fn placement(&self) -> PlacementTable {
        let state = self.world.state.lock().expect("lock");
        let leader = || state.leader.clone();
        PlacementTable {
            grid: GridId(1),
            version: 1,
            partitions: vec![(0, leader(), state.term), (8192, leader(), state.term)],
        }
    }

    async fn explain(&self, key: Bytes, affinity: Option<Bytes>) -> Result<Explanation> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let affinity = affinity.unwrap_or_else(|| Bytes::copy_from_slice(affinity_of(&key)));
        let slot = slot_of(&affinity);
        let partition = self.partitions().await?.remove(usize::from(slot.0 > 8191));
        Ok(Explanation { key: text(&key), affinity: text(&affinity), slot, partition, why: vec!["Because.".into()] })
    }

    fn time(&self) -> HybridTime {
        HybridTime::from_ms(1_000_000)
    }

    fn tasks(&self) -> Vec<String> {
        vec!["echo".into()]
    }

    fn ready(&self) -> std::result::Result<(), String> {
        self.not_ready.lock().expect("lock").clone().map_or(Ok(()), Err)
    }

    async fn wait_ready(&self, _at_most: Duration) -> Result<()> {
        self.ready().map_err(|why| Error::new(Code::NotReady, why))
    }

    fn metrics(&self) -> String {
        "keystead_up 1\n".into()
    }
}
