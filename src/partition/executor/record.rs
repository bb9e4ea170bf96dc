//! What a command leaves behind: its rows, its kept answer, and who waits for it. In: outcomes of
//! commands, in order. Out: the turn that they make up. It refuses what no memory is left for.

use super::super::entry::{self, RowWrite};
use super::super::{lots, rows};
use super::limits::all_evict;
use super::run::{Run, Waiting};
use super::turn::{Turn, slot_of};
use super::{Job, answers, count};
use crate::clock::Instant;
use crate::error::{Code, Error, Result};
use crate::types::{GroupId, MapDescriptor, ReplyBody, Slot};
use bytes::Bytes;

/// What came of a command's writes.
pub(super) struct Recorded {
    /// They are in the turn, or there were none and the answer is no refusal.
    pub(super) took: bool,
    /// Slots of entries that had to give way to them.
    pub(super) evicted: Vec<Slot>,
}

impl Run {
    /// Answers a command that was executed before, as soon as that is applied.
    pub(super) fn repeat_answer(&mut self, turn: &mut Turn, job: Job, row: &Bytes, number: u64) {
        let kept = self.view.get(row).map(|kept| match rows::parse_lot_row(row) {
            Some(_) => kept.and_then(|lot| lots::find(&lot, number)),
            None => kept,
        });
        let kept = kept.and_then(|kept| kept.ok_or_else(|| Error::internal("a kept answer has no row")));
        // It was executed; that its answer cannot be read does not undo it.
        let unreadable = |error: Error| {
            let what = format!("the answer that was kept cannot be read: {}", error.brief());
            Error::new(Code::OutcomeUnknown, what)
        };
        let body = kept.and_then(|row| answers::decode(&row)).map_err(unreadable).and_then(|answer| answer);
        let waiting = Waiting { job, body };
        match self.view.pending_number(row) {
            None => self.answer(waiting),
            Some(number) if number == self.next => turn.waiting.push(waiting),
            Some(number) => match self.flights.iter_mut().find(|flight| flight.number == number) {
                Some(flight) => {
                    // Retries with short deadlines may ask for one batch again and again.
                    if flight.waiting.len() >= 2 * self.config.max_turn {
                        let now = Instant::now();
                        flight.waiting.retain(|waiting| !waiting.abandoned(now));
                    }
                    flight.waiting.push(waiting);
                }
                None => self.answer(waiting),
            },
        }
    }

    /// Refuses what would let the state grow when no memory is left; deletions go on, and so does
    /// what makes room for itself.
    fn check_memory(&self, writes: &[RowWrite]) -> Result<()> {
        let memory = self.replica.memory();
        let only_grows = !writes.is_empty() && writes.iter().all(|write| write.value().is_some());
        // The grid's own facts are few, and everything hangs on them.
        if !only_grows || !memory.is_exhausted() || self.group.id() == GroupId::META {
            return Ok(());
        }
        count(&memory.stats.refused);
        let limit = memory.limit().unwrap_or(0) >> 20;
        let what = format!("the peer's memory limit of {limit} MiB is reached: {} MiB are used", memory.used() >> 20);
        Err(Error::new(Code::MemoryFull, what))
    }

    /// Notes what a command did: its rows, and its answer for retries. What wrote nothing and
    /// carries no session is a read. `limited` are the maps with limits that it writes to.
    pub(super) fn record(
        &mut self,
        turn: &mut Turn,
        job: Job,
        mut body: Result<ReplyBody>,
        mut writes: Vec<RowWrite>,
        limited: &[MapDescriptor],
    ) -> Recorded {
        let room = match self.check_memory(&writes) {
            Ok(()) => self.make_room(limited, &writes, false),
            // No memory is left: a map that evicts may exchange entries, and not grow.
            Err(_) if all_evict(limited, &writes) => self.make_room(limited, &writes, true),
            Err(error) => Err(error),
        };
        let victims = room.unwrap_or_else(|error| {
            body = Err(error);
            writes.clear();
            Vec::new()
        });
        // A refusal that may be repaired elsewhere or later is not the command's answer: a retry
        // is to run it.
        let repairable = |error: &Error| error.code.may_pass();
        let is_answer = !body.as_ref().is_err_and(repairable);
        let stamp = job.request.stamp.clone().filter(|_| is_answer && !job.request.op.is_read());
        let size: usize = writes.iter().map(entry::encoded_len).sum();
        if size > self.config.max_batch_bytes {
            let what = format!("the command writes {size} bytes; a batch holds {}", self.config.max_batch_bytes);
            body = Err(Error::new(Code::TooLarge, what));
            writes.clear();
        }
        let is_read = stamp.is_none() && writes.is_empty();
        let recorded =
            Recorded { took: body.is_ok(), evicted: victims.iter().filter_map(|row| rows::slot_of_row(row)).collect() };
        for write in writes {
            self.put(turn, write);
        }
        self.evict(turn, victims);
        self.bury(turn);
        if is_read {
            turn.reads.push(Waiting { job, body });
            return recorded;
        }
        if let Some(stamp) = stamp {
            match answers::encode(&body) {
                Ok(answer) => {
                    turn.bytes += answer.len();
                    for write in self.sessions.record(&stamp, slot_of(&job), &answer, self.time) {
                        self.put(turn, write);
                    }
                }
                Err(error) => body = Err(error),
            }
        }
        turn.waiting.push(Waiting { job, body });
        recorded
    }
}
