//! Executors on a group of three replicas in memory, whose members can be cut off.

use super::*;
use crate::clock::{SystemClock, SystemRandom, SystemThreads, timeout};
use crate::net::peer::Lane;
use crate::partition::user_code::{SlotView, TaskCall, TaskOutcome};
use crate::partition::{Memory, ReplicaMachine};
use crate::raft::network::{
    GroupNetwork, RaftNetworkConfig, RaftTransport, ReceptionConfig, Receptions, dispatch, kind,
};
use crate::raft::{GroupConfig, LogStore, answer_questions};
use crate::storage::backend::{MemoryBackend, ReplicaKey};
use crate::storage::disk::StdDisk;
use crate::storage::log::{LogConfig, SharedLog};
use crate::types::{
    AckLevel, Condition, GroupId, HybridTime, KeyCodec, MapId, MapSpec, Op, ReadLevel, Reply, ReplyBody, SessionId,
    SessionStamp, Value, ValueCodec,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::oneshot;

const GROUP: GroupId = GroupId(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// The groups by node, and who is cut off.
#[derive(Default)]
struct Wire {
    groups: Mutex<BTreeMap<NodeId, Arc<Group>>>,
    cut: Mutex<BTreeSet<NodeId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("lock")
}

/// The network as one node sees it.
struct Seen(NodeId, Arc<Wire>, Receptions);

#[async_trait::async_trait]
impl RaftTransport for Seen {
    async fn call(&self, to: NodeId, _: Lane, group: GroupId, asked: u8, bytes: Bytes, _: Duration) -> Result<Bytes> {
        let cut = lock(&self.1.cut).iter().any(|node| *node == to || *node == self.0);
        let there = lock(&self.1.groups).get(&to).filter(|_| !cut).cloned();
        let there = there.ok_or_else(|| Error::new(Code::PeerUnreachable, "cut off"))?;
        match asked {
            kind::CONFIRM => answer_questions(bytes, |_, _| there.saved_vote()),
            asked => dispatch(there.raft(), &self.2, group, asked, bytes).await,
        }
    }
}

/// One map, and no tasks.
struct Nothing;

impl MapDirectory for Nothing {
    fn map(&self, name: &str) -> Option<MapDescriptor> {
        (name == "m").then(map)
    }
    fn partitions(&self) -> u32 {
        1
    }
}

#[async_trait::async_trait]
impl TaskRunner for Nothing {
    async fn run(&self, _: Arc<dyn SlotView>, _: Vec<TaskCall>) -> Vec<TaskOutcome> {
        Vec::new()
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
    fn state_reads(&self) -> u64 {
        0
    }
    fn stuck_threads(&self) -> usize {
        0
    }
}

fn map() -> MapDescriptor {
    MapSpec::new("m", KeyCodec::Utf8, ValueCodec::Utf8).descriptor(MapId(1))
}

/// Replica 1 with an executor, in a group of three.
struct Three {
    wire: Arc<Wire>,
    executor: Executor,
    memory: Arc<Memory>,
    _dirs: Vec<tempfile::TempDir>,
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("did not come: {what}"));
}

impl Three {
    /// Replica 1 leads, and its run has begun.
    async fn start(config: ExecutorConfig) -> Self {
        let (wire, memory) = (Arc::<Wire>::default(), Memory::new(Some(16 << 20)));
        let mut dirs = Vec::new();
        let mut first = None;
        for id in 1..=3 {
            let dir = tempfile::tempdir().expect("a directory");
            let threads = Arc::new(SystemThreads);
            let (disk, path) = (Arc::new(StdDisk), dir.path());
            let (log, _) =
                SharedLog::open(disk.clone(), threads.clone(), &path.join("log"), LogConfig::default()).expect("opens");
            let log = LogStore::new(log.register(GROUP, id).await.expect("registers"));
            let backend = Arc::new(MemoryBackend::open(disk, path.join("state")).expect("opens"));
            let key = ReplicaKey { group: GROUP, replica: id };
            let account = if id == 1 { memory.clone() } else { Memory::new(None) };
            let state = ReplicaState::load(key, backend, threads.clone(), account).expect("loads");
            let seen = Arc::new(Seen(NodeId(id), wire.clone(), Receptions::new(ReceptionConfig::default())));
            let network = GroupNetwork::new(GROUP, id, seen.clone(), threads, RaftNetworkConfig::default());
            let machine = Arc::new(ReplicaMachine(state.clone()));
            let group = Group::start(GROUP, id, &GroupConfig::default(), log, network, machine).await.expect("starts");
            lock(&wire.groups).insert(NodeId(id), group.clone());
            first = first.or(Some((group, state, seen)));
            dirs.push(dir);
        }
        let (group, replica, seen) = first.expect("the first");
        group.initialize((1..=3).map(|id| (id, NodeId(id))).collect()).await.expect("initializes");
        let executor = Executor::start(ExecutorParts {
            group,
            confirmer: Arc::new(Confirmer::new(seen)),
            pacer: Pacer::new(&config),
            replica,
            maps: Arc::new(Nothing),
            tasks: Arc::new(Nothing),
            cancelled: Arc::default(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            node: NodeId(1),
            config,
            stats: Arc::default(),
        });
        let mut leads = executor.leads();
        timeout(PATIENCE, leads.wait_for(|leads| *leads)).await.expect("a run").expect("an executor");
        Three { wire, executor, memory, _dirs: dirs }
    }

    fn group(&self, node: u64) -> Arc<Group> {
        lock(&self.wire.groups)[&NodeId(node)].clone()
    }

    fn cut(&self, node: u64, cut: bool) {
        let mut all = lock(&self.wire.cut);
        match cut {
            true => all.insert(NodeId(node)),
            false => all.remove(&NodeId(node)),
        };
    }

    /// Submits a command to one who waits.
    fn ask(&self, request: Request, expires: Instant) -> Result<oneshot::Receiver<Result<Reply>>> {
        let (sender, answer) = oneshot::channel();
        self.executor.submit(job(request, expires, ReplyTo::Caller(sender)))?;
        Ok(answer)
    }

    /// Submits a write that goes out while nobody acknowledges it.
    async fn fly(&self, number: u64, expires: Instant) -> oneshot::Receiver<Result<Reply>> {
        let before = self.group(1).status().last_log;
        let answer = self.ask(put(number), expires).expect("taken");
        until("the write in the log", || self.group(1).status().last_log > before).await;
        answer
    }
}

fn job(request: Request, expires: Instant, reply: ReplyTo) -> Job {
    Job { request, map: Some(map()), hops: 0, expires, flown: false, reply }
}

fn request(op: Op, stamp: Option<SessionStamp>) -> Request {
    let (read, ack) = (ReadLevel::Linearizable, AckLevel::default());
    Request { affinity: None, op, read, ack, stamp, deadline_ms: 1000 }
}

fn put(number: u64) -> Request {
    let (key, value) = (Bytes::from(format!("k{number}")), Value::utf8("v"));
    let op = Op::Put { map: "m".into(), key, value, condition: Condition::Always, previous: false, ttl_ms: None };
    let first_sent = HybridTime::from_ms(SystemClock.unix_ms());
    let stamp = SessionStamp {
        session: SessionId(9),
        number,
        lowest_unanswered: 1,
        previous: None,
        first_sent,
        given_up: Vec::new(),
    };
    request(op, Some(stamp))
}

fn get() -> Request {
    request(Op::Get { map: "m".into(), key: Bytes::from_static(b"k1") }, None)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn answer(receiver: oneshot::Receiver<Result<Reply>>) -> Result<Reply> {
    timeout(PATIENCE, receiver).await.expect("in time").expect("an answer")
}

#[tokio::test]
async fn a_write_on_its_way_is_never_answered_as_one_that_was_not_executed() {
    let three = Three::start(ExecutorConfig::default()).await;
    let first = answer(three.ask(put(1), later()).expect("taken")).await;
    assert!(matches!(first.expect("written").body, ReplyBody::Written { .. }));
    three.cut(1, true);
    let flown = three.fly(2, later()).await;
    until("another leader", || (2..=3).any(|node| three.group(node).leadership().borrow().is_me)).await;
    three.cut(1, false);
    let error = answer(flown).await.expect_err("nobody knows");
    assert_eq!(error.code, Code::OutcomeUnknown, "{error}");
    let refused = answer(three.ask(put(3), later()).expect("taken")).await.expect_err("led elsewhere");
    assert!(matches!(refused.code, Code::NotLeader | Code::NoLeader), "{refused}");
}

#[tokio::test]
async fn a_repeated_write_that_is_late_is_not_refused_for_memory_while_the_first_is_on_its_way() {
    let three = Three::start(ExecutorConfig::default()).await;
    three.cut(1, true);
    let first = three.fly(1, later()).await;
    three.memory.account_dirty(0, 16 << 20);
    assert!(three.memory.is_stalled());
    let again = three.ask(put(1), Instant::now()).expect("taken");
    let other = three.ask(put(2), Instant::now()).expect("taken");
    let refused = answer(other).await.expect_err("no memory");
    assert_eq!(refused.code, Code::MemoryFull);
    three.memory.account_dirty(16 << 20, 0);
    three.cut(1, false);
    // Whatever becomes of the leadership meanwhile.
    for said in [answer(first).await, answer(again).await] {
        assert!(said.as_ref().map_or_else(|error| error.code == Code::OutcomeUnknown, |_| true), "{said:?}");
    }
}

#[tokio::test]
async fn a_replica_that_cannot_read_its_state_says_so_and_may_be_relieved() {
    use super::super::entry::{Batch, RowWrite};
    use super::super::rows;
    let three = Three::start(ExecutorConfig::default()).await;
    let (group, run) = (three.group(1), RunId(77));
    let term = group.leadership().borrow().term;
    // Another run's batch leaves a session that nobody can read.
    let writes = vec![RowWrite::put(rows::session_row(SessionId(5)), Bytes::from_static(b"\x09"))];
    for entry in
        [PartitionEntry::Marker(Marker { term, run }), PartitionEntry::Batch(Batch { term, run, number: 1, writes })]
    {
        let verdict = group.propose(term, entry.encode()).await.expect("it leads").wait().await;
        assert!(matches!(&verdict, Verdict::Applied(outcome) if outcome.took_effect), "{verdict:?}");
    }
    // The executor's own run finds itself fenced, and none can begin after it.
    let _waits = three.ask(put(1), later()).expect("taken");
    until("nothing can be read", || three.executor.is_unreadable()).await;
    let refused = answer(three.ask(put(2), later()).expect("taken")).await.expect_err("not here");
    assert_eq!(refused.code, Code::NotReady, "{refused}");
    assert!(refused.what.contains("the row of session"), "{refused}");
    group.transfer_leadership(2).await.expect("another takes over");
    until("it leads no more", || !three.group(1).leadership().borrow().is_me).await;
    until("nothing is expected of it", || !three.executor.is_unreadable()).await;
}

#[tokio::test]
async fn the_mailbox_bounds_what_waits_for_the_log() {
    let config = ExecutorConfig { mailbox: 64, max_turn: 4, max_in_flight: 1, ..ExecutorConfig::default() };
    let three = Three::start(config).await;
    three.cut(1, true);
    let before = three.group(1).status().last_log;
    let _waiting: Vec<_> = (1..=64).map(|number| three.ask(put(number), later()).expect("room")).collect();
    until("the first batch", || three.group(1).status().last_log > before).await;
    let taken = (65..=128).map_while(|number| three.ask(put(number), later()).ok()).count();
    assert!(taken <= 12, "{taken} more were taken, though nothing was answered");
    let error = three.ask(put(200), later()).expect_err("no room");
    assert_eq!(error.code, Code::Overloaded);
}

#[tokio::test]
async fn a_streams_read_whose_time_is_over_does_not_wait_for_a_majority() {
    let three = Three::start(ExecutorConfig::default()).await;
    three.cut(1, true);
    let (sender, mut answers) = mpsc::unbounded_channel();
    let read = |ticket, expires| job(get(), expires, ReplyTo::Stream(StreamReply::new(ticket, sender.clone())));
    three.executor.submit(read(1, Instant::now() + Duration::from_millis(300))).expect("taken");
    three.executor.submit(read(2, later())).expect("taken");
    let dropped = timeout(PATIENCE, answers.recv()).await.expect("it is let go").expect("a stream");
    assert!(matches!(dropped, Answered { ticket: 1, answer: Answer::Dropped }), "{dropped:?}");
    assert!(answers.try_recv().is_err(), "the other has time");
}

#[tokio::test]
async fn who_waits_for_an_executor_that_stops_is_told_to_ask_elsewhere() {
    let three = Three::start(ExecutorConfig { max_in_flight: 1, ..ExecutorConfig::default() }).await;
    three.cut(1, true);
    let (sender, mut answers) = mpsc::unbounded_channel();
    let streamed = |ticket, request| {
        let reply = ReplyTo::Stream(StreamReply::new(ticket, sender.clone()));
        three.executor.submit(job(request, later(), reply)).expect("taken");
    };
    let before = three.group(1).status().last_log;
    streamed(1, put(1));
    until("the write in the log", || three.group(1).status().last_log > before).await;
    streamed(2, put(2));
    streamed(3, get());
    three.executor.stop();
    let mut codes = BTreeMap::new();
    for _ in 1..=3 {
        let said = timeout(PATIENCE, answers.recv()).await.expect("in time").expect("a stream");
        let Answer::Failed(error, _) = said.answer else { panic!("not to be repeated: {said:?}") };
        codes.insert(said.ticket, error.code);
    }
    let expected = [(1, Code::OutcomeUnknown), (2, Code::ShuttingDown), (3, Code::ShuttingDown)];
    assert_eq!(codes, BTreeMap::from(expected));
}
