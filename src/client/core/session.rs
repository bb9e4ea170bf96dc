//! The client's sessions: numbers given to writes, and which of them are unanswered.

use crate::clock::Random;
use crate::types::{NumberRange, Numbers, Reach, SessionId, Slot};

struct Session {
    id: SessionId,
    numbers: Numbers,
}

impl Session {
    fn new(random: u64) -> Self {
        // 0 means "no session" on the wire.
        Session { id: SessionId(random.max(1)), numbers: Numbers::default() }
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
        (session.id, session.numbers.begin())
    }

    /// A write is waited for no more. `given_up`: it may still be on its way, to these slots.
    pub(super) fn end(&mut self, session: SessionId, number: u64, given_up: Option<Reach>) {
        let current = self.all.len() - 1;
        if let Some(at) = self.all.iter().position(|known| known.id == session) {
            let numbers = &mut self.all[at].numbers;
            match given_up {
                Some(reach) => numbers.give_up(number, reach),
                None => numbers.answered(number),
            }
            if at != current && numbers.is_idle() {
                self.all.remove(at);
            }
        }
    }

    fn numbers(&self, session: SessionId) -> Option<&Numbers> {
        self.all.iter().find(|known| known.id == session).map(|known| &known.numbers)
    }

    /// Whether it has given up writes of which the lowest number does not tell.
    pub(super) fn any_given_up(&self, session: SessionId) -> bool {
        self.numbers(session).is_some_and(Numbers::any_given_up)
    }

    /// Whether so many were given up that no more may be begun.
    pub(super) fn is_full(&self, session: SessionId) -> bool {
        self.numbers(session).is_some_and(Numbers::is_full)
    }

    /// What a write says of those before it in its slots, and above `after`, that were given up.
    pub(super) fn given_up_before(
        &self,
        session: SessionId,
        number: u64,
        reach: &[Slot],
        after: u64,
    ) -> Vec<NumberRange> {
        self.numbers(session).map_or_else(Vec::new, |numbers| numbers.given_up_before(number, reach, after))
    }

    /// The lowest number that the session waits for, not above `number`.
    pub(super) fn lowest(&self, session: SessionId, number: u64) -> u64 {
        self.numbers(session).map_or(number, |numbers| numbers.lowest(number))
    }

    /// The grid has forgotten this session: new writes get another one.
    pub(super) fn replace(&mut self, ended: SessionId, random: &dyn Random) {
        if self.all.last().is_some_and(|current| current.id == ended) {
            self.all.push(Session::new(random.next_u64()));
        }
    }
}
