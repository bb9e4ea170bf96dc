//! A client that has several writes to few keys on their way at once, some with short deadlines and some
//! with long ones. What it gives up it writes again at once, while older writes are waited for; then it is
//! quiet for a while, so that what is late can come. Each write is numbered in the order of the calls:
//! whatever takes effect does so in that order. Tasks leave their numbers in lists; of numbers that are
//! put, reads find what is newer than anything known, or that.

use super::clients::{
    check_error, connect, count_answer, create_maps, decode_list, is_unknown, number, until_answered,
};
use super::peer::{KEEP, LISTS};
use super::{QUIET_FROM, Records};
use crate::checks::{Rising, Violation};
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::{CallOptions, Client};
use keystead::clock::{Instant, sleep};
use keystead::error::Code;
use keystead::types::{Condition, Reply};
use keystead::types::{KeyCodec, Op, TaskPayload, Value, ValueCodec};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// The map that numbers are put to.
const MAP: &str = "ordered";
/// Keys of a client, in both maps.
const KEYS: u64 = 3;
/// Longer than the longest fault and an election.
const LONG: Duration = Duration::from_millis(4500);
/// How long what was given up may be on its way after everything is mended.
const LATE: Duration = Duration::from_secs(3);

/// A write to come.
#[derive(Clone, Debug)]
struct Planned {
    key: String,
    /// A task, or else a put.
    task: bool,
    deadline: Duration,
}

/// One client and what it knows.
struct Writer {
    client: Client,
    name: String,
    /// Upper half of its marks.
    id: u64,
    last: Cell<u64>,
    known: RefCell<BTreeMap<String, Rising>>,
    records: Records,
}

impl Writer {
    fn key(&self, at: u64) -> String {
        format!("{}-{at}", self.name)
    }

    /// One call. False when its outcome is not known.
    async fn write(&self, planned: &Planned) -> bool {
        self.last.set(self.last.get() + 1);
        let mark = self.id << 32 | self.last.get();
        crate::event!(&self.name, "{mark} to {planned:?}");
        let key = planned.key.clone().into();
        let op = if planned.task {
            let data = rmp_serde::to_vec_named(&(mark, KEEP)).unwrap_or_default().into();
            let payload = TaskPayload { codec: ValueCodec::Msgpack, data };
            Op::Task { name: "append".to_owned(), key, payload, id: 0 }
        } else {
            let (map, value) = (MAP.to_owned(), Value::i64(mark as i64));
            Op::Put { map, key, value, condition: Condition::Always, previous: false, ttl_ms: None }
        };
        let options = CallOptions { deadline: Some(planned.deadline), ..CallOptions::default() };
        let answer = self.client.execute(op, options).await;
        crate::event!(&self.name, "{mark} -> {:?}", answer.as_ref().map(|_: &Reply| ()).map_err(|error| error.code));
        count_answer(&answer);
        if let Err(error) = &answer
            && error.code == Code::SessionEnded
            && !self.records.far_jump
        {
            // No session is idle for so long here that the grid forgets it.
            let what = format!("a write that was waited for was refused as given up: {error}");
            self.records.violations.borrow_mut().push(Violation { check: "session order", what });
        }
        let mut marks = self.records.marks.borrow_mut();
        match answer {
            Ok(_) if planned.task => marks.acknowledged(&planned.key, mark),
            Ok(_) => self.known.borrow_mut().entry(planned.key.clone()).or_default().acknowledged(mark),
            Err(error) if is_unknown(&error) => {
                if planned.task {
                    marks.unknown(&planned.key, mark);
                }
                return false;
            }
            Err(error) => check_error(&error, &self.records),
        }
        true
    }

    /// Writes, and what comes of it unknown, again with time enough. Whether all was answered at first.
    async fn insist(&self, planned: Planned) -> bool {
        if self.write(&planned).await {
            return true;
        }
        self.write(&Planned { deadline: LONG, ..planned }).await;
        false
    }

    /// What a number's key holds is not older than what was known when this began.
    async fn look(&self, key: &str) {
        let before = self.known.borrow().get(key).copied().unwrap_or_default();
        let found = until_answered(|| async { number(self.client.get(MAP, key).await?) }).await;
        let found = found.map_or(0, |found| found as u64);
        let mut known = self.known.borrow_mut();
        let place = format!("key {key}");
        self.records
            .violations
            .borrow_mut()
            .extend(known.entry(key.to_owned()).or_default().read(&place, before, found));
    }
}

/// The writes of one go, in their order.
fn draw(dice: &mut Dice, writer: &Writer) -> Vec<Planned> {
    let count = dice.between(2, 6);
    let write = |_| Planned {
        key: writer.key(dice.below(KEYS)),
        task: dice.per_mille(500),
        deadline: if dice.per_mille(400) { LONG } else { Duration::from_millis(dice.between(60, 500)) },
    };
    (0..count).map(write).collect()
}

/// Writes until everything is mended; then waits for what is late, and reads all.
pub(super) async fn pipeline(life: Life, seed: u64, id: u64, endpoints: Vec<String>, records: Records) {
    let start = Instant::now();
    let mut dice = Dice::new(seed, &format!("pipelined {}", life.name));
    let client = connect(&life, &endpoints).await;
    create_maps(&client).await;
    while client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let name = life.name.clone();
    let writer = Writer { client, name, id, last: Cell::default(), known: RefCell::default(), records };
    while start.elapsed() < QUIET_FROM {
        let writes = draw(&mut dice, &writer);
        let key = writes[0].key.clone();
        let ended = futures::future::join_all(writes.into_iter().map(|planned| writer.insist(planned))).await;
        if ended.into_iter().all(|at_first| at_first) {
            sleep(Duration::from_millis(dice.between(0, 60))).await;
        } else {
            sleep(Duration::from_millis(dice.between(500, 2500))).await;
            writer.look(&key).await;
        }
    }
    sleep(LATE).await;
    for at in 0..KEYS {
        let key = writer.key(at);
        writer.look(&key).await;
        let stored = until_answered(|| writer.client.get(LISTS, &key)).await;
        let list = stored.map(|stored| decode_list(&stored.value.data)).unwrap_or_default();
        writer.records.marks.borrow_mut().found(&key, list);
    }
}
