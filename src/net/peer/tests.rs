//! Two and more transports over loopback TCP and over a network in memory with faults.

use super::*;
use crate::clock::{self, Gate, JoinHandle};
use crate::error::{Code, Error};
use crate::net::memory::MemoryNetwork;
use crate::net::{Network, TcpNetwork, grpc};
use crate::types::{GridId, Incarnation};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;
use tonic::service::Routes;

const ECHO: u8 = 1;
const NEVER: u8 = 2;
const FAIL: u8 = 3;
const HELD: u8 = 4;
const WHO: u8 = 5;

/// Answers by kind; counts how many `HELD` calls run at once.
struct Handler {
    gate: Semaphore,
    running: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait::async_trait]
impl PeerHandler for Handler {
    async fn handle(&self, from: &PeerIdentity, frame: IncomingFrame) -> Result<Bytes> {
        match frame.kind {
            ECHO => Ok(frame.payload),
            NEVER => std::future::pending().await,
            FAIL => Err(Error::new(Code::NotLeader, "not here").at("there").leader("n9:1")),
            WHO => Ok(format!("{} {:?} {}", from.node, from.grid, frame.group).into()),
            _ => {
                let running = self.running.fetch_add(1, SeqCst) + 1;
                self.most.fetch_max(running, SeqCst);
                self.gate.acquire().await.expect("open").forget();
                self.running.fetch_sub(1, SeqCst);
                Ok(Bytes::new())
            }
        }
    }
}

#[derive(Clone, Default)]
struct Book(Arc<Mutex<BTreeMap<NodeId, String>>>);

impl Book {
    fn set(&self, node: u64, address: &str) {
        self.0.lock().expect("lock").insert(NodeId(node), address.to_owned());
    }
}

impl AddressBook for Book {
    fn address_of(&self, node: NodeId) -> Option<String> {
        self.0.lock().expect("lock").get(&node).cloned()
    }
}

struct Peer {
    transport: Arc<PeerTransport>,
    identity: Arc<Mutex<PeerIdentity>>,
    handler: Arc<Handler>,
    address: String,
    server: JoinHandle<()>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Peer {
    async fn stop(self) {
        self.transport.shutdown();
        drop(self.stop);
        self.server.await.expect("server");
    }
}

/// A grid of peers on one network.
struct Fixture {
    network: Arc<dyn Network>,
    book: Book,
    host: &'static str,
    config: PeerConfig,
}

impl Fixture {
    fn tcp() -> Self {
        Fixture {
            network: Arc::new(TcpNetwork),
            book: Book::default(),
            host: "127.0.0.1:0",
            config: PeerConfig::default(),
        }
    }

    fn memory() -> (Self, MemoryNetwork) {
        let memory = MemoryNetwork::default();
        let config = PeerConfig {
            grpc: grpc::GrpcConfig { keepalive: None, ..Default::default() },
            stall_after: Duration::from_millis(50),
            ..Default::default()
        };
        (Fixture { network: Arc::new(memory.clone()), book: Book::default(), host: "m:0", config }, memory)
    }

    async fn peer(&self, node: u64, grid: Option<u128>) -> Peer {
        let identity = PeerIdentity {
            grid: grid.map(GridId),
            node: NodeId(node),
            incarnation: Incarnation(1),
            name: format!("n{node}").into(),
        };
        let identity = Arc::new(Mutex::new(identity));
        let me = identity.clone();
        let transport = PeerTransport::new(
            Arc::new(move || me.lock().expect("lock").clone()),
            self.network.clone(),
            Arc::new(self.book.clone()),
            self.config.clone(),
        );
        let handler =
            Arc::new(Handler { gate: Semaphore::new(0), running: AtomicUsize::new(0), most: AtomicUsize::new(0) });
        let listener = self.network.listen(self.host).await.expect("listen");
        let address = listener.local_addr();
        self.book.set(node, &address);
        let routes = Routes::new(transport.service(handler.clone()));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let server = clock::spawn(grpc::serve(listener, routes, self.config.grpc.clone(), shutdown));
        Peer { transport, identity, handler, address, server, stop }
    }
}

const GRID: Option<u128> = Some(7);
const WAIT: Duration = Duration::from_secs(5);

async fn call(from: &Peer, to: u64, kind: u8, payload: &'static [u8], wait: Duration) -> Result<Bytes> {
    from.transport.call(NodeId(to), Lane::Append, GroupId(3), kind, Bytes::from_static(payload), wait).await
}

fn code(result: Result<Bytes>) -> Code {
    result.expect_err("refused").code
}

async fn both_ways(fixture: Fixture) {
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    assert_eq!(call(&a, 2, ECHO, b"one", WAIT).await.expect("echo"), "one");
    assert_eq!(call(&b, 1, ECHO, b"two", WAIT).await.expect("echo"), "two");
    let who = call(&a, 2, WHO, b"", WAIT).await.expect("who");
    assert_eq!(who, format!("{} {:?} 3", NodeId(1), Some(GridId(7))));
    let error = call(&a, 2, FAIL, b"", WAIT).await.expect_err("fails");
    assert_eq!(error, Error::new(Code::NotLeader, "not here").at("there").leader("n9:1"));
    let echo = KindStats { kind: ECHO, frames_out: 2, bytes_out: 6, frames_in: 2, bytes_in: 6 };
    assert_eq!(a.transport.stats()[0], echo, "a call and an answer each way");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn calls_answers_and_errors_go_both_ways_over_tcp() {
    both_ways(Fixture::tcp()).await;
}

#[tokio::test]
async fn calls_answers_and_errors_go_both_ways_in_memory() {
    both_ways(Fixture::memory().0).await;
}

#[tokio::test]
async fn many_calls_share_a_stream() {
    let fixture = Fixture::tcp();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    let large = Bytes::from(vec![5u8; 100_000]);
    let calls = (0..500u32).map(|number| {
        let payload = if number % 50 == 0 { large.clone() } else { Bytes::from(number.to_be_bytes().to_vec()) };
        let (transport, lane) = (&a.transport, if number % 2 == 0 { Lane::Request } else { Lane::Bulk });
        async move {
            let answer = transport.call(NodeId(2), lane, GroupId(0), ECHO, payload.clone(), WAIT).await;
            assert_eq!(answer.expect("echo"), payload);
        }
    });
    futures::future::join_all(calls).await;
    drop(b);
}

#[tokio::test]
async fn a_peer_of_another_grid_is_refused_both_ways() {
    let fixture = Fixture::tcp();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, Some(8)).await);
    assert_eq!(code(call(&a, 2, ECHO, b"", WAIT).await), Code::ForeignGrid);
    assert_eq!(code(call(&b, 1, ECHO, b"", WAIT).await), Code::ForeignGrid);
    let again = call(&a, 2, ECHO, b"", WAIT).await;
    assert_eq!(code(again), Code::ForeignGrid, "the reason stays during the pause");
}

#[tokio::test]
async fn a_peer_without_a_grid_is_known_as_such_and_known_anew_once_it_has_one() {
    let fixture = Fixture::tcp();
    let (a, b) = (fixture.peer(1, None).await, fixture.peer(2, GRID).await);
    let nobody = Bytes::new();
    let ask = || a.transport.call_address(&b.address, Lane::Control, GroupId(0), WHO, nobody.clone(), WAIT);
    let (peer, answer) = ask().await.expect("answered");
    assert_eq!((peer.node, peer.grid), (NodeId(2), Some(GridId(7))));
    assert_eq!(answer, format!("{} None 0", NodeId(1)));
    a.identity.lock().expect("lock").grid = Some(GridId(7));
    assert_eq!(ask().await.expect("answered").1, format!("{} {:?} 0", NodeId(1), Some(GridId(7))));
    a.identity.lock().expect("lock").grid = Some(GridId(9));
    assert_eq!(ask().await.expect_err("refused").code, Code::ForeignGrid);
}

#[tokio::test]
async fn the_callee_greets_anew_once_it_has_a_grid() {
    let fixture = Fixture::tcp();
    let (a, b) = (fixture.peer(1, None).await, fixture.peer(2, None).await);
    let ask = || a.transport.call_address(&b.address, Lane::Control, GroupId(0), ECHO, Bytes::new(), WAIT);
    assert_eq!(ask().await.expect("answered").0.grid, None);
    b.identity.lock().expect("lock").grid = Some(GridId(7));
    let mut events = a.transport.events();
    ask().await.expect("answered once more on the old connection");
    assert_eq!(events.recv().await, Ok(PeerEvent::Lost(NodeId(2))));
    assert_eq!(ask().await.expect("answered").0.grid, Some(GridId(7)));
}

#[test]
fn greetings_without_a_common_protocol_are_refused() {
    let me = PeerIdentity { grid: None, node: NodeId(1), incarnation: Incarnation(1), name: "a".into() };
    let mut greeting = me.greeting();
    assert_eq!(me.accept(&greeting), Ok(me.clone()));
    (greeting.protocol_min, greeting.protocol_max) = (PROTOCOL_MAX + 1, PROTOCOL_MAX + 4);
    assert_eq!(me.accept(&greeting).expect_err("too new").code, Code::ProtocolMismatch);
    (greeting.protocol_min, greeting.protocol_max) = (0, PROTOCOL_MIN - 1);
    assert_eq!(me.accept(&greeting).expect_err("too old").code, Code::ProtocolMismatch);
    (greeting.protocol_min, greeting.protocol_max) = (0, 9);
    assert!(me.accept(&greeting).is_ok());
    greeting.grid = Bytes::from_static(b"short");
    assert_eq!(me.accept(&greeting).expect_err("damaged").code, Code::ProtocolMismatch);
}

#[test]
fn the_wire_format_is_fixed() {
    use grid_proto::keystead::peer::v1::{RequestFrame, Requests, ToCallee, to_callee};
    use prost::Message;
    let me = PeerIdentity { grid: Some(GridId(1)), node: NodeId(2), incarnation: Incarnation(3), name: "a".into() };
    let greeting = ToCallee { content: Some(to_callee::Content::Greeting(me.greeting())) };
    let golden: &[u8] = &[
        0x0A, 36, 0x0A, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x11, 2, 0, 0, 0, 0, 0, 0, 0, 0x18, 3,
        0x22, 1, b'a', 0x28, 1, 0x30, 1,
    ];
    assert_eq!(greeting.encode_to_vec(), golden);
    let frame = RequestFrame { id: 1, group: 2, kind: 3, deadline_ms: 4, payload: Bytes::from_static(b"x") };
    let requests = ToCallee { content: Some(to_callee::Content::Requests(Requests { frames: vec![frame] })) };
    let golden: &[u8] = &[0x12, 13, 0x0A, 11, 0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4, 0x2A, 1, b'x'];
    assert_eq!(requests.encode_to_vec(), golden);
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_wanted_one() {
    let fixture = Fixture::tcp();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    fixture.book.set(3, &b.address);
    let error = call(&a, 3, ECHO, b"", WAIT).await.expect_err("wrong node");
    assert_eq!(error.code, Code::PeerUnreachable);
    assert!(error.what.contains(&NodeId(2).to_string()), "{error}");
}

#[tokio::test]
async fn a_dead_peer_costs_one_attempt_per_pause() {
    let (fixture, memory) = Fixture::memory();
    let a = fixture.peer(1, GRID).await;
    fixture.book.set(2, "nobody:1");
    for _ in 0..20 {
        assert_eq!(code(call(&a, 2, ECHO, b"", WAIT).await), Code::PeerUnreachable);
    }
    assert_eq!(memory.attempts(), 1);
    a.transport.reset(NodeId(2));
    assert_eq!(code(call(&a, 2, ECHO, b"", WAIT).await), Code::PeerUnreachable);
    assert_eq!(memory.attempts(), 2, "a reset lets the next call try");
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_the_limit() {
    let (fixture, memory) = Fixture::memory();
    let a = fixture.peer(1, GRID).await;
    fixture.book.set(2, "nobody:1");
    let start = clock::Instant::now();
    while start.elapsed() < Duration::from_millis(5_000) {
        assert_eq!(code(call(&a, 2, ECHO, b"", WAIT).await), Code::PeerUnreachable);
        clock::sleep(Duration::from_millis(5)).await;
    }
    // At about 0, 100, 300, 700, 1500, 2500, 3500 and 4500 ms.
    assert_eq!(memory.attempts(), 8);
}

#[tokio::test]
async fn a_peer_that_comes_back_at_another_address_is_found() {
    let fixture = Fixture::tcp();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    call(&a, 2, ECHO, b"", WAIT).await.expect("first life");
    let mut events = a.transport.events();
    b.stop().await;
    assert_eq!(events.recv().await, Ok(PeerEvent::Lost(NodeId(2))));
    let b = fixture.peer(2, GRID).await;
    assert_eq!(call(&a, 2, ECHO, b"again", WAIT).await.expect("second life"), "again");
    drop(b);
}

#[tokio::test]
async fn a_broken_stream_leaves_the_outcome_open() {
    let fixture = Fixture::tcp();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    let pending = call(&a, 2, HELD, b"", WAIT);
    let breaker = async {
        while b.handler.running.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        b.transport.shutdown();
        b.server.abort();
    };
    // The handler still runs; cutting the answers' way needs the caller's side.
    let (outcome, ()) = tokio::join!(pending, async {
        breaker.await;
        a.transport.disconnect(NodeId(2));
    });
    assert_eq!(code(outcome), Code::OutcomeUnknown);
}

#[tokio::test]
async fn swallowed_bytes_end_in_a_timeout_and_a_new_connection() {
    let (fixture, memory) = Fixture::memory();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    call(&a, 2, ECHO, b"", WAIT).await.expect("before");
    assert_eq!(memory.attempts(), 1);
    memory.swallow(true);
    let lost = call(&a, 2, ECHO, b"", Duration::from_millis(100)).await;
    assert_eq!(code(lost), Code::DeadlineExceeded);
    memory.swallow(false);
    assert_eq!(call(&a, 2, ECHO, b"after", WAIT).await.expect("after"), "after");
    assert_eq!(memory.attempts(), 2);
    drop(b);
}

#[tokio::test]
async fn a_call_dropped_by_its_caller_counts_as_a_sign_of_a_dead_stream() {
    let (fixture, memory) = Fixture::memory();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    call(&a, 2, ECHO, b"", WAIT).await.expect("before");
    memory.swallow(true);
    let dropped = clock::timeout(Duration::from_millis(100), call(&a, 2, ECHO, b"", WAIT)).await;
    assert_eq!(dropped, Err(clock::Elapsed));
    memory.swallow(false);
    assert_eq!(call(&a, 2, ECHO, b"after", WAIT).await.expect("after"), "after");
    drop(b);
}

#[tokio::test]
async fn a_slow_call_on_a_lively_stream_costs_no_connection() {
    let (fixture, memory) = Fixture::memory();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    let slow = call(&a, 2, NEVER, b"", Duration::from_millis(200));
    let lively = async {
        for _ in 0..40 {
            call(&a, 2, ECHO, b"", WAIT).await.expect("echo");
            clock::sleep(Duration::from_millis(10)).await;
        }
    };
    let (slow, ()) = tokio::join!(slow, lively);
    assert_eq!(code(slow), Code::DeadlineExceeded);
    assert_eq!(memory.attempts(), 1);
    drop(b);
}

async fn call_long(from: &Peer, kind: u8, deadline: Duration, every: Duration) -> Result<Bytes> {
    let call = LongCall { kind, payload: Bytes::new(), deadline, sign: (FAIL, Bytes::new()), every };
    from.transport.call_long(NodeId(2), Lane::Append, GroupId(3), call).await
}

#[tokio::test]
async fn a_long_call_is_not_waited_for_on_a_dead_connection_though_another_one_lives() {
    let (fixture, memory) = Fixture::memory();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    call(&a, 2, ECHO, b"", WAIT).await.expect("before");
    let others = async {
        while b.handler.running.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        memory.swallow(true);
        let lost = call(&a, 2, ECHO, b"", Duration::from_millis(100)).await;
        assert_eq!(code(lost), Code::DeadlineExceeded);
        memory.swallow(false);
        // Another caller has noticed, and has a new connection before a sign of life is due.
        assert_eq!(call(&a, 2, ECHO, b"after", WAIT).await.expect("after"), "after");
        std::future::pending::<()>().await;
    };
    let long = tokio::select! {
        long = call_long(&a, HELD, WAIT, Duration::from_millis(300)) => long,
        () = others => unreachable!("it never ends"),
    };
    assert_eq!(code(long), Code::OutcomeUnknown);
    assert_eq!(memory.attempts(), 2);
}

#[tokio::test]
async fn a_long_call_waits_while_signs_of_life_come() {
    let (fixture, memory) = Fixture::memory();
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    let often = Duration::from_millis(20);
    let held = call_long(&a, HELD, Duration::from_secs(3600), often);
    let signs = async {
        // Errors are signs of life as well.
        while !a.transport.stats().iter().any(|of| of.kind == FAIL && of.frames_in >= 3) {
            clock::sleep(Duration::from_millis(5)).await;
        }
        b.handler.gate.add_permits(1);
    };
    let (held, ()) = tokio::join!(held, signs);
    held.expect("answered at last");
    let deadline = Duration::from_millis(200);
    assert_eq!(code(call_long(&a, NEVER, deadline, often).await), Code::DeadlineExceeded);
    assert_eq!(memory.attempts(), 1, "the connection was kept");
}

#[tokio::test]
async fn limits_are_kept() {
    let (mut fixture, _) = Fixture::memory();
    fixture.config.max_outstanding = 8;
    fixture.config.max_handlers = 3;
    fixture.config.max_payload_bytes = 10;
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    assert_eq!(code(call(&a, 2, ECHO, &[0; 11], WAIT).await), Code::TooLarge);
    let calls = futures::future::join_all((0..8).map(|_| call(&a, 2, HELD, b"", WAIT)));
    let check = async {
        while b.handler.running.load(SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(code(call(&a, 2, ECHO, b"", WAIT).await), Code::Overloaded);
        b.handler.gate.add_permits(8);
    };
    let (answers, ()) = tokio::join!(calls, check);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(b.handler.most.load(SeqCst), 3);
    call(&a, 2, ECHO, b"", WAIT).await.expect("room again");
}

#[tokio::test]
async fn queued_bytes_are_limited() {
    let (mut fixture, memory) = Fixture::memory();
    fixture.config.max_queued_bytes = 100;
    let (a, b) = (fixture.peer(1, GRID).await, fixture.peer(2, GRID).await);
    // No connection can be made: what is queued stays queued.
    memory.swallow(true);
    let short = Duration::from_millis(50);
    let (first, second) = tokio::join!(call(&a, 2, ECHO, &[0; 80], short), call(&a, 2, ECHO, &[0; 80], short));
    assert_eq!((code(first), code(second)), (Code::PeerUnreachable, Code::Overloaded));
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_node_behind_a_shut_gate_neither_answers_nor_sends() {
    let (fixture, memory) = Fixture::memory();
    let gate = Gate::new();
    let a = fixture.peer(1, GRID).await;
    let b = gate.clone().run(fixture.peer(2, GRID)).await;
    call(&a, 2, ECHO, b"", WAIT).await.expect("before");
    gate.shut(true);
    let shut = call(&a, 2, ECHO, b"", Duration::from_secs(1)).await;
    assert_eq!(code(shut), Code::DeadlineExceeded);
    let attempt = call(&a, 2, ECHO, b"", WAIT).await;
    assert_eq!(code(attempt), Code::PeerUnreachable, "no greeting comes through");
    assert!(memory.attempts() >= 2);
    gate.open();
    a.transport.reset(NodeId(2));
    call(&a, 2, ECHO, b"", WAIT).await.expect("after");
    drop(b);
}
