//! Sessions: what makes a retried write run once (Raft dissertation, 6.3; RIFL). Pure: facts in,
//! decisions and row writes out.
//!
//! A write's stamp names the session, its number, the lowest number still unanswered, the
//! session's previous unanswered write to the same slot, and when it was first sent. A partition
//! keeps the answers at and above the lowest unanswered number. Of a session that it does not
//! know it executes only what was first sent after the *floor*: the latest time at which a
//! forgotten session may have been active. Whatever ran under a forgotten session was first sent
//! at or before that session's last activity (the partition's time is merged from the stamps), so
//! such a write is refused for good, and a new session needs no round trip to be opened.

use super::entry::RowWrite;
use super::rows::{self, PartitionRow};
use crate::types::{HybridTime, SessionId, SessionStamp, Slot};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap};

/// Bounds of a partition's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// A session ends when it has been idle for so long.
    pub idle_ms: u64,
    /// Open sessions in a partition; beyond it the longest idle one ends.
    pub max_sessions: usize,
    /// Kept answers of one session.
    pub max_answers: usize,
    /// Bytes of kept answers of one session.
    pub max_answer_bytes: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits { idle_ms: 600_000, max_sessions: 10_000, max_answers: 8_192, max_answer_bytes: 32 << 20 }
    }
}

/// A session's row is renewed when its recorded activity ends within this time; it records the
/// activity as lasting twice as long. So a busy session writes its row twice a minute, not at
/// every write, and the record is never too early.
const ACTIVITY_MS: u64 = 30_000;

/// Answers are deleted in lots: a session's row is written once for so many of them.
const PRUNE_LOT: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    lowest: u64,
    /// The floor when the session was opened here: what it sent before may have run under an
    /// earlier life of the session that was forgotten.
    opened_at_floor: HybridTime,
    active_until: HybridTime,
    answers: BTreeMap<u64, (Slot, usize)>,
    bytes: usize,
}

/// What to do with a stamped write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Execute it.
    Execute,
    /// It has been executed; its answer is in this row.
    Kept(Bytes),
    /// It may have been executed, and its answer is gone: the outcome stays unknown.
    Ended,
    /// The session's previous write to the slot has not been executed: resend from that number.
    ResendFrom(u64),
    /// The session holds too many unanswered writes.
    Full,
}

/// The sessions of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    limits: SessionLimits,
    floor: HybridTime,
    open: HashMap<SessionId, Session>,
    /// Sessions in the order in which they end: (recorded end of activity, session).
    by_activity: BTreeMap<(HybridTime, SessionId), ()>,
}

impl Sessions {
    /// No sessions.
    pub fn new(limits: SessionLimits) -> Self {
        Sessions { limits, floor: HybridTime::default(), open: HashMap::new(), by_activity: BTreeMap::new() }
    }

    /// The sessions that a partition's rows tell of: the floor, the session rows and the answers.
    pub fn rebuild(
        limits: SessionLimits,
        floor: HybridTime,
        sessions: impl IntoIterator<Item = (SessionId, Bytes)>,
        answers: impl IntoIterator<Item = (SessionId, u64, Slot, usize)>,
    ) -> Self {
        let mut all = Sessions { floor, ..Self::new(limits) };
        for (id, row) in sessions {
            if let Some(session) = decode_session(&row) {
                all.by_activity.insert((session.active_until, id), ());
                all.open.insert(id, session);
            }
        }
        for (id, number, slot, size) in answers {
            if let Some(session) = all.open.get_mut(&id) {
                session.answers.insert(number, (slot, size));
                session.bytes += size;
            }
        }
        all
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Decides about a stamped write to a slot.
    pub fn admit(&self, stamp: &SessionStamp, _slot: Slot) -> Admission {
        let Some(session) = self.open.get(&stamp.session) else {
            return match stamp.previous {
                _ if stamp.first_sent <= self.floor => Admission::Ended,
                Some(previous) => Admission::ResendFrom(previous),
                None => Admission::Execute,
            };
        };
        if let Some((slot, _)) = session.answers.get(&stamp.number) {
            return Admission::Kept(rows::answer_row(*slot, stamp.session, stamp.number));
        }
        if stamp.number < session.lowest || stamp.first_sent <= session.opened_at_floor {
            return Admission::Ended;
        }
        match stamp.previous {
            Some(previous) if previous >= session.lowest && !session.answers.contains_key(&previous) => {
                Admission::ResendFrom(previous)
            }
            _ if session.answers.len() >= self.limits.max_answers || session.bytes >= self.limits.max_answer_bytes => {
                Admission::Full
            }
            _ => Admission::Execute,
        }
    }

    /// Records an executed write's answer; gives the rows to write with it.
    pub fn record(&mut self, stamp: &SessionStamp, slot: Slot, answer: Bytes, now: HybridTime) -> Vec<RowWrite> {
        let mut writes = Vec::new();
        let new = !self.open.contains_key(&stamp.session);
        if new {
            self.make_room(&mut writes);
        }
        let fresh = Session { opened_at_floor: self.floor, ..Session::default() };
        let session = self.open.entry(stamp.session).or_insert(fresh);
        session.answers.insert(stamp.number, (slot, answer.len()));
        session.bytes += answer.len();
        writes.push(RowWrite::put(rows::answer_row(slot, stamp.session, stamp.number), answer));

        let lowest = stamp.lowest_unanswered.min(stamp.number).max(session.lowest);
        let forgettable = session.answers.range(..lowest).count();
        let renew = new || session.active_until.ms() < now.ms() + ACTIVITY_MS;
        if forgettable >= PRUNE_LOT || renew {
            let kept = session.answers.split_off(&lowest);
            for (number, (slot, size)) in std::mem::replace(&mut session.answers, kept) {
                session.bytes -= size;
                writes.push(RowWrite::drop(rows::answer_row(slot, stamp.session, number)));
            }
            session.lowest = lowest;
            self.by_activity.remove(&(session.active_until, stamp.session));
            session.active_until = session.active_until.max(HybridTime::from_ms(now.ms() + 2 * ACTIVITY_MS));
            self.by_activity.insert((session.active_until, stamp.session), ());
            let row = encode_session(session);
            writes.push(RowWrite::put(rows::session_row(stamp.session), row));
        }
        writes
    }

    /// Ends the sessions that have been idle too long, at most `limit`; gives the rows to write.
    /// Called between writes, never between a write's admission and its record.
    pub fn expire(&mut self, now: HybridTime, limit: usize) -> Vec<RowWrite> {
        let mut writes = Vec::new();
        for _ in 0..limit {
            match self.by_activity.first_key_value() {
                Some((&(until, id), ())) if until.ms() + self.limits.idle_ms < now.ms() => self.end(id, &mut writes),
                _ => break,
            }
        }
        writes
    }

    /// Only for a session that is not open yet: ending the very session whose write was admitted
    /// would forget its answers.
    fn make_room(&mut self, writes: &mut Vec<RowWrite>) {
        while self.open.len() >= self.limits.max_sessions {
            let Some((&(_, id), ())) = self.by_activity.first_key_value() else { break };
            self.end(id, writes);
        }
    }

    fn end(&mut self, id: SessionId, writes: &mut Vec<RowWrite>) {
        let Some(session) = self.open.remove(&id) else { return };
        self.by_activity.remove(&(session.active_until, id));
        self.floor = self.floor.max(session.active_until);
        writes.push(RowWrite::drop(rows::session_row(id)));
        for (number, (slot, _)) in session.answers {
            writes.push(RowWrite::drop(rows::answer_row(slot, id, number)));
        }
        let floor = rows::encode_number(self.floor.0);
        writes.push(RowWrite::put(rows::partition_row(PartitionRow::SessionFloor), floor));
    }
}

/// version (1) | lowest kept number (8) | recorded end of activity (8) | floor at opening (8),
/// little-endian.
fn encode_session(session: &Session) -> Bytes {
    let mut out = BytesMut::with_capacity(25);
    out.put_u8(1);
    out.put_u64_le(session.lowest);
    out.put_u64_le(session.active_until.0);
    out.put_u64_le(session.opened_at_floor.0);
    out.freeze()
}

fn decode_session(row: &[u8]) -> Option<Session> {
    let numbers = row.strip_prefix(&[1]).filter(|numbers| numbers.len() == 24)?;
    let number = |at: usize| numbers[at..at + 8].iter().rev().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
    let (active_until, opened_at_floor) = (HybridTime(number(8)), HybridTime(number(16)));
    Some(Session { lowest: number(0), active_until, opened_at_floor, ..Session::default() })
}
