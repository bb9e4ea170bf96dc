//! The session that this peer opens for clients that have none: each of their writes gets a
//! number, so that this peer's retries run it once.

use crate::clock::Random;
use crate::types::{HybridTime, SessionId, SessionStamp};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Numbers {
    last: u64,
    unanswered: BTreeSet<u64>,
}

/// Gives writes their stamps.
pub struct Stamper {
    session: SessionId,
    numbers: Mutex<Numbers>,
}

/// A write that has its number until it is dropped: answered, or given up.
pub struct Stamped<'a> {
    stamper: &'a Stamper,
    stamp: SessionStamp,
}

impl Stamper {
    /// A new session.
    pub fn new(random: &dyn Random) -> Self {
        Stamper { session: SessionId(random.next_u64()), numbers: Mutex::default() }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next write's stamp. Such writes wait for their answers one by one, each client's at
    /// the client, so that none names a previous one.
    pub fn stamp(&self, now: HybridTime) -> Stamped<'_> {
        let mut numbers = self.numbers();
        numbers.last += 1;
        let number = numbers.last;
        numbers.unanswered.insert(number);
        let lowest_unanswered = numbers.unanswered.first().copied().unwrap_or(number);
        let stamp = SessionStamp { session: self.session, number, lowest_unanswered, previous: None, first_sent: now };
        drop(numbers);
        Stamped { stamper: self, stamp }
    }
}

impl Stamped<'_> {
    /// The stamp.
    pub fn stamp(&self) -> SessionStamp {
        self.stamp.clone()
    }
}

impl Drop for Stamped<'_> {
    fn drop(&mut self) {
        self.stamper.numbers().unanswered.remove(&self.stamp.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    #[test]
    fn the_lowest_unanswered_number_stays_until_it_is_dropped() {
        let stamper = Stamper::new(&SystemRandom);
        let first = stamper.stamp(HybridTime(1));
        let second = stamper.stamp(HybridTime(1));
        assert_eq!((second.stamp().number, second.stamp().lowest_unanswered), (2, 1));
        drop(first);
        assert_eq!(stamper.stamp(HybridTime(1)).stamp().lowest_unanswered, 2);
    }
}
