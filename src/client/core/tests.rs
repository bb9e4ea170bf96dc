//! The core against a model of partitions that lose, delay, refuse and reorder. Whatever happens,
//! each write runs once, writes to a slot run in their order, and every call is answered.

use super::*;
use crate::api::testing::World;
use crate::node::PlacementTable;
use crate::types::{AckLevel, GridId, HybridTime, Op, ReadLevel, ReplyBody, Served, Value, slot_of};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

struct Dice(AtomicU64);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        self.next_u64() % n
    }
}

impl Random for Dice {
    fn next_u64(&self) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        x
    }
}

fn timing() -> Timing {
    Timing {
        attempt: Duration::from_secs(1),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
    }
}

fn table(leader: &str, term: u64) -> PlacementTable {
    PlacementTable { grid: GridId(1), version: 1, partitions: vec![(0, leader.into(), term)] }
}

fn core(dice: Arc<Dice>, now: Instant) -> Core {
    let endpoints = vec![Peer::from("a"), Peer::from("b")];
    let time = GridTime::new(HybridTime::from_ms(1000), now);
    Core::new(timing(), dice, Routes::new(endpoints, table("a", 1)), time)
}

fn request(op: Op) -> Request {
    let (read, ack) = (ReadLevel::Linearizable, AckLevel::MajorityFsync);
    Request { affinity: None, op, read, ack, stamp: None, deadline_ms: 0 }
}

fn put(key: &str, value: u64) -> Op {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Op::Put {
        map: "m".into(),
        key,
        value: Value::i64(value as i64),
        condition: Default::default(),
        previous: false,
        ttl_ms: None,
    }
}

fn call(op: Op, deadline: Instant) -> Call {
    let slot_of_key = |key: &Bytes| slot_of(key);
    let slot = slot_of_key(op.routing_key().expect("a key"));
    let others = match &op {
        Op::PutMany { entries, .. } => {
            let all: BTreeSet<Slot> = entries.iter().map(|(key, _)| slot_of_key(key)).collect();
            all.into_iter().filter(|other| *other != slot).collect()
        }
        _ => Vec::new(),
    };
    Call { request: request(op), slot, others, deadline }
}

fn sends(core: &mut Core) -> Vec<(LaneKey, u64, Request)> {
    let send = |effect| match effect {
        Effect::Send { lane, wire_id, request, .. } => Some((lane, wire_id, request)),
        _ => None,
    };
    core.take_effects().into_iter().filter_map(send).collect()
}

fn number(request: &Request) -> u64 {
    request.stamp.as_ref().expect("stamped").number
}

fn written() -> Reply {
    Reply { body: ReplyBody::Written { revision: 1, previous: None }, served: Served::default() }
}

fn start() -> Instant {
    Instant::now()
}

/// What a call is answered whose first attempt met this error and whose second, at a peer that is
/// not there, met nothing.
fn given_up(op: Op, error: Error) -> Error {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    core.submit(1, call(op, now + Duration::from_secs(5)), now);
    let (lane, wire_id, _) = sends(&mut core).remove(0);
    core.on_reply(&lane, wire_id, Err(error), now);
    core.tick(now + Duration::from_secs(1));
    for effect in core.take_effects() {
        if let Effect::Send { lane, epoch, .. } = effect {
            let gone = Error::new(Code::PeerUnreachable, "connection refused");
            core.lane_down(&lane, epoch, &gone, true, now + Duration::from_secs(1));
        }
    }
    core.take_effects();
    core.pending.values_mut().for_each(|pending| pending.state = State::Waiting { until: now });
    core.tick(now + Duration::from_secs(6));
    let answer = core.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Answer { outcome, .. } => outcome.err(),
        _ => None,
    });
    answer.expect("the call is given up")
}

#[tokio::test]
async fn a_call_that_is_given_up_says_what_a_peer_knew_of_it() {
    let missing = || Error::new(Code::NoMajority, "2 of 3 peers of partition 0 cannot be reached: n2, n3");
    let get = Op::Get { map: "m".into(), key: Bytes::from_static(b"k") };
    assert_eq!(given_up(get, missing()), missing());
    // The second attempt at a write may have arrived: that is said first.
    let write = given_up(put("k", 1), missing());
    assert_eq!(write.code, Code::OutcomeUnknown);
    assert!(write.what.contains("KS3013: 2 of 3 peers") && !write.what.contains("refused"), "{write}");
}

#[tokio::test]
async fn a_write_that_no_peer_has_room_for_is_refused_after_half_of_its_time() {
    for (unsure, ends) in [(false, true), (true, false)] {
        let now = start();
        let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
        core.submit(1, call(put("k", 1), now + Duration::from_secs(10)), now);
        let mut refuse = |code, at: u64| {
            let at = now + Duration::from_secs(at);
            core.tick(at);
            let (lane, wire_id, _) = sends(&mut core).remove(0);
            core.on_reply(&lane, wire_id, Err(Error::new(code, "no room")), at);
            core.pending.len()
        };
        let first = if unsure { Code::OutcomeUnknown } else { Code::DiskFull };
        assert_eq!(refuse(first, 0), 1, "another peer may have room");
        assert_eq!(refuse(Code::DiskFull, 4), 1);
        assert_eq!(refuse(Code::DiskFull, 6), usize::from(!ends), "unsure: {unsure}");
    }
}

/// What a call is answered at its deadline.
fn at_the_end(core: &mut Core, id: u64, now: Instant) -> Error {
    core.take_effects();
    core.pending.values_mut().for_each(|pending| pending.state = State::Waiting { until: now });
    core.tick(now + Duration::from_secs(60));
    let answer = core.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Answer { id: of, outcome } if of == id => outcome.err(),
        _ => None,
    });
    answer.expect("the call is given up")
}

#[tokio::test]
async fn a_leader_that_cannot_say_what_came_of_a_write_is_not_asked_again_and_again() {
    for silent in [Code::OutcomeUnknown, Code::DeadlineExceeded] {
        let now = start();
        let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
        core.submit(1, call(put("k", 1), now + Duration::from_secs(60)), now);
        let (lane, wire_id, first) = sends(&mut core).remove(0);
        assert_eq!(&*lane.0, "a");
        core.on_reply(&lane, wire_id, Err(Error::new(silent, "2 of 3 cannot be reached")), now);
        let later = now + Duration::from_secs(1);
        core.tick(later);
        let (lane, wire_id, again) = sends(&mut core).remove(0);
        assert_eq!((&*lane.0, number(&again)), ("b", number(&first)), "{silent}");
        core.on_reply(&lane, wire_id, Ok(written()), later);
    }
}

#[tokio::test]
async fn a_write_that_was_sent_elsewhere_before_is_not_said_to_have_been_refused() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    let deadline = now + Duration::from_secs(5);
    core.submit(1, call(put("k", 1), deadline), now);
    core.take_effects();
    core.on_placement(Some(table("b", 2)), now);
    core.submit(2, call(put("k", 2), deadline), now);
    let (lane, wire_id, _) = sends(&mut core).remove(0);
    assert_eq!(&*lane.0, "b");
    let missing = |number| Error::new(Code::ResendFrom, "a write is missing").resend_from(number);
    core.on_reply(&lane, wire_id, Err(missing(1)), now);
    // The first is sent again, there; what came of it at "a" nobody knows.
    core.tick(now + Duration::from_secs(1));
    for (lane, wire_id, _) in sends(&mut core) {
        core.on_reply(&lane, wire_id, Err(Error::new(Code::NoMajority, "2 of 3")), now + Duration::from_secs(1));
    }
    assert_eq!(at_the_end(&mut core, 1, now).code, Code::OutcomeUnknown);
}

#[tokio::test]
async fn a_refusal_of_who_asks_does_not_hide_that_an_attempt_may_take_effect() {
    for (second, said) in [(Code::ForeignGrid, Code::OutcomeUnknown), (Code::MapFull, Code::MapFull)] {
        let now = start();
        let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
        core.submit(1, call(put("k", 1), now + Duration::from_secs(60)), now);
        let (lane, wire_id, _) = sends(&mut core).remove(0);
        core.on_reply(&lane, wire_id, Err(Error::new(Code::OutcomeUnknown, "lost")), now);
        core.tick(now + Duration::from_secs(1));
        let (lane, wire_id, _) = sends(&mut core).remove(0);
        core.on_reply(&lane, wire_id, Err(Error::new(second, "no")), now + Duration::from_secs(1));
        let answered = core
            .take_effects()
            .into_iter()
            .any(|effect| matches!(effect, Effect::Answer { id: 1, outcome: Err(error) } if error.code == said));
        assert!(answered, "{said}");
    }
}

#[tokio::test]
async fn not_leader_goes_to_the_leader_at_once_with_the_same_number() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    core.submit(1, call(put("k", 1), now + Duration::from_secs(10)), now);
    let (lane, wire_id, first) = sends(&mut core).remove(0);
    assert_eq!(&*lane.0, "a");
    core.on_reply(&lane, wire_id, Err(Error::new(Code::NotLeader, "no").leader("c")), now);
    let (lane, second_id, second) = sends(&mut core).remove(0);
    assert_eq!(&*lane.0, "c");
    assert_ne!(second_id, wire_id);
    assert_eq!(number(&second), number(&first));
    assert_eq!(second.stamp.as_ref().map(|s| s.first_sent), first.stamp.as_ref().map(|s| s.first_sent));
    // The next call goes there straight away.
    core.submit(2, call(put("k", 2), now + Duration::from_secs(10)), now);
    let (lane, _, next) = sends(&mut core).remove(0);
    assert_eq!(&*lane.0, "c");
    let stamp = next.stamp.expect("stamped");
    assert_eq!((stamp.number, stamp.previous, stamp.lowest_unanswered), (2, Some(1), 1));
}

#[tokio::test]
async fn final_errors_are_answered_and_others_wait_for_a_pause() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    core.submit(1, call(put("k", 1), now + Duration::from_secs(10)), now);
    let (lane, wire_id, _) = sends(&mut core).remove(0);
    core.on_reply(&lane, wire_id, Err(Error::new(Code::Overloaded, "full")), now);
    assert!(sends(&mut core).is_empty(), "a pause comes first");
    core.tick(core.next_wakeup().expect("a timer"));
    let (lane, wire_id, _) = sends(&mut core).remove(0);
    core.on_reply(&lane, wire_id, Err(Error::new(Code::WrongCodec, "no")), now);
    let effects = core.take_effects();
    assert!(matches!(&effects[..], [Effect::Answer { id: 1, outcome: Err(error) }] if error.code == Code::WrongCodec));
}

#[tokio::test]
async fn a_broken_stream_sends_everything_elsewhere_in_order() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    for id in 1..=5 {
        core.submit(id, call(put("k", id), now + Duration::from_secs(10)), now);
    }
    let lane = sends(&mut core).remove(0).0;
    core.lane_down(&lane, 0, &Error::new(Code::PeerUnreachable, "gone"), true, now);
    let mut numbers = Vec::new();
    let mut at = now;
    while numbers.len() < 5 {
        core.tick(at);
        numbers.extend(sends(&mut core).into_iter().map(|(lane, _, request)| {
            assert_eq!(&*lane.0, "b");
            number(&request)
        }));
        at += Duration::from_millis(5);
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_write_is_unknown_only_if_it_may_have_been_sent() {
    let now = start();
    for (connected, code) in [(true, Code::OutcomeUnknown), (false, Code::DeadlineExceeded)] {
        let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
        core.submit(1, call(put("k", 1), now + Duration::from_secs(3)), now);
        let answer = (0..3_100).find_map(|ms| {
            let at = now + Duration::from_millis(ms);
            core.tick(at);
            let effects = core.take_effects();
            effects.into_iter().find_map(|effect| match effect {
                Effect::Send { lane, epoch, .. } => {
                    core.lane_down(&lane, epoch, &Error::new(Code::PeerUnreachable, "gone"), connected, at);
                    None
                }
                Effect::Answer { outcome, .. } => Some(outcome.expect_err("nobody is there").code),
                _ => None,
            })
        });
        assert_eq!(answer, Some(code), "connected: {connected}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_attempts_end_and_at_last_at_the_deadline() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    core.submit(1, call(put("k", 1), now + Duration::from_secs(3)), now);
    assert_eq!(sends(&mut core).len(), 1);
    core.tick(now + Duration::from_millis(1499));
    assert!(sends(&mut core).is_empty());
    core.tick(now + Duration::from_millis(1500));
    let effects = core.take_effects();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Close { lane } if &*lane.0 == "a")), "{effects:?}");
    core.tick(now + Duration::from_secs(3));
    let unknown = core.take_effects().into_iter().any(
        |effect| matches!(effect, Effect::Answer { id: 1, outcome: Err(error) } if error.code == Code::OutcomeUnknown),
    );
    assert!(unknown);
    assert_eq!(core.next_wakeup().filter(|at| *at > now + Duration::from_secs(60)), None);
    assert!(core.pending.is_empty() && core.slots.is_empty() && core.timers.is_empty());
}

#[tokio::test]
async fn an_ended_session_is_told_and_replaced() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    core.submit(1, call(put("k", 1), now + Duration::from_secs(3)), now);
    let (lane, wire_id, first) = sends(&mut core).remove(0);
    core.on_reply(&lane, wire_id, Err(Error::new(Code::SessionEnded, "forgotten")), now);
    assert!(
        matches!(&core.take_effects()[..], [Effect::Answer { outcome: Err(error), .. }] if error.code == Code::SessionEnded)
    );
    core.submit(2, call(put("k", 2), now + Duration::from_secs(3)), now);
    let second = sends(&mut core).remove(0).2;
    let session = |request: &Request| request.stamp.as_ref().map(|stamp| stamp.session);
    assert_ne!(session(&first), session(&second));
    assert_eq!(number(&second), 1);
}

#[tokio::test]
async fn first_sent_follows_replies_and_the_own_clock_but_stays_over_retries() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    let first_sent = |request: &Request| request.stamp.as_ref().map(|stamp| stamp.first_sent.ms());
    core.submit(1, call(put("k", 1), now + Duration::from_secs(60)), now + Duration::from_millis(5));
    let (lane, wire_id, first) = sends(&mut core).remove(0);
    assert_eq!(first_sent(&first), Some(1005));
    let mut reply = written();
    reply.served.time = HybridTime::from_ms(5000);
    core.on_reply(&lane, wire_id, Ok(reply), now + Duration::from_millis(10));
    core.take_effects();
    core.submit(2, call(put("k", 2), now + Duration::from_secs(60)), now + Duration::from_millis(12));
    let (lane, wire_id, second) = sends(&mut core).remove(0);
    assert_eq!(first_sent(&second), Some(5002));
    core.on_reply(&lane, wire_id, Err(Error::new(Code::OutcomeUnknown, "?")), now + Duration::from_millis(500));
    core.tick(now + Duration::from_secs(1));
    let again = sends(&mut core).remove(0).2;
    assert_eq!((first_sent(&again), number(&again)), (Some(5002), number(&second)));
}

#[tokio::test]
async fn a_write_of_several_slots_waits_for_what_is_before_it_and_holds_what_is_after() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    let deadline = now + Duration::from_secs(10);
    let entry = |key: &'static str| (Bytes::from_static(key.as_bytes()), Value::i64(0));
    core.submit(1, call(put("x", 1), deadline), now);
    let many = Op::PutMany { map: "m".into(), entries: vec![entry("y"), entry("x")] };
    core.submit(2, call(many, deadline), now);
    core.submit(3, call(put("y", 3), deadline), now);
    core.submit(4, call(put("x", 4), deadline), now);
    let mut order = Vec::new();
    let mut sent = sends(&mut core);
    while let Some((lane, wire_id, request)) = sent.first().cloned() {
        sent.remove(0);
        order.push(number(&request));
        core.on_reply(&lane, wire_id, Ok(written()), now);
        sent.extend(sends(&mut core));
    }
    assert_eq!(order, [1, 2, 3, 4]);
}

/// One random history. Returns how many writes ran. `impatient`: some calls have little time, and what was
/// on a stream that broke may arrive all the same, late.
fn history(seed: u64, impatient: bool) -> usize {
    let dice = Arc::new(Dice(AtomicU64::new(seed | 1)));
    let mut now = start();
    let mut core = core(dice.clone(), now);
    let world = World::new();
    let (mut leader, mut term) = ("a", 1);
    let mut on_way: Vec<(LaneKey, u64, u64, Request)> = Vec::new();
    let mut back: Vec<(LaneKey, u64, Result<Reply>)> = Vec::new();
    let mut late: Vec<Request> = Vec::new();
    let (mut answered, mut submitted, mut ok) = (0, 0, 0);
    for step in 0..3000u64 {
        now += Duration::from_millis(dice.below(8));
        let calm = step > 2000;
        if step < 1500 && dice.below(3) == 0 {
            submitted += 1;
            let key = ["p", "q", "r"][dice.below(3) as usize];
            let op = if dice.below(6) == 0 {
                let entry = |key: &'static str| (Bytes::from_static(key.as_bytes()), Value::i64(submitted as i64));
                Op::PutMany { map: "m".into(), entries: vec![entry(["p", "q"][dice.below(2) as usize]), entry("r")] }
            } else {
                put(key, submitted)
            };
            let time = if impatient && dice.below(2) == 0 { 10 + dice.below(90) } else { 600_000 };
            core.submit(submitted, call(op, now + Duration::from_millis(time)), now);
        }
        if !late.is_empty() && dice.below(4) == 0 {
            let request = late.swap_remove(dice.below(late.len() as u64) as usize);
            drop(world.execute(&request));
        }
        if !calm && dice.below(60) == 0 {
            leader = if leader == "a" { "b" } else { "a" };
            term += 1;
        }
        // Deliver something, in order per stream.
        if !on_way.is_empty() {
            let at = dice.below(on_way.len() as u64) as usize;
            let lane = on_way[at].0.clone();
            let at = on_way.iter().position(|(of, ..)| *of == lane).expect("it is there");
            let (lane, _, wire_id, request) = on_way.remove(at);
            let trouble = if calm { 9 } else { dice.below(10) };
            let outcome = if &*lane.0 != leader {
                Err(Error::new(Code::NotLeader, "no").leader(leader))
            } else if trouble == 0 {
                Err(Error::new(Code::NoLeader, "refused"))
            } else {
                let body = world.execute(&request);
                if trouble == 1 {
                    Err(Error::new(Code::OutcomeUnknown, "lost"))
                } else {
                    body.map(|body| Reply { body, served: Served::default() })
                }
            };
            if trouble != 2 {
                back.push((lane, wire_id, outcome));
            }
        }
        if !back.is_empty() {
            let at = dice.below(back.len() as u64) as usize;
            let (lane, wire_id, outcome) = back.remove(at);
            core.on_reply(&lane, wire_id, outcome, now);
        }
        if !calm && dice.below(100) == 0 {
            let lane = (Peer::from(["a", "b"][dice.below(2) as usize]), LaneKind::Kv);
            let epoch = core.epochs.get(&lane).copied().unwrap_or(0);
            let broken: Vec<_> = on_way.extract_if(.., |(of, ..)| *of == lane).collect();
            late.extend(broken.into_iter().map(|(.., request)| request).filter(|_| impatient));
            back.retain(|(of, ..)| *of != lane);
            core.lane_down(&lane, epoch, &Error::new(Code::PeerUnreachable, "broke"), true, now);
        }
        core.tick(now);
        for effect in core.take_effects() {
            match effect {
                Effect::Send { lane, epoch, wire_id, request } => on_way.push((lane, epoch, wire_id, request)),
                Effect::Close { lane } => {
                    let broken: Vec<_> = on_way.extract_if(.., |(of, ..)| *of == lane).collect();
                    late.extend(broken.into_iter().map(|(.., request)| request).filter(|_| impatient));
                    back.retain(|(of, ..)| *of != lane);
                }
                Effect::Refresh { .. } => core.on_placement(Some(table(leader, term)), now),
                Effect::Answer { outcome, .. } => {
                    answered += 1;
                    ok += usize::from(outcome.is_ok());
                }
            }
        }
        if calm && answered == submitted {
            break;
        }
    }
    assert_eq!(answered, submitted, "every call is answered (seed {seed})");
    assert!(impatient || ok as u64 == submitted, "with enough time every write succeeds (seed {seed})");
    assert!(
        core.pending.is_empty() && core.slots.is_empty() && core.timers.is_empty(),
        "nothing is left (seed {seed})"
    );
    late.iter().for_each(|request| drop(world.execute(request)));
    let executed = world.executed();
    let numbers: BTreeSet<(u64, u64)> = executed.iter().map(|(session, number, ..)| (*session, *number)).collect();
    assert_eq!(numbers.len(), executed.len(), "each once (seed {seed})");
    let mut last: BTreeMap<Bytes, u64> = BTreeMap::new();
    for (_, number, _, op) in &executed {
        let keys: Vec<Bytes> = match op {
            Op::PutMany { entries, .. } => entries.iter().map(|(key, _)| key.clone()).collect(),
            op => op.routing_key().cloned().into_iter().collect(),
        };
        for key in keys {
            let before = last.insert(key.clone(), *number);
            assert!(before.is_none_or(|before| before < *number), "order of {key:?} (seed {seed})");
        }
    }
    executed.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_write_runs_once_and_in_order(seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let ran = runtime.block_on(async { history(seed, false) });
        prop_assert!(ran > 100, "only {ran} writes");
    }

    #[test]
    fn what_is_given_up_never_runs_behind_what_was_written_after(seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let ran = runtime.block_on(async { history(seed, true) });
        prop_assert!(ran > 100, "only {ran} writes");
    }
}

#[tokio::test]
async fn the_leader_that_is_named_is_asked_even_before_any_placement_is_known() {
    let now = start();
    let nothing = PlacementTable::default();
    let routes = Routes::new(vec![Peer::from("a"), Peer::from("b")], nothing);
    let time = GridTime::new(HybridTime::from_ms(1000), now);
    let mut core = Core::new(timing(), Arc::new(Dice(AtomicU64::new(1))), routes, time);
    core.submit(1, call(put("k", 1), now + Duration::from_secs(10)), now);
    let (lane, wire_id, _) = sends(&mut core).remove(0);
    core.on_reply(&lane, wire_id, Err(Error::new(Code::NotLeader, "no").leader("c")), now);
    assert_eq!(&*sends(&mut core).remove(0).0.0, "c");
}

#[tokio::test]
async fn a_leader_of_an_earlier_term_that_has_failed_is_not_asked_again_for_a_while() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    let mut next = |id: u64, said: PlacementTable, at: Instant| {
        core.on_placement(Some(said), at);
        core.submit(id, call(put("k", id), at + Duration::from_secs(10)), at);
        let (mut lane, mut wire_id, _) = sends(&mut core).remove(0);
        let first = lane.0.to_string();
        if first == "a" {
            core.on_reply(&lane, wire_id, Err(Error::new(Code::OutcomeUnknown, "2 of 3")), at);
            core.tick(at + Duration::from_secs(1));
            (lane, wire_id, _) = sends(&mut core).remove(0);
        }
        let served = Served { term: 5, hops: 1, ..Served::default() };
        core.on_reply(&lane, wire_id, Ok(Reply { served, ..written() }), at + Duration::from_secs(1));
        first
    };
    assert_eq!(next(1, table("a", 1), now), "a");
    // Another peer answered for a leader of a later term. Who has not heard of that one is not believed.
    let soon = now + Duration::from_secs(2);
    assert_eq!(next(2, table("a", 1), soon), "b");
    assert_eq!(next(3, table("c", 5), soon), "c");
    assert_eq!(next(4, table("a", 1), soon), "c");
}

#[tokio::test]
async fn an_answer_of_another_partition_does_not_lead_astray() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    let mut next = |id: u64, fails: bool, at: Instant| {
        core.on_placement(Some(table("a", 3)), at);
        core.submit(id, call(put("k", id), at + Duration::from_secs(10)), at);
        let (mut lane, mut wire_id, _) = sends(&mut core).remove(0);
        let first = lane.0.to_string();
        if fails {
            core.on_reply(&lane, wire_id, Err(Error::new(Code::OutcomeUnknown, "2 of 3")), at);
            core.tick(at + Duration::from_secs(1));
            (lane, wire_id, _) = sends(&mut core).remove(0);
        }
        let served = Served { term: 7, hops: 1, ..Served::default() };
        core.on_reply(&lane, wire_id, Ok(Reply { served, ..written() }), at);
        first
    };
    assert_eq!(next(1, false, now), "a");
    assert_eq!(next(2, true, now), "a", "the known leader has not failed");
    assert_eq!(next(3, false, now), "b");
    assert_eq!(next(4, false, now + Duration::from_secs(3)), "a", "not for ever");
}

#[tokio::test]
async fn a_late_reply_of_an_earlier_attempt_changes_nothing() {
    let now = start();
    let mut core = core(Arc::new(Dice(AtomicU64::new(1))), now);
    core.submit(1, call(put("k", 1), now + Duration::from_secs(10)), now);
    let (lane, first, _) = sends(&mut core).remove(0);
    core.on_reply(&lane, first, Err(Error::new(Code::NotLeader, "no").leader("b")), now);
    let (lane, second, _) = sends(&mut core).remove(0);
    core.on_reply(&lane, first, Err(Error::new(Code::WrongCodec, "late")), now);
    assert!(core.take_effects().is_empty());
    core.on_reply(&lane, second, Ok(written()), now);
    assert!(matches!(&core.take_effects()[..], [Effect::Answer { outcome: Ok(_), .. }]));
}
