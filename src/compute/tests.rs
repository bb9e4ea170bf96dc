//! The runner, the context and the registry, together.

use super::fake_view::{FakeView, answer, call};
use super::*;
use crate::clock::{SystemThreads, ThreadKind, Threads, sleep, timeout};
use crate::error::{Code, Error};
use crate::partition::{TaskCall, TaskOutcome, TaskRunner};
use crate::types::{TaskPayload, Value, ValueCodec};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const MAP: &str = "m";

/// Holds handlers until the test opens it.
#[derive(Clone, Default)]
struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    fn wait(&self) {
        let mut open = self.0.0.lock().expect("not poisoned");
        while !*open {
            open = self.0.1.wait(open).expect("not poisoned");
        }
    }

    fn open(&self) {
        *self.0.0.lock().expect("not poisoned") = true;
        self.0.1.notify_all();
    }
}

struct Inline;

impl Threads for Inline {
    fn run(&self, _kind: ThreadKind, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn inline(&self) -> bool {
        true
    }
}

/// A machine that has no thread to give.
struct NoThreads;

impl Threads for NoThreads {
    fn run(&self, _kind: ThreadKind, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }

    fn inline(&self) -> bool {
        false
    }
}

fn registry(latch: &Latch) -> Registry {
    let mut registry = Registry::with_builtins().expect("built-ins");
    let add = |context: &mut TaskContext<'_>, delta: i64| {
        let key = context.key().to_vec();
        let number = context.get::<i64>(MAP, &key)?.unwrap_or(0) + delta;
        context.put_value(MAP, &key, Value::i64(number))?;
        Ok(number)
    };
    registry.register("add", add).expect("registered");
    let panic = |context: &mut TaskContext<'_>, text: String| -> Result<(), TaskError> {
        context.put(MAP, b"k", &1)?;
        panic!("it says {text}");
    };
    registry.register("panic", panic).expect("registered");
    let fail = |context: &mut TaskContext<'_>, (): ()| -> Result<(), TaskError> {
        context.put(MAP, b"k", &1)?;
        Err(TaskError::new("no-stock", "nothing left"))
    };
    registry.register("fail", fail).expect("registered");
    let latch = latch.clone();
    let block = move |context: &mut TaskContext<'_>, (): ()| {
        context.put_value(MAP, b"k", Value::i64(1_000_000))?;
        latch.wait();
        Ok(())
    };
    registry.register("block", block).expect("registered");
    let outside = |context: &mut TaskContext<'_>, key: String| Ok(context.put(MAP, key.as_bytes(), "x")?);
    registry.register("put", outside).expect("registered");
    registry.register("inside", |_: &mut TaskContext<'_>, (): ()| Ok(inside_task())).expect("registered");
    registry
}

fn runner(threads: impl Threads, config: RunnerConfig) -> (ThreadPoolRunner, Latch) {
    let latch = Latch::default();
    (ThreadPoolRunner::new(Arc::new(registry(&latch)), Arc::new(threads), config), latch)
}

fn view() -> Arc<FakeView> {
    Arc::new(FakeView::with_maps(&[MAP]))
}

fn blocking() -> TaskCall {
    TaskCall { deadline: Duration::from_millis(30), ..call("block", "k", &()) }
}

fn code(outcome: &TaskOutcome) -> Code {
    assert_eq!(outcome.writes, [], "an error with writes");
    outcome.answer.as_ref().expect_err("an error").code
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), wait).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn calls_of_a_turn_see_each_others_writes_pooled_and_inline() {
    for (runner, _latch) in [runner(SystemThreads, RunnerConfig::default()), runner(Inline, RunnerConfig::default())] {
        let calls = vec![call("add", "k", &2), call("fail", "k", &()), call("add", "k", &3), call("add", "other", &1)];
        let outcomes = runner.run(view(), calls).await;
        assert_eq!(answer::<i64>(&outcomes[0]), 2);
        assert_eq!(code(&outcomes[1]), Code::TaskFailed);
        assert_eq!(answer::<i64>(&outcomes[2]), 5);
        assert_eq!(outcomes[2].writes.len(), 1);
        assert_eq!(outcomes[2].writes[0].value, Some(Value::i64(5)));
        assert_eq!(answer::<i64>(&outcomes[3]), 1);
        assert_eq!(runner.stats(), RunnerStats { calls: 4, state_reads: 3, ..RunnerStats::default() });
        assert_eq!(
            runner.names(),
            ["add", "block", "count-entries", "fail", "inside", "panic", "put", "rolling-total", "top-k", "word-count"]
        );
        assert!(runner.run(view(), vec![]).await.is_empty());
    }
}

#[tokio::test]
async fn errors_and_panics_are_coded_and_undone() {
    let (runner, _latch) = runner(SystemThreads, RunnerConfig { threads: 1, ..RunnerConfig::default() });
    let calls =
        vec![call("panic", "k", &"ouch"), call("fail", "k", &()), call("nobody", "k", &()), call("add", "k", &1)];
    let outcomes = runner.run(view(), calls).await;
    assert_eq!(code(&outcomes[0]), Code::TaskPanicked);
    let panicked = outcomes[0].answer.as_ref().expect_err("an error");
    assert!(panicked.what.contains("it says ouch"), "{panicked}");
    assert!(panicked.place.contains("task panic"), "{panicked}");
    assert_eq!(code(&outcomes[1]), Code::TaskFailed);
    assert_eq!(outcomes[1].answer.as_ref().expect_err("an error").what, "no-stock: nothing left");
    assert_eq!(code(&outcomes[2]), Code::NoSuchTask);
    assert_eq!(answer::<i64>(&outcomes[3]), 1, "the thread did not outlive the panic, or a write stayed");
    assert_eq!(runner.stats().panics, 1);
}

#[tokio::test]
async fn an_overrun_costs_its_call_only_and_the_thread_is_replaced() {
    let (runner, latch) = runner(SystemThreads, RunnerConfig { threads: 1, ..RunnerConfig::default() });
    let view = view();
    let calls = vec![call("add", "k", &1), blocking(), call("add", "k", &1)];
    let outcomes = runner.run(view.clone(), calls).await;
    assert_eq!(answer::<i64>(&outcomes[0]), 1);
    assert_eq!(code(&outcomes[1]), Code::TaskOverrun);
    assert_eq!(answer::<i64>(&outcomes[2]), 2, "the calls after the overrun see those before it, and not the overrun");
    assert_eq!((outcomes.len(), runner.stuck_threads(), runner.stats().overruns), (3, 1, 1));
    latch.open();
    until("the late thread comes back", || runner.stuck_threads() == 0).await;
    assert_eq!(answer::<i64>(&runner.run(view, vec![call("add", "k", &1)]).await[0]), 1);
}

#[tokio::test]
async fn at_the_limit_of_stuck_threads_calls_are_refused() {
    let (runner, latch) = runner(SystemThreads, RunnerConfig { max_stuck: 2, ..RunnerConfig::default() });
    let outcomes = runner.run(view(), vec![blocking(), blocking(), call("add", "k", &1)]).await;
    let codes: Vec<_> = outcomes.iter().map(code).collect();
    assert_eq!(codes, [Code::TaskOverrun, Code::TaskOverrun, Code::Overloaded]);
    assert_eq!(runner.stuck_threads(), 2);
    latch.open();
    until("the late threads come back", || runner.stuck_threads() == 0).await;
    assert_eq!(answer::<i64>(&runner.run(view(), vec![call("add", "k", &1)]).await[0]), 1);
}

#[tokio::test]
async fn a_thread_that_nobody_waits_for_is_still_counted() {
    let (runner, latch) = runner(SystemThreads, RunnerConfig { threads: 1, ..RunnerConfig::default() });
    let run = runner.run(view(), vec![TaskCall { deadline: Duration::from_millis(100), ..blocking() }]);
    assert!(timeout(Duration::from_millis(10), run).await.is_err());
    assert_eq!(answer::<i64>(&runner.run(view(), vec![call("add", "k", &1)]).await[0]), 1);
    assert_eq!(runner.stuck_threads(), 1);
    latch.open();
    until("the late thread comes back", || runner.stuck_threads() == 0).await;
}

#[tokio::test]
async fn a_full_queue_and_missing_threads_are_refused() {
    let (starved, _latch) = runner(NoThreads, RunnerConfig::default());
    let outcomes = starved.run(view(), vec![call("add", "k", &1), call("add", "k", &1)]).await;
    assert_eq!(outcomes.iter().map(code).collect::<Vec<_>>(), [Code::Overloaded, Code::Overloaded]);
    let (full, _latch) = runner(SystemThreads, RunnerConfig { max_queued_turns: 0, ..RunnerConfig::default() });
    assert_eq!(code(&full.run(view(), vec![call("add", "k", &1)]).await[0]), Code::Overloaded);
}

#[tokio::test]
async fn many_turns_at_once_all_end() {
    let (runner, _latch) = runner(SystemThreads, RunnerConfig::default());
    let runs = (0..200).map(|n| runner.run(view(), vec![call("add", "k", &n), call("add", "k", &1)]));
    for (n, outcomes) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(answer::<i64>(&outcomes[1]), n as i64 + 1);
    }
}

#[tokio::test]
async fn code_can_tell_that_it_runs_inside_a_task() {
    for (runner, _latch) in [runner(SystemThreads, RunnerConfig::default()), runner(Inline, RunnerConfig::default())] {
        let outcomes = runner.run(view(), vec![call("panic", "k", &""), call("inside", "k", &())]).await;
        assert!(answer::<bool>(&outcomes[1]));
        assert!(!inside_task());
        assert!(refuse_inside_task("get").is_ok());
    }
}

#[tokio::test]
async fn keys_outside_the_slot_are_refused_unless_the_caller_named_an_affinity() {
    let (runner, _latch) = runner(Inline, RunnerConfig { max_write_bytes: 8, ..RunnerConfig::default() });
    let named = TaskCall { affinity: Some(Bytes::from_static(b"k")), ..call("put", "k", &"other") };
    let calls = vec![call("put", "k", &"other"), call("put", "k", &"{k}x"), named, call("put", "k", &"{k}2345678")];
    let outcomes = runner.run(view(), calls).await;
    assert_eq!(code(&outcomes[0]), Code::TaskOutsideSlot);
    assert_eq!(outcomes[1].writes.len(), 1);
    assert_eq!(outcomes[2].writes.len(), 1);
    assert_eq!(code(&outcomes[3]), Code::TooLarge);
    let nowhere = Arc::new(FakeView::with_maps(&[]));
    assert_eq!(code(&runner.run(nowhere, vec![call("put", "k", &"k")]).await[0]), Code::NoSuchMap);
}

#[tokio::test]
async fn payloads_are_decoded_by_their_codec_and_answered_in_it() {
    let (runner, _latch) = runner(Inline, RunnerConfig::default());
    let with = |codec, data: &'static [u8]| TaskCall {
        payload: TaskPayload { codec, data: Bytes::from_static(data) },
        ..call("add", "k", &0)
    };
    let calls = vec![
        with(ValueCodec::Json, b"7"),
        with(ValueCodec::Json, b"\"seven\""),
        with(ValueCodec::Utf8, b"7"),
        with(ValueCodec::Msgpack, b"\xc1"),
    ];
    let outcomes = runner.run(view(), calls).await;
    assert_eq!(outcomes[0].answer, Ok(TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"7") }));
    for outcome in &outcomes[1..] {
        assert_eq!(code(outcome), Code::TaskCodec);
    }
    let error = outcomes[1].answer.as_ref().expect_err("an error");
    assert!(error.what.contains("it is text \"seven\", and must be a whole number of 64 bits"), "{error}");
}

#[test]
fn names_are_checked_and_unique() {
    let mut registry = Registry::new();
    let mut register = |name: &str| registry.register(name, |_: &mut TaskContext<'_>, (): ()| Ok(()));
    for bad in ["", "with space", "ä", &"x".repeat(129)] {
        assert_eq!(register(bad).map_err(|error| error.code), Err(Code::InvalidName));
    }
    assert_eq!(register("orders.v2:total_x-1"), Ok(()));
    assert_eq!(register("orders.v2:total_x-1").map_err(|error| error.code), Err(Code::InvalidName));
}

#[test]
fn a_grid_error_keeps_its_code() {
    let error = TaskError::from(Error::new(Code::TooLate, "old")).into_error("t");
    assert_eq!((error.code, error.place.as_str()), (Code::TooLate, "task t"));
}

proptest! {
    /// Gets and scans equal a map to which all was written, whether it stands in the partition,
    /// in an earlier call or in this one.
    #[test]
    fn reads_equal_a_model(
        stored in proptest::collection::vec((0u8..30, any::<i64>()), 0..30),
        earlier in proptest::collection::vec((0u8..30, proptest::option::of(any::<i64>())), 0..20),
        own in proptest::collection::vec((0u8..30, proptest::option::of(any::<i64>())), 0..20),
        limit in 0usize..12,
        prefix in "(\\{t\\}[0-2]?)?",
    ) {
        let (view, mut model) = (FakeView::with_maps(&[MAP]), BTreeMap::new());
        let name = |key: u8| format!("{{t}}{key:02}");
        for (key, number) in stored {
            view.put(MAP, &name(key), Value::i64(number));
            model.insert(name(key), number);
        }
        let call = call("any", "{t}", &());
        let mut overlay = overlay::Overlay::default();
        for (key, number) in &earlier {
            overlay.insert(call.slot, MAP, name(*key).into(), number.map(Value::i64));
        }
        let mut context = context::TaskContext::new(&view, &overlay, &call, usize::MAX);
        for (key, number) in &own {
            match number {
                Some(number) => context.put_value(MAP, name(*key).as_bytes(), Value::i64(*number)),
                None => context.delete(MAP, name(*key).as_bytes()),
            }.expect("written");
        }
        for (key, number) in earlier.into_iter().chain(own) {
            match number {
                Some(number) => drop(model.insert(name(key), number)),
                None => drop(model.remove(&name(key))),
            }
        }
        for key in 0..30 {
            prop_assert_eq!(context.get::<i64>(MAP, name(key).as_bytes()), Ok(model.get(&name(key)).copied()));
        }
        let found = context.scan(MAP, prefix.as_bytes(), limit).expect("scanned");
        let expected: Vec<_> = model.iter().filter(|(key, _)| key.starts_with(&prefix)).take(limit)
            .map(|(key, number)| (Bytes::from(key.clone()), Value::i64(*number))).collect();
        prop_assert_eq!(found, expected);
        let mut seen = std::collections::BTreeSet::new();
        prop_assert!(context.into_writes().iter().all(|write| seen.insert(write.key.clone())), "a key written twice");
    }
}
