//! The client's sessions: numbers given to writes, and which of them are unanswered.

use crate::clock::Random;
use crate::types::SessionId;
use std::collections::BTreeSet;

struct Session {
    id: SessionId,
    next: u64,
    unanswered: BTreeSet<u64>,
}

impl Session {
    fn new(random: u64) -> Self {
        // 0 means "no session" on the wire.
        Session { id: SessionId(random.max(1)), next: 1, unanswered: BTreeSet::new() }
    }
}

/// The session for new writes, last, and older ones that still have unanswered writes.
pub(super) struct Sessions {
    all: Vec<Session>,
}

impl Sessions {
    pub(super) fn new(random: &dyn Random) -> Self {
        Sessions { all: vec![Session::new(random.next_u64())] }
    }

    /// The session and number for a new write.
    pub(super) fn begin(&mut self) -> (SessionId, u64) {
        // There is always a session; the fallback only keeps this total.
        let Some(session) = self.all.last_mut() else { return (SessionId(1), 1) };
        let number = session.next;
        session.next += 1;
        session.unanswered.insert(number);
        (session.id, number)
    }

    /// A write is answered or given up.
    pub(super) fn end(&mut self, session: SessionId, number: u64) {
        let current = self.all.len() - 1;
        if let Some(at) = self.all.iter().position(|known| known.id == session) {
            self.all[at].unanswered.remove(&number);
            if at != current && self.all[at].unanswered.is_empty() {
                self.all.remove(at);
            }
        }
    }

    /// The lowest number that the session waits for, not above `number`.
    pub(super) fn lowest(&self, session: SessionId, number: u64) -> u64 {
        let known = self.all.iter().find(|known| known.id == session);
        known.and_then(|known| known.unanswered.first().copied()).unwrap_or(number).min(number)
    }

    /// The grid has forgotten this session: new writes get another one.
    pub(super) fn replace(&mut self, ended: SessionId, random: &dyn Random) {
        if self.all.last().is_some_and(|current| current.id == ended) {
            self.all.push(Session::new(random.next_u64()));
        }
    }
}
