//! The session that this peer opens for clients that have none: each of their writes gets a
//! number, so that this peer's retries run it once.

use crate::clock::Random;
use crate::error::{Code, Error, Result};
use crate::types::{AckLevel, HybridTime, MAX_GIVEN_UP, Numbers, Reach, Reply, SessionId, SessionStamp};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Gives writes their stamps.
pub struct Stamper {
    session: SessionId,
    numbers: Mutex<Numbers>,
}

/// A write that has its number until it is answered; dropped before that, it is given up.
pub struct Stamped<'a> {
    stamper: &'a Stamper,
    stamp: SessionStamp,
    reach: Option<Reach>,
}

impl Stamper {
    /// A new session.
    pub fn new(random: &dyn Random) -> Self {
        Stamper { session: SessionId(random.next_u64()), numbers: Mutex::default() }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stamp of the next write, which touches these slots. Such writes wait for their answers one by
    /// one, each client's at the client, so that none names a previous one: those that are waited for at
    /// the same time may take effect in any order, and those that were given up before it only before it.
    ///
    /// # Errors
    /// `SessionFull`: more were given up, while older ones are waited for, than a stamp can name.
    pub fn stamp(&self, now: HybridTime, reach: Reach) -> Result<Stamped<'_>> {
        let mut numbers = self.numbers();
        let number = numbers.begin();
        let given_up = if numbers.any_given_up() { numbers.given_up_before(number, &reach, 0) } else { Vec::new() };
        if given_up.len() > MAX_GIVEN_UP || numbers.is_full() {
            numbers.answered(number);
            let what = "too many writes to these slots were given up while older ones are waited for";
            return Err(Error::new(Code::SessionFull, what));
        }
        let lowest_unanswered = numbers.lowest(number);
        let (session, first_sent) = (self.session, now);
        drop(numbers);
        let stamp = SessionStamp { session, number, lowest_unanswered, previous: None, first_sent, given_up };
        Ok(Stamped { stamper: self, stamp, reach: Some(reach) })
    }
}

impl Stamped<'_> {
    /// The stamp.
    pub fn stamp(&self) -> SessionStamp {
        self.stamp.clone()
    }

    /// The write was answered by its partition, with this.
    pub fn answered(mut self, answer: &Result<Reply>) {
        let Some(reach) = self.reach.take() else { return };
        let mut numbers = self.stamper.numbers();
        match answer {
            // What is only accepted may be lost yet, and an earlier copy of it come late.
            Ok(reply) if reply.served.ack == AckLevel::MajorityFsync => numbers.answered(self.stamp.number),
            Ok(_) => numbers.give_up(self.stamp.number, reach),
            Err(error) if says_what_became_of_it(error) => numbers.answered(self.stamp.number),
            Err(_) => numbers.give_up(self.stamp.number, reach),
        }
    }

    /// All partitions that the write went to have answered, some with these errors.
    pub fn answered_by_all<'a>(mut self, mut errors: impl Iterator<Item = &'a Error>) {
        if errors.all(says_what_became_of_it) && self.reach.take().is_some() {
            self.stamper.numbers().answered(self.stamp.number);
        }
    }
}

/// Whether no attempt of a write that ended so can still be on its way.
fn says_what_became_of_it(error: &Error) -> bool {
    !matches!(error.code, Code::OutcomeUnknown | Code::DeadlineExceeded | Code::PeerUnreachable | Code::ShuttingDown)
}

impl Drop for Stamped<'_> {
    fn drop(&mut self) {
        if let Some(reach) = self.reach.take() {
            self.stamper.numbers().give_up(self.stamp.number, reach);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;
    use crate::types::{ReplyBody, Served, Slot};

    fn stamp(stamper: &Stamper, slot: u16) -> Stamped<'_> {
        stamper.stamp(HybridTime(1), vec![Slot(slot)]).expect("a stamp")
    }

    fn written() -> Result<Reply> {
        Ok(Reply { body: ReplyBody::Written { revision: 1, previous: None }, served: Served::default() })
    }

    #[test]
    fn the_lowest_unanswered_number_stays_until_it_is_dropped() {
        let stamper = Stamper::new(&SystemRandom);
        let first = stamp(&stamper, 1);
        let second = stamp(&stamper, 1);
        assert_eq!((second.stamp().number, second.stamp().lowest_unanswered), (2, 1));
        drop(first);
        assert_eq!(stamp(&stamper, 1).stamp().lowest_unanswered, 2);
    }

    #[test]
    fn what_was_given_up_is_named_while_an_older_one_is_waited_for() {
        let stamper = Stamper::new(&SystemRandom);
        let open = stamp(&stamper, 7);
        drop(stamp(&stamper, 1));
        stamp(&stamper, 1).answered(&Err(Error::new(Code::OutcomeUnknown, "lost")));
        stamp(&stamper, 1).answered(&Err(Error::new(Code::NotLeader, "another leads")));
        let next = stamp(&stamper, 1);
        assert_eq!(next.stamp().given_up, [(2, 4)], "also what was answered between");
        assert_eq!(stamp(&stamper, 2).stamp().given_up, [], "to another slot");
        next.answered(&written());
        // Of a replicated map the slot does not tell the partition: that it was taken somewhere proves nothing.
        assert_eq!(stamp(&stamper, 1).stamp().given_up, [(2, 6)]);
        open.answered(&written());
        assert_eq!(stamp(&stamper, 1).stamp().given_up, []);
    }

    #[test]
    fn what_was_only_accepted_is_named_as_well() {
        let stamper = Stamper::new(&SystemRandom);
        let _open = stamp(&stamper, 7);
        let mut accepted = written().expect("written");
        accepted.served.ack = AckLevel::Accepted;
        stamp(&stamper, 1).answered(&Ok(accepted));
        assert_eq!(stamp(&stamper, 1).stamp().given_up, [(2, 2)]);
    }

    #[test]
    fn more_than_a_stamp_can_name_is_refused() {
        let stamper = Stamper::new(&SystemRandom);
        let open: Vec<_> = (0..=MAX_GIVEN_UP)
            .map(|_| {
                let open = stamp(&stamper, 7);
                drop(stamp(&stamper, 1));
                open
            })
            .collect();
        let refused = stamper.stamp(HybridTime(1), vec![Slot(1)]).err().map(|error| error.code);
        assert_eq!(refused, Some(Code::SessionFull));
        drop(open);
        assert_eq!(stamp(&stamper, 1).stamp().given_up, []);
    }
}
