//! Sessions: what makes a retried write run once (Raft dissertation, 6.3; RIFL). Pure: facts in,
//! decisions and row writes out.
//!
//! A write's stamp names the session, its number, the lowest number still unanswered, the
//! session's previous unanswered write to the same slot, and when it was first sent. A partition
//! keeps the answers at and above the lowest unanswered number, and executes nothing below it: a
//! write that its client has given up does not come late. Where an older one is still waited for, later
//! writes to its slots name it ([`super::given_up`]). Of a session that it does not
//! know it executes only what was first sent after the *floor*: the latest time at which a
//! forgotten session may have been active. Whatever ran under a forgotten session was first sent
//! at or before that session's last activity (the partition's time is merged from the stamps), so
//! such a write is refused for good, and a new session needs no round trip to be opened.
//!
//! The small answers of one batch to one session share a row, a *lot* ([`super::lots`]): with a row
//! each, the answers of puts would cost more tree operations than the puts. Large ones have rows of
//! their own.

use super::entry::RowWrite;
use super::given_up::GivenUp;
use super::lots::{self, Lot, OpenLot};
use super::rows::{self, PartitionRow};
use crate::error::{Code, Error, Result};
use crate::planted::{Bug, planted};
use crate::types::{HybridTime, NumberRange, SessionId, SessionStamp, Slot};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    /// Ranges of numbers of one session that it has given up while it waits for older ones.
    pub max_given_up: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            idle_ms: 600_000,
            max_sessions: 10_000,
            max_answers: 8_192,
            max_answer_bytes: 32 << 20,
            max_given_up: 1_024,
        }
    }
}

/// A session's row is renewed when its recorded activity ends within this time; it records the
/// activity as lasting twice as long. So a busy session writes its row twice a minute, not at
/// every write, and the record is never too early.
const ACTIVITY_MS: u64 = 30_000;

/// Answers are forgotten so many at a time: a session's row is written once for them.
const FORGET: usize = 32;

/// Where an answer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a row of its own in the slot of its write, with so many bytes.
    Own(Slot, usize),
    /// In the lot of this first number.
    Lot(u64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    /// No answer below it is kept.
    lowest: u64,
    /// The lowest number that the client waits for, as far as is known: what it has given up is not
    /// executed any more. At least `lowest`; answers are forgotten later, many at a time.
    unanswered_from: u64,
    /// The same, as the rows have it.
    recorded_from: u64,
    /// Numbers from there on that the client has given up, and has written to their slots since.
    given_up: GivenUp,
    /// The floor when the session was opened here: what it sent before may have run under an
    /// earlier life of the session that was forgotten.
    opened_at_floor: HybridTime,
    active_until: HybridTime,
    answers: BTreeMap<u64, Place>,
    lots: BTreeMap<u64, Lot>,
    /// Bytes of own rows and of lots; a lot counts in full until it goes.
    bytes: usize,
}

impl Session {
    /// Whether it keeps as many answers, or bytes of them, as it may.
    fn is_full(&self, limits: &SessionLimits) -> bool {
        self.answers.len() >= limits.max_answers || self.bytes >= limits.max_answer_bytes
    }

    /// The same without the answers below `lowest`.
    fn is_full_from(&self, lowest: u64, limits: &SessionLimits) -> bool {
        let (mut answers, mut bytes, mut counted) = (0, 0, BTreeSet::new());
        for place in self.answers.range(lowest..).map(|(_, place)| place) {
            answers += 1;
            bytes += match place {
                Place::Own(_, size) => *size,
                Place::Lot(first) if counted.insert(*first) => self.lots.get(first).map_or(0, |lot| lot.bytes),
                Place::Lot(_) => 0,
            };
        }
        answers >= limits.max_answers || bytes >= limits.max_answer_bytes
    }

    /// Whether it may note what a stamp says was given up.
    fn has_room_for_given_up(&self, stamp: &SessionStamp, limits: &SessionLimits) -> bool {
        if stamp.given_up.is_empty() {
            return true;
        }
        let mut given_up = self.given_up.clone();
        let from = self.unanswered_from.max(stamp.lowest_unanswered.min(stamp.number));
        given_up.forget_below(from);
        for range in clipped(stamp, from) {
            given_up.add(range);
        }
        given_up.len() <= limits.max_given_up
    }

    /// Notes what the client waits for no more; whether a row must say so that only tells of this session.
    fn note_given_up(&mut self, stamp: &SessionStamp) -> bool {
        let mut new = false;
        for range in clipped(stamp, self.unanswered_from) {
            new |= self.given_up.add(range);
        }
        new
    }

    /// The client waits for nothing below.
    fn waits_from(&mut self, number: u64) {
        if number > self.unanswered_from {
            self.unanswered_from = number;
            self.given_up.forget_below(number);
        }
    }

    /// A time that it was not active after. The recorded end of activity is no such time for the
    /// floor: it lies ahead, and a floor ahead of the clock would refuse every new session.
    fn last_active_before(&self) -> HybridTime {
        // A write leaves the record alone only while it ends `ACTIVITY_MS` or more after it.
        HybridTime::from_ms((self.active_until.ms() + 1).saturating_sub(ACTIVITY_MS))
    }

    /// Forgets the answers below `lowest`; gives the rows that go.
    fn forget(&mut self, id: SessionId, lowest: u64, writes: &mut Vec<RowWrite>) {
        let kept = self.answers.split_off(&lowest);
        for (number, place) in std::mem::replace(&mut self.answers, kept) {
            match place {
                Place::Own(slot, size) => {
                    self.bytes -= size;
                    writes.push(RowWrite::drop(rows::answer_row(slot, id, number)));
                }
                Place::Lot(first) => {
                    let Some(lot) = self.lots.get_mut(&first) else { continue };
                    lot.left -= 1;
                    if lot.left == 0 {
                        self.bytes -= lot.bytes;
                        self.lots.remove(&first);
                        writes.push(RowWrite::drop(rows::lot_row(id, first)));
                    }
                }
            }
        }
        self.lowest = lowest;
    }
}

/// An answer as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptAnswer {
    /// A row of its own: session, number, slot and bytes.
    Own(SessionId, u64, Slot, usize),
    /// A lot: session, first number and the row's value.
    Lot(SessionId, u64, Bytes),
}

impl KeptAnswer {
    /// What a row of answers holds; `None` if it is not one.
    pub fn of_row(row: &[u8], len: usize, value: impl FnOnce() -> Option<Bytes>) -> Option<Self> {
        match rows::parse_lot_row(row) {
            Some((session, first)) => Some(KeptAnswer::Lot(session, first, value()?)),
            None => {
                let (slot, session, number) = rows::parse_answer_row(row)?;
                Some(KeptAnswer::Own(session, number, slot, len))
            }
        }
    }
}

/// What to do with a stamped write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Execute it.
    Execute,
    /// It has been executed; its answer is in this row.
    Kept(Bytes),
    /// It has been executed in the turn under way, and this is its answer.
    Now(Bytes),
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
    /// Lots of the turn under way.
    filling: BTreeMap<SessionId, OpenLot>,
}

impl Sessions {
    /// No sessions.
    pub fn new(limits: SessionLimits) -> Self {
        Sessions {
            limits,
            floor: HybridTime::default(),
            open: HashMap::new(),
            by_activity: BTreeMap::new(),
            filling: BTreeMap::new(),
        }
    }

    /// The sessions that a partition's rows tell of: the floor, the session rows and the answers.
    ///
    /// # Errors
    /// `UnknownFormat`, `CorruptRow`: with an answer overlooked, a retry would run once more.
    pub fn rebuild(
        limits: SessionLimits,
        floor: HybridTime,
        sessions: impl IntoIterator<Item = (SessionId, Bytes)>,
        answers: impl IntoIterator<Item = KeptAnswer>,
    ) -> Result<Self> {
        let mut all = Sessions { floor, ..Self::new(limits) };
        for (id, row) in sessions {
            let session = decode_session(&row).ok_or_else(|| {
                Error::new(Code::UnknownFormat, format!("the row of session {id} cannot be read: {:?}", row.first()))
            })?;
            all.by_activity.insert((session.active_until, id), ());
            all.open.insert(id, session);
        }
        for answer in answers {
            match answer {
                KeptAnswer::Own(id, number, slot, size) => {
                    let Some(session) = all.open.get_mut(&id) else { continue };
                    session.answers.insert(number, Place::Own(slot, size));
                    session.bytes += size;
                }
                KeptAnswer::Lot(id, first, row) => {
                    lots::check(&row)?;
                    let Some(session) = all.open.get_mut(&id) else { continue };
                    let lowest = session.lowest;
                    let kept = lots::numbers(&row).filter(|number| *number >= lowest);
                    session.answers.extend(kept.map(|number| (number, Place::Lot(first))));
                    session.bytes += row.len();
                    session.lots.insert(first, Lot { left: 0, bytes: row.len() });
                    session.waits_from(lots::unanswered_from(&row));
                    session.recorded_from = session.unanswered_from;
                }
            }
        }
        // Counted at the end: damaged rows may hold a number twice, and it is forgotten once.
        for session in all.open.values_mut() {
            for place in session.answers.values() {
                if let Place::Lot(first) = place
                    && let Some(lot) = session.lots.get_mut(first)
                {
                    lot.left += 1;
                }
            }
        }
        Ok(all)
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
        match session.answers.get(&stamp.number) {
            Some(_) if planted(Bug::ApplyTwice) => return Admission::Execute,
            Some(Place::Own(slot, _)) => {
                return Admission::Kept(rows::answer_row(*slot, stamp.session, stamp.number));
            }
            Some(Place::Lot(first)) => {
                let filling = self.filling.get(&stamp.session).filter(|lot| lot.first() == *first);
                let now = filling.and_then(|lot| lots::find(lot.so_far(), stamp.number));
                return now.map_or_else(|| Admission::Kept(rows::lot_row(stamp.session, *first)), Admission::Now);
            }
            None => {}
        }
        if session.given_up.contains(stamp.number)
            || stamp.number < session.unanswered_from
            || stamp.first_sent <= session.opened_at_floor
        {
            return Admission::Ended;
        }
        if !session.has_room_for_given_up(stamp, &self.limits) {
            return Admission::Full;
        }
        match stamp.previous {
            Some(previous) if previous >= session.unanswered_from && !session.answers.contains_key(&previous) => {
                Admission::ResendFrom(previous)
            }
            // What the write itself says to be heard of does not count: nothing else could tell.
            _ if session.is_full(&self.limits)
                && session.is_full_from(stamp.lowest_unanswered.min(stamp.number), &self.limits) =>
            {
                Admission::Full
            }
            _ => Admission::Execute,
        }
    }

    /// Records an executed write's answer; gives the rows to write with it. A small answer has no
    /// row before [`Sessions::take_lots`].
    pub fn record(&mut self, stamp: &SessionStamp, slot: Slot, answer: &[u8], now: HybridTime) -> Vec<RowWrite> {
        let mut writes = Vec::new();
        let new = !self.open.contains_key(&stamp.session);
        if new {
            self.make_room(now, &mut writes);
        }
        let fresh = Session { opened_at_floor: self.floor, ..Session::default() };
        let session = self.open.entry(stamp.session).or_insert(fresh);
        session.waits_from(stamp.lowest_unanswered.min(stamp.number));
        let more_given_up = session.note_given_up(stamp);
        // Who says that it has the answers up to a write that it is still sending gets none.
        if stamp.number >= session.lowest {
            let place = if answer.len() > lots::LARGEST {
                session.bytes += answer.len();
                writes.push(RowWrite::put(
                    rows::answer_row(slot, stamp.session, stamp.number),
                    Bytes::copy_from_slice(answer),
                ));
                Place::Own(slot, answer.len())
            } else {
                let lot = self.filling.entry(stamp.session).or_insert_with(|| OpenLot::new(stamp.number));
                lot.add(stamp.number, answer);
                Place::Lot(lot.first())
            };
            session.answers.insert(stamp.number, place);
        }

        let lowest = stamp.lowest_unanswered.min(stamp.number).max(session.lowest);
        let many = lowest - session.lowest >= FORGET as u64 && session.answers.range(..lowest).count() >= FORGET;
        // A lot of the turn says it too.
        let unrecorded = session.recorded_from < session.unanswered_from && !self.filling.contains_key(&stamp.session);
        let idle = session.active_until.ms() < now.ms() + ACTIVITY_MS;
        if many || new || unrecorded || idle || more_given_up || session.is_full(&self.limits) {
            // What the turn under way answers is not forgotten in it: its lot is counted at its end.
            let filling = self.filling.get(&stamp.session).map_or(lowest, OpenLot::lowest);
            session.forget(stamp.session, lowest.min(filling), &mut writes);
            self.by_activity.remove(&(session.active_until, stamp.session));
            session.active_until = session.active_until.max(HybridTime::from_ms(now.ms() + 2 * ACTIVITY_MS));
            self.by_activity.insert((session.active_until, stamp.session), ());
            session.recorded_from = session.unanswered_from;
            let row = encode_session(session);
            writes.push(RowWrite::put(rows::session_row(stamp.session), row));
        }
        writes
    }

    /// The rows of the small answers that were recorded since this was last called: called at the end
    /// of each turn, so that they are written with what they answer.
    pub fn take_lots(&mut self) -> Vec<RowWrite> {
        let mut writes = Vec::new();
        for (id, lot) in std::mem::take(&mut self.filling) {
            // The session may have ended in the same turn.
            let Some(session) = self.open.get_mut(&id) else { continue };
            let (first, left, row) = lot.finish(session.unanswered_from);
            session.recorded_from = session.unanswered_from;
            session.bytes += row.len();
            session.lots.insert(first, Lot { left, bytes: row.len() });
            writes.push(RowWrite::put(rows::lot_row(id, first), row));
        }
        writes
    }

    /// Ends the sessions that have been idle too long, at most `limit`; gives the rows to write.
    /// Called between writes, never between a write's admission and its record.
    pub fn expire(&mut self, now: HybridTime, limit: usize) -> Vec<RowWrite> {
        let mut writes = Vec::new();
        for _ in 0..limit {
            match self.by_activity.first_key_value() {
                Some((&(until, id), ())) if until.ms() + self.limits.idle_ms < now.ms() => {
                    self.end(id, now, &mut writes);
                }
                _ => break,
            }
        }
        writes
    }

    /// Only for a session that is not open yet: ending the very session whose write was admitted
    /// would forget its answers.
    fn make_room(&mut self, now: HybridTime, writes: &mut Vec<RowWrite>) {
        while self.open.len() >= self.limits.max_sessions {
            let Some((&(_, id), ())) = self.by_activity.first_key_value() else { break };
            self.end(id, now, writes);
        }
    }

    fn end(&mut self, id: SessionId, now: HybridTime, writes: &mut Vec<RowWrite>) {
        let Some(session) = self.open.remove(&id) else { return };
        self.by_activity.remove(&(session.active_until, id));
        self.floor = self.floor.max(session.last_active_before().min(now));
        self.filling.remove(&id);
        writes.push(RowWrite::drop(rows::session_row(id)));
        for (number, place) in session.answers {
            if let Place::Own(slot, _) = place {
                writes.push(RowWrite::drop(rows::answer_row(slot, id, number)));
            }
        }
        for first in session.lots.into_keys() {
            writes.push(RowWrite::drop(rows::lot_row(id, first)));
        }
        let floor = rows::encode_number(self.floor.0);
        writes.push(RowWrite::put(rows::partition_row(PartitionRow::SessionFloor), floor));
    }
}

/// The ranges that a stamp names, from a number on and below its own; one that is empty is none.
fn clipped(stamp: &SessionStamp, from: u64) -> impl Iterator<Item = NumberRange> {
    let below = stamp.number.saturating_sub(1);
    stamp.given_up.iter().map(move |(first, last)| (*first.max(&from), *last.min(&below)))
}

/// version (2, or 3) | lowest kept number (8) | recorded end of activity (8) | floor at opening (8) | lowest
/// unanswered number (8) | in version 3 ranges of numbers that were given up, little-endian. Version 1 has
/// no lowest unanswered number.
fn encode_session(session: &Session) -> Bytes {
    let mut out = BytesMut::with_capacity(33);
    out.put_u8(if session.given_up.is_empty() { 2 } else { 3 });
    out.put_u64_le(session.lowest);
    out.put_u64_le(session.active_until.0);
    out.put_u64_le(session.opened_at_floor.0);
    out.put_u64_le(session.unanswered_from);
    session.given_up.encode(&mut out);
    out.freeze()
}

fn decode_session(row: &[u8]) -> Option<Session> {
    let (version, numbers) = row.split_first()?;
    if !matches!((*version, numbers.len()), (1, 24) | (2, 32) | (3, 32..)) {
        return None;
    }
    let given_up = GivenUp::decode(numbers.get(32..).unwrap_or_default())?;
    let number = |at: usize| numbers[at..at + 8].iter().rev().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
    let lowest = number(0);
    let unanswered_from = if *version == 1 { lowest } else { number(24).max(lowest) };
    Some(Session {
        lowest,
        unanswered_from,
        recorded_from: unanswered_from,
        given_up,
        active_until: HybridTime(number(8)),
        opened_at_floor: HybridTime(number(16)),
        ..Session::default()
    })
}
