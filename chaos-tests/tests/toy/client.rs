//! The toy's clients.

use crate::server::{ADD, FRAME, Frame, PORT, PUT, READ, decode, encode};
use crate::{Bug, QUIET_FROM};
use chaos_tests::checks::Finals;
use chaos_tests::dice::Dice;
use chaos_tests::history::{Action, Answer, History};
use chaos_tests::machine::Life;
use keystead::clock::{Instant, sleep, timeout};
use keystead::net::{BoxIo, Network};
use keystead::types::AckLevel;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Keys below are put to, those from here on are counters.
const COUNTERS: u8 = 2;
const KEYS: u8 = 4;

const LEVEL: AckLevel = AckLevel::MajorityFsync;

struct Connection<'a> {
    life: &'a Life,
    server: &'static str,
    stream: Option<BoxIo>,
}

impl Connection<'_> {
    async fn ask(&mut self, frame: Frame) -> io::Result<i64> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.life.network.connect(&format!("{}:{PORT}", self.server)).await?,
        };
        let stream = self.stream.insert(stream);
        stream.write_all(&encode(frame)).await?;
        let mut bytes = [0; FRAME];
        stream.read_exact(&mut bytes).await?;
        Ok(decode(&bytes).2)
    }

    /// Asks, with the same id, until answered or tired. A connection that failed is not used again.
    async fn try_ask(&mut self, frame: Frame, attempts: u32) -> Option<i64> {
        for _ in 0..attempts {
            match timeout(Duration::from_millis(500), self.ask(frame)).await {
                Ok(Ok(number)) => return Some(number),
                Ok(Err(_)) | Err(_) => self.stream = None,
            }
            sleep(Duration::from_millis(50)).await;
        }
        None
    }
}

fn shown(key: u8, value: i64) -> Option<i64> {
    (key >= COUNTERS || value != 0).then_some(value)
}

/// Works until everything is mended.
pub(crate) async fn work(life: &Life, seed: u64, number: u32, bug: Bug, history: &History) {
    let mut dice = Dice::new(seed, &format!("client {number}"));
    let reader = if bug == Bug::ReadsFromBackup { "backup" } else { "primary" };
    let mut reads = Connection { life, server: reader, stream: None };
    let mut writes = Connection { life, server: "primary", stream: None };
    let start = Instant::now();
    let mut next = 0;
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(dice.between(1, 40))).await;
        next += 1;
        let id = u64::from(number) << 32 | next;
        let key = dice.below(KEYS.into()) as u8;
        let (kind, argument, action) = match dice.below(2) {
            0 => (READ, 0, Action::Get),
            _ if key < COUNTERS => (PUT, id as i64, Action::Put(id as i64)),
            _ => (ADD, 1, Action::Increment(1)),
        };
        let operation = history.invoke(number, &key.to_string(), action, LEVEL);
        let connection = if kind == READ { &mut reads } else { &mut writes };
        match connection.try_ask((kind, key, argument, id), 3).await {
            Some(value) => history.answered(operation, answer(action, key, value), Some(LEVEL)),
            None => history.unknown(operation),
        }
    }
}

fn answer(action: Action, key: u8, value: i64) -> Answer {
    match action {
        Action::Get if key >= COUNTERS && value == 0 => Answer::Value(None),
        Action::Get => Answer::Value(shown(key, value)),
        Action::Increment(_) => Answer::Number(value),
        _ => Answer::Written,
    }
}

/// Reads every key at the primary once the others have given up.
pub(crate) async fn read_all(life: &Life, history: &History) -> Finals {
    sleep(Duration::from_secs(3)).await;
    let mut connection = Connection { life, server: "primary", stream: None };
    let mut finals = Finals::new();
    for key in 0..KEYS {
        let operation = history.invoke(9, &key.to_string(), Action::Get, LEVEL);
        let value = connection.try_ask((READ, key, 0, u64::MAX), 20).await.expect("all is mended");
        let answer = answer(Action::Get, key, value);
        history.answered(operation, answer, None);
        if let Answer::Value(value) = answer {
            finals.insert(key.to_string(), value);
        }
    }
    finals
}
