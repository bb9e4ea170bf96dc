//! What scenarios ask of an executor, and what they wait for.
//!
//! In: keys, numbers, stamps. Out: requests, and answers that have or have not come.

use super::Said;
use crate::ports::SimClock;
use bytes::Bytes;
use keystead::clock::{WallClock, timeout};
use keystead::error::{Code, Error, Result};
use keystead::types::{
    AckLevel, Condition, HybridTime, Op, ReadLevel, Reply, ReplyBody, Request, SessionId, SessionStamp, StoredValue,
    Value,
};
use std::time::Duration;
use tokio::sync::oneshot;

/// The map that all scenarios use.
pub(super) const MAP: &str = "m";
/// The session of the scenarios' writes.
pub(super) const SESSION: SessionId = SessionId(9);
/// How long anything may take that must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

fn request(op: Op, stamp: Option<SessionStamp>) -> Request {
    Request { affinity: None, op, read: ReadLevel::Linearizable, ack: AckLevel::default(), stamp, deadline_ms: 30_000 }
}

/// The stamp of a session's write, all of whose answers it waits for.
pub(super) fn stamp(number: u64) -> SessionStamp {
    let first_sent = HybridTime::from_ms(SimClock::default().unix_ms());
    SessionStamp { session: SESSION, number, lowest_unanswered: 1, previous: None, first_sent, given_up: Vec::new() }
}

fn key(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

/// Reads a key.
pub(super) fn get(of: &str) -> Request {
    request(Op::Get { map: MAP.into(), key: key(of) }, None)
}

/// Writes a key.
pub(super) fn put(to: &str, value: i64, stamp: SessionStamp) -> Request {
    let (map, key, value) = (MAP.into(), key(to), Value::i64(value));
    let op = Op::Put { map, key, value, condition: Condition::Always, previous: false, ttl_ms: None };
    request(op, Some(stamp))
}

/// Writes a key if it has no entry, without a session: refused, it is a read.
pub(super) fn put_if_absent(to: &str, value: i64) -> Request {
    let (map, key, value) = (MAP.into(), key(to), Value::i64(value));
    request(Op::Put { map, key, value, condition: Condition::Absent, previous: false, ttl_ms: None }, None)
}

/// Deletes a key.
pub(super) fn delete(of: &str, stamp: SessionStamp) -> Request {
    let (map, key) = (MAP.into(), key(of));
    request(Op::Delete { map, key, condition: Condition::Always, previous: false }, Some(stamp))
}

/// Adds 1 to a key.
pub(super) fn increment(of: &str, stamp: SessionStamp) -> Request {
    request(Op::Increment { map: MAP.into(), key: key(of), delta: 1 }, Some(stamp))
}

/// The number in an entry.
pub(super) fn number(entry: &StoredValue) -> Option<i64> {
    entry.value.data.as_ref().try_into().ok().map(i64::from_le_bytes)
}

/// Something that was asked, and is answered or not.
pub(super) struct Asked {
    what: String,
    answer: oneshot::Receiver<Result<Reply>>,
    came: Option<Result<Reply>>,
}

impl Asked {
    /// Waits for what comes here.
    pub(super) fn new(what: String, answer: oneshot::Receiver<Result<Reply>>) -> Self {
        Asked { what, answer, came: None }
    }

    /// What has come so far.
    pub(super) fn so_far(&mut self) -> Option<&Result<Reply>> {
        if self.came.is_none()
            && let Ok(answer) = self.answer.try_recv()
        {
            crate::event!("ask", "{} -> {}", self.what, told(&answer));
            self.came = Some(answer);
        }
        self.came.as_ref()
    }

    /// Nothing may have come.
    pub(super) fn must_wait(&mut self, why: &str) -> Said {
        let what = self.what.clone();
        match self.so_far() {
            None => Ok(()),
            Some(answer) => Err(format!("{what} was answered with {}, though {why}", told(answer))),
        }
    }

    /// What comes, sooner or later.
    pub(super) async fn answer(mut self) -> std::result::Result<Result<Reply>, String> {
        if self.so_far().is_none() {
            let came = timeout(PATIENCE, &mut self.answer).await;
            let came = came.map_err(|_| format!("{} was never answered", self.what))?;
            let came = came.map_err(|_| format!("{} was dropped without an answer", self.what))?;
            crate::event!("ask", "{} -> {}", self.what, told(&came));
            self.came = Some(came);
        }
        self.came.ok_or_else(|| "unreachable: an answer has just come".to_owned())
    }

    /// The number that comes, of an entry read or of an increment; `None` for no entry.
    pub(super) async fn number(self) -> std::result::Result<Option<i64>, String> {
        let what = self.what.clone();
        match self.answer().await?.map(|reply| reply.body) {
            Ok(ReplyBody::Entry(entry)) => Ok(entry.as_ref().and_then(number)),
            Ok(ReplyBody::Number { value, .. }) => Ok(Some(value)),
            other => Err(format!("{what} was answered with {other:?}")),
        }
    }

    /// The write succeeds.
    pub(super) async fn done(self) -> Said {
        let what = self.what.clone();
        self.answer().await?.map(drop).map_err(|error| format!("{what} failed: {error}"))
    }

    /// The error that comes; an answer that says "done" is wrong.
    pub(super) async fn refused(self, why: &str) -> std::result::Result<Error, String> {
        let what = self.what.clone();
        match self.answer().await? {
            Ok(reply) => Err(format!("{what} was answered with {:?}, though {why}", reply.body)),
            Err(error) => Ok(error),
        }
    }
}

fn told(answer: &Result<Reply>) -> String {
    match answer {
        Ok(reply) => format!("{:?}", reply.body),
        Err(error) => format!("{:?}", error.code),
    }
}

/// Whether the error leaves open whether the write took effect.
pub(super) fn is_unknown(error: &Error) -> bool {
    error.code == Code::OutcomeUnknown
}
