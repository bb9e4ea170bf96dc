//! One turn: commands in, one batch out.

use super::super::entry::{self, Batch, Change, PartitionEntry, RowWrite};
use super::super::jobs;
use super::super::operations;
use super::super::rows::{self, PartitionRow};
use super::super::sessions::Admission;
use super::Job;
use super::answers;
use super::run::{Ended, Flight, Run, Waiting};
use super::tasks::{TaskGroup, cancelled};
use crate::clock::Instant;
use crate::error::{Code, Error};
use crate::failpoint;
use crate::types::{AckLevel, MapDescriptor, Op, ReplyBody, Slot};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Sessions that one turn ends at most.
const EXPIRE_PER_TURN: usize = 64;

/// What a turn has done so far.
#[derive(Default)]
pub(super) struct Turn {
    /// Changes of maps' entries, in order and all of them: a change feed shows each.
    entries: Vec<RowWrite>,
    /// Other rows, each with its last change.
    others: BTreeMap<Bytes, Change>,
    pub(super) bytes: usize,
    /// Released by the verdict on the turn's batch.
    pub(super) waiting: Vec<Waiting>,
    /// Reads; released by the batch's verdict if there is one, else by a round.
    pub(super) reads: Vec<Waiting>,
}

impl Run {
    /// Executes commands and proposes what they did. Gives back those for which the batch had no
    /// room.
    pub(super) async fn take_turn(&mut self, mut jobs: VecDeque<Job>) -> std::result::Result<VecDeque<Job>, Ended> {
        // What is pinned stays in RAM until the turn is over.
        let (_pinned, later) = self.prefetch(&mut jobs).await?;
        match self.execute_turn(jobs).await {
            Ok(mut left) => {
                left.extend(later);
                Ok(left)
            }
            Err(ended) => {
                self.unexecuted.extend(later);
                Err(ended)
            }
        }
    }

    async fn execute_turn(&mut self, mut jobs: VecDeque<Job>) -> std::result::Result<VecDeque<Job>, Ended> {
        self.time = self.time.tick(self.clock.unix_ms());
        self.view.set_now(self.time.ms());
        let mut turn = Turn::default();
        self.expire_due(&mut turn);
        for write in self.sessions.expire(self.time, EXPIRE_PER_TURN) {
            self.put(&mut turn, write);
        }
        let mut group = TaskGroup::default();
        while turn.bytes < self.config.max_batch_bytes {
            let Some(job) = jobs.pop_front() else { break };
            if job.reply.is_closed() {
                continue;
            }
            if job.expires <= Instant::now() {
                // What was executed before, in an earlier batch or run, has its answer: only what was
                // not is refused.
                if self.replica.memory().is_stalled()
                    && !job.request.op.is_read()
                    && !group.repeats(&job)
                    && let Some(job) = self.admit(&mut turn, &group, job)
                {
                    let what = "rows that changed fill the memory limit; their checkpoint took too long";
                    job.reply.send(Err(Error::new(Code::MemoryFull, what)), job.request);
                }
                continue;
            }
            let is_task = job.request.op.is_task();
            if !group.jobs.is_empty() && (!is_task || group.repeats(&job)) {
                // The next command waits with the rest, should the run end meanwhile.
                jobs.push_front(job);
                self.run_tasks(&mut turn, &mut group, &mut jobs).await?;
                continue;
            }
            let Some(job) = self.admit(&mut turn, &group, job) else { continue };
            if self.is_cancelled(&job) {
                self.record(&mut turn, job, Err(cancelled("before it ran")), Vec::new(), &[]);
                continue;
            }
            if is_task {
                group.add(job)
            } else {
                self.execute(&mut turn, job)
            }
            if group.is_full() {
                self.run_tasks(&mut turn, &mut group, &mut jobs).await?;
            }
        }
        if !group.jobs.is_empty() {
            self.run_tasks(&mut turn, &mut group, &mut jobs).await?;
        }
        match self.propose(turn).await {
            Ok(()) => Ok(jobs),
            Err(ended) => {
                self.unexecuted.extend(jobs);
                Err(ended)
            }
        }
    }

    pub(super) fn put(&mut self, turn: &mut Turn, write: RowWrite) {
        turn.bytes += entry::encoded_len(&write);
        self.account(&write);
        self.view.write(self.next, write.row.clone(), write.value().cloned());
        match rows::is_map_row(&write.row) {
            true => turn.entries.push(write),
            false => {
                turn.others.insert(write.row, write.change);
            }
        }
    }

    /// Decides whether a command is to be executed; answers it if not.
    pub(super) fn admit(&mut self, turn: &mut Turn, group: &TaskGroup, job: Job) -> Option<Job> {
        let Some(stamp) = &job.request.stamp else { return Some(job) };
        if job.request.op.is_read() {
            return Some(job);
        }
        // One that is on its way has passed already, and only what the session says of it is true.
        if !job.flown && stamp.first_sent.too_far_ahead(self.clock.unix_ms()) {
            let what =
                format!("the write is stamped {}, the clock here says {}", stamp.first_sent, self.clock.unix_ms());
            self.answer(Waiting { job, body: Err(Error::new(Code::ClockAhead, what)) });
            return None;
        }
        self.time = self.time.max(stamp.first_sent);
        let mut asked = stamp.clone();
        if asked.previous.is_some_and(|previous| group.holds(stamp.session, previous)) {
            // It runs before this one, in the same go.
            asked.previous = None;
        }
        let error = match self.sessions.admit(&asked, slot_of(&job)) {
            Admission::Execute => return Some(job),
            Admission::Kept(row) => {
                let number = asked.number;
                self.repeat_answer(turn, job, &row, number);
                return None;
            }
            Admission::Now(answer) => {
                let body = answers::decode(&answer).and_then(|answer| answer);
                turn.waiting.push(Waiting { job, body });
                return None;
            }
            Admission::Ended => Error::new(Code::SessionEnded, format!("session {} has ended here", stamp.session)),
            Admission::ResendFrom(number) => Error::new(
                Code::ResendFrom,
                format!("write {number} of session {} has not arrived; resend from {number}", stamp.session),
            )
            .resend_from(number),
            Admission::Full => {
                Error::new(Code::SessionFull, format!("session {} has too many unanswered writes", stamp.session))
            }
        };
        self.answer(Waiting { job, body: Err(error) });
        None
    }

    fn execute(&mut self, turn: &mut Turn, job: Job) {
        if let Op::Forget { map, limit, .. } = job.request.op {
            let (body, writes) = self.forget(map, limit);
            self.record(turn, job, body, writes, &[]);
            return;
        }
        if let Op::Job { id, step, .. } = &job.request.op {
            let done = jobs::execute(&self.view, *id, step, self.time.ms());
            let (body, writes) = match done {
                Ok(done) => (Ok(done.body), done.writes),
                Err(error) => (Err(error), Vec::new()),
            };
            self.record(turn, job, body, writes, &[]);
            return;
        }
        if matches!(job.request.op, Op::Barrier { .. }) {
            self.record(turn, job, Ok(ReplyBody::Entries(Vec::new())), Vec::new(), &[]);
            return;
        }
        let Some(map) = &job.map else {
            self.answer(Waiting { job, body: Err(Error::internal("an operation came without its map")) });
            return;
        };
        let mut revision = self.revision;
        let done = self
            .check_not_dropped(map)
            .and_then(|()| operations::execute(&self.view, map, &job.request, &mut revision));
        let (body, writes) = match done {
            Ok(done) => (Ok(done.body), done.writes),
            Err(error) => (Err(error), Vec::new()),
        };
        if !writes.is_empty() {
            self.revision = revision;
        }
        let limited: Vec<MapDescriptor> = map.options.is_limited().then(|| map.clone()).into_iter().collect();
        self.note_reads(&limited, &job.request);
        self.record(turn, job, body, writes, &limited);
    }

    /// Hands the turn's batch to the log; without one its reads wait for a round.
    async fn propose(&mut self, mut turn: Turn) -> std::result::Result<(), Ended> {
        for write in self.sessions.take_lots() {
            self.put(&mut turn, write);
        }
        if turn.entries.is_empty() && turn.others.is_empty() {
            self.place = None;
            // Reads saw everything proposed so far, but nothing of a batch of this number.
            let saw = self.next - 1;
            for waiting in turn.reads.into_iter().chain(turn.waiting) {
                self.reads.push(waiting, saw);
            }
            return Ok(());
        }
        for (which, value) in [(PartitionRow::Time, self.time.0), (PartitionRow::Revision, self.revision)] {
            self.put(&mut turn, RowWrite::put(rows::partition_row(which), rows::encode_number(value)));
        }
        let number = self.next;
        let mut writes = turn.entries;
        writes.extend(turn.others.into_iter().map(|(row, change)| RowWrite { row, change }));
        let rows: Vec<Bytes> = writes.iter().map(|write| write.row.clone()).collect();
        let batch = PartitionEntry::Batch(Batch { term: self.term, run: self.run, number, writes }).encode();
        self.next += 1;
        let mut waiting: Vec<Waiting> = turn.waiting.into_iter().chain(turn.reads).collect();
        let mut place = self.place.take();
        if let Some(place) = &mut place {
            place.begin();
        }
        failpoint::reach("batch-before-propose");
        match self.group.propose(self.term, batch).await {
            Ok(receiver) => {
                self.verdicts.push_back(Box::pin(receiver.wait()));
                let early = |waiting: &mut Waiting| {
                    let request = &waiting.job.request;
                    request.ack == AckLevel::Accepted && !request.op.is_read() && waiting.body.is_ok()
                };
                for accepted in waiting.extract_if(.., early).collect::<Vec<_>>() {
                    self.answer(accepted);
                }
                self.flights.push_back(Flight { number, rows, waiting, place });
                Ok(())
            }
            Err(_) => {
                self.flights.push_back(Flight { number, rows, waiting, place });
                Err(Ended::ProposalFailed)
            }
        }
    }
}

pub(super) fn slot_of(job: &Job) -> Slot {
    let addressed = job.request.op.slot();
    let of_key = || job.request.op.routing_key().map(|key| operations::slot_in(&job.request, key));
    addressed.or_else(of_key).unwrap_or(Slot(0))
}
