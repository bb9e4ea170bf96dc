//! Tasks of a turn. In: consecutive commands that run user code. Out: what they did, recorded one
//! after the other as if each had run alone. They run in one go, each over the writes of those
//! before it; where one of these is undone afterwards (cancelled, refused), those that may have
//! seen it run again.

use super::super::entry::{RemovalCause, RowWrite};
use super::super::expiry::expires_at;
use super::super::operations;
use super::super::rows;
use super::super::user_code::{TaskCall, TaskOutcome};
use super::run::{Ended, Run};
use super::turn::{Turn, slot_of};
use super::{Job, count};
use crate::error::{Code, Error, Result};
use crate::types::{MapDescriptor, Op, ReplyBody, SessionId, Slot, StoredValue};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Tasks that run in one go at most: other commands wait for them, and so much may run again when
/// one is undone.
const MAX_GROUP: usize = 64;

/// Consecutive tasks of a turn, run in one go.
#[derive(Default)]
pub(super) struct TaskGroup {
    pub(super) jobs: Vec<Job>,
    numbers: BTreeSet<(SessionId, u64)>,
}

impl TaskGroup {
    pub(super) fn add(&mut self, job: Job) {
        if let Some(stamp) = &job.request.stamp {
            self.numbers.insert((stamp.session, stamp.number));
        }
        self.jobs.push(job);
    }

    pub(super) fn is_full(&self) -> bool {
        self.jobs.len() >= MAX_GROUP
    }

    /// Whether a session's write is in the group.
    pub(super) fn holds(&self, session: SessionId, number: u64) -> bool {
        self.numbers.contains(&(session, number))
    }

    /// Whether the command is a retry of one in the group.
    pub(super) fn repeats(&self, job: &Job) -> bool {
        job.request.stamp.as_ref().is_some_and(|stamp| self.holds(stamp.session, stamp.number))
    }
}

/// The slots that a task may read and write, first and last.
fn slots_of(job: &Job) -> (Slot, Slot) {
    match &job.request.op {
        Op::PartitionTask { slots, .. } => *slots,
        _ => (slot_of(job), slot_of(job)),
    }
}

/// The answer to a task that somebody has cancelled. It is kept: a late copy does not run either.
pub(super) fn cancelled(when: &str) -> Error {
    Error::new(Code::TaskCancelled, format!("the task was cancelled {when}"))
}

impl Run {
    /// Runs the group's tasks on their own threads; verdicts on earlier batches come in meanwhile.
    pub(super) async fn run_tasks(
        &mut self,
        turn: &mut Turn,
        group: &mut TaskGroup,
        rest: &mut VecDeque<Job>,
    ) -> std::result::Result<(), Ended> {
        let group = std::mem::take(group);
        // User code may take long; nobody's batch shall wait for it.
        self.place = None;
        let calls: Vec<TaskCall> = group.jobs.iter().filter_map(|job| self.task_call(job)).collect();
        let tasks = self.tasks.clone();
        let mut running = tasks.run(Arc::new(self.view.clone()), calls);
        let mut failed = false;
        let outcomes = loop {
            tokio::select! {
                biased;
                outcomes = &mut running => break outcomes,
                Some(verdict) = self.verdicts.next(), if !failed && !self.verdicts.is_empty() => {
                    failed = !self.settle(verdict);
                }
            }
        };
        drop(running);
        if failed {
            let turned = std::mem::take(turn);
            let waiting = turned.waiting.into_iter().chain(turned.reads).map(|waiting| waiting.job);
            self.unexecuted.extend(waiting.chain(group.jobs).chain(std::mem::take(rest)));
            return Err(Ended::ProposalFailed);
        }
        let later = self.judge_tasks(turn, group.jobs.into_iter().zip(outcomes));
        for job in later.into_iter().rev() {
            rest.push_front(job);
        }
        Ok(())
    }

    /// Decides about what the tasks did, in their order. Gives back those that are to run again:
    /// they ran over writes that are undone, or the turn is full.
    fn judge_tasks(&mut self, turn: &mut Turn, ran: impl Iterator<Item = (Job, TaskOutcome)>) -> Vec<Job> {
        let mut later = Vec::new();
        // Slots in which a task may have seen what is not to be.
        let mut undone: BTreeSet<Slot> = BTreeSet::new();
        for (job, outcome) in ran {
            let wrote: Vec<Slot> = outcome.writes.iter().map(|write| write.slot).collect();
            let (first, last) = slots_of(&job);
            if turn.bytes >= self.config.max_batch_bytes || undone.range(first..=last).next().is_some() {
                // The first of a group is always decided, so that each pass gets on.
                undone.extend(wrote);
                undone.insert(slot_of(&job));
                later.push(job);
                continue;
            }
            // Its previous write was in the group, too, and may have been refused meanwhile.
            let Some(job) = self.admit(turn, &TaskGroup::default(), job) else {
                undone.extend(wrote);
                continue;
            };
            count(&self.stats.tasks);
            let mut limited = Vec::new();
            let (body, writes) = match self.is_cancelled(&job) {
                true => (Err(cancelled("while it ran; its writes are undone")), Vec::new()),
                false => self.task_writes(outcome, &mut limited),
            };
            let recorded = self.record(turn, job, body, writes, &limited);
            if !recorded.took {
                undone.extend(wrote);
            }
            undone.extend(recorded.evicted);
        }
        later
    }

    fn task_call(&self, job: &Job) -> Option<TaskCall> {
        let (name, key, last_slot, payload) = match &job.request.op {
            Op::Task { name, key, payload, .. } => (name, key.clone(), None, payload),
            Op::PartitionTask { name, slots, payload, .. } => (name, Bytes::new(), Some(slots.1), payload),
            _ => return None,
        };
        Some(TaskCall {
            name: name.clone(),
            slot: slot_of(job),
            last_slot,
            affinity: job.request.affinity.clone(),
            key,
            payload: payload.clone(),
            // The time that is left of this attempt decides only whether the task is begun: an
            // overrun is the task's answer for good, and must not depend on how long it waited.
            deadline: self.config.task_deadline,
            now_ms: self.time.ms(),
        })
    }

    pub(super) fn is_cancelled(&self, job: &Job) -> bool {
        job.request.op.task_id().is_some_and(|id| self.cancelled.contains(id))
    }

    /// A task's writes as rows; `limited` gets the maps with limits among those it wrote to.
    fn task_writes(
        &mut self,
        outcome: TaskOutcome,
        limited: &mut Vec<MapDescriptor>,
    ) -> (Result<ReplyBody>, Vec<RowWrite>) {
        let mut writes = Vec::with_capacity(outcome.writes.len());
        for write in outcome.writes {
            let map = match self.maps.map(&write.map) {
                Some(map) => map,
                None => {
                    let what = format!("there is no map {:?}", write.map);
                    return (Err(Error::new(Code::NoSuchMap, what)), Vec::new());
                }
            };
            let checked = self.check_not_dropped(&map).and_then(|()| match &write.value {
                Some(value) => operations::check_entry(&map, &write.key, value),
                None => Ok(()),
            });
            if let Err(error) = checked {
                return (Err(error), Vec::new());
            }
            if map.options.is_limited() && limited.iter().all(|known| known.id != map.id) {
                limited.push(map.clone());
            }
            let revision = self.revision + 1;
            let row = rows::map_row(write.slot, map.id, &write.key);
            match write.value {
                Some(value) => {
                    let expires_ms = expires_at(self.view.now_ms(), None, &map.options);
                    writes.push(RowWrite::put(row, StoredValue { revision, value, expires_ms }.encode()));
                }
                None if self.view.contains(&row) => {
                    writes.push(RowWrite::remove(row, revision, RemovalCause::Deleted));
                }
                None => {}
            }
        }
        if !writes.is_empty() {
            self.revision += 1;
        }
        (outcome.answer.map(ReplyBody::Task), writes)
    }
}
