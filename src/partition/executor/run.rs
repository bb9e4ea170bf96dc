//! One run: from its marker to the first proposal that fails, or the end of the leadership.

use super::super::overlay::View;
use super::super::rows::{self, PartitionRow};
use super::super::sessions::Sessions;
use super::expiry::sleep_until_due;
use super::limits::Limits;
use super::pacer::{Led, Pacer, Place};
use super::reads::Reads;
use super::{ExecutorConfig, ExecutorParts, ExecutorStats, Job, answers, count, dropped};
use crate::clock::{Instant, Random, WallClock};
use crate::error::Result;
use crate::failpoint;
use crate::partition::{Cancelled, ReplicaState, TaskRunner};
use crate::planted::{Bug, planted};
use crate::raft::{Confirmer, Group, Leadership, Verdict};
use crate::types::{AckLevel, HybridTime, MapId, NodeId, Reply, ReplyBody, RunId, Served};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A command that has been executed and whose answer may not leave yet.
pub(super) struct Waiting {
    pub(super) job: Job,
    pub(super) body: Result<ReplyBody>,
}

impl Waiting {
    /// Whether nobody waits for it any more. A stream may live on when its request's time is over.
    pub(super) fn abandoned(&self, now: Instant) -> bool {
        self.job.reply.is_closed() || self.job.expires <= now
    }
}

/// A batch on its way through the log.
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) rows: Vec<Bytes>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) place: Option<Place>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The leadership has gone or changed its term.
    LeadershipLost,
    /// A proposal was refused, failed or had no effect.
    ProposalFailed,
    /// Nobody can send commands any more.
    Closed,
}

/// A run under way.
pub(super) struct Run {
    pub(super) group: Arc<Group>,
    confirmer: Arc<Confirmer>,
    pacer: Arc<Pacer>,
    _led: Led,
    /// For the next batch.
    pub(super) place: Option<Place>,
    placing: Option<BoxFuture<'static, Place>>,
    pub(super) replica: Arc<ReplicaState>,
    pub(super) tasks: Arc<dyn TaskRunner>,
    pub(super) cancelled: Arc<Cancelled>,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) maps: Arc<dyn super::MapDirectory>,
    pub(super) config: ExecutorConfig,
    pub(super) stats: Arc<ExecutorStats>,
    node: NodeId,
    pub(super) term: u64,
    pub(super) run: RunId,
    /// Number of the next batch.
    pub(super) next: u64,
    /// Number of the last batch that took effect.
    pub(super) effective: u64,
    /// What is due is looked for again only when the batch of this number has taken effect.
    pub(super) expiry_after: u64,
    pub(super) limits: Limits,
    pub(super) random: Arc<dyn Random>,
    pub(super) view: View,
    pub(super) sessions: Sessions,
    pub(super) revision: u64,
    /// Maps that were dropped.
    pub(super) dropped: BTreeSet<MapId>,
    pub(super) time: HybridTime,
    pub(super) flights: VecDeque<Flight>,
    pub(super) verdicts: FuturesOrdered<BoxFuture<'static, Verdict>>,
    pub(super) reads: Reads,
    /// Commands of a turn that was given up; executed first in the next run.
    pub(super) unexecuted: VecDeque<Job>,
}

impl Run {
    /// Begins with an empty overlay on the state in which the marker has been applied.
    ///
    /// # Errors
    /// When the state cannot be read from the backend.
    pub(super) fn begin(parts: &ExecutorParts, term: u64, run: RunId) -> Result<Self> {
        let replica = parts.replica.clone();
        let number = |which| {
            let row = replica.get(&rows::partition_row(which))?;
            Ok(row.and_then(|row| rows::decode_number(&row)).unwrap_or(0))
        };
        let open = replica.scan(&rows::session_prefix(), None, usize::MAX)?;
        let open = open.into_iter().filter_map(|(row, value)| Some((rows::parse_session_row(&row)?, value)));
        let floor = HybridTime(number(PartitionRow::SessionFloor)?);
        let sessions = match planted(Bug::ForgetSessions) {
            true => Sessions::new(parts.config.sessions),
            false => Sessions::rebuild(parts.config.sessions, floor, open, replica.answers()?)?,
        };
        Ok(Run {
            group: parts.group.clone(),
            confirmer: parts.confirmer.clone(),
            pacer: parts.pacer.clone(),
            _led: parts.pacer.led(),
            place: None,
            placing: None,
            tasks: parts.tasks.clone(),
            cancelled: parts.cancelled.clone(),
            clock: parts.clock.clone(),
            maps: parts.maps.clone(),
            config: parts.config.clone(),
            stats: parts.stats.clone(),
            node: parts.node,
            term,
            run,
            next: 1,
            effective: 0,
            expiry_after: 0,
            limits: Limits::default(),
            random: parts.random.clone(),
            view: View::new(replica.clone(), parts.maps.clone()),
            sessions,
            revision: number(PartitionRow::Revision)?,
            dropped: dropped::rebuild(&replica)?,
            time: HybridTime(number(PartitionRow::Time)?),
            flights: VecDeque::new(),
            verdicts: FuturesOrdered::new(),
            reads: Reads::default(),
            unexecuted: VecDeque::new(),
            replica,
        })
    }

    /// Runs until the end of the run.
    pub(super) async fn drive(
        &mut self,
        jobs: &mut mpsc::Receiver<Job>,
        backlog: &mut VecDeque<Job>,
        leadership: &mut watch::Receiver<Leadership>,
    ) -> Ended {
        loop {
            if self.reads.wants_round() {
                self.begin_read_round(Duration::ZERO);
            }
            let full = backlog.len() >= self.config.max_turn;
            let free = self.verdicts.len() < self.config.max_in_flight.max(1);
            let ready = free && (full || self.is_worth_a_turn(backlog)) && self.may_turn(backlog);
            let most = self.config.max_turn;
            let wake = self.next_wake();
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    let now = *leadership.borrow_and_update();
                    if changed.is_err() || !now.is_me || now.term != self.term {
                        self.settle_ready();
                        return Ended::LeadershipLost;
                    }
                }
                Some(verdict) = self.verdicts.next(), if !self.verdicts.is_empty() => {
                    if !self.settle(verdict) {
                        return Ended::ProposalFailed;
                    }
                }
                confirmed = self.reads.round(), if self.reads.round_runs() => {
                    if !self.read_round_ended(confirmed) {
                        return Ended::LeadershipLost;
                    }
                }
                place = placed(&mut self.placing), if self.placing.is_some() => {
                    self.placing = None;
                    self.place = Some(place);
                }
                taken = take_jobs(jobs, backlog, most), if !full && !ready => {
                    if !taken {
                        return Ended::Closed;
                    }
                }
                () = std::future::ready(()), if ready => {
                    // No more than a turn: the rest waits in the mailbox, whose bound callers see.
                    while backlog.len() < most
                        && let Ok(job) = jobs.try_recv()
                    {
                        backlog.push_back(job);
                    }
                    let rest = backlog.split_off(most.min(backlog.len()));
                    let turn = std::mem::replace(backlog, rest);
                    let left = match self.take_turn(turn).await {
                        Ok(left) => left,
                        Err(ended) => return ended,
                    };
                    for job in left.into_iter().rev() {
                        backlog.push_front(job);
                    }
                }
                () = sleep_until_due(wake), if free => {
                    if let Err(ended) = self.take_turn(VecDeque::new()).await {
                        return ended;
                    }
                }
            }
        }
    }

    /// Whether the commands that wait are worth a turn.
    ///
    /// Writes are worth a batch when as many wait as are on their way, or none are. So batches grow
    /// with the load to about half of what the clients have in flight, and whoever is alone waits for
    /// nobody (Nagle's rule, RFC 896, with the group's round for the acknowledgement). Reads wait for
    /// no company.
    fn is_worth_a_turn(&self, backlog: &VecDeque<Job>) -> bool {
        let on_their_way: usize = self.flights.iter().map(|flight| flight.waiting.len()).sum();
        !backlog.is_empty() && (backlog.len() >= on_their_way || backlog.iter().all(|job| job.request.op.is_read()))
    }

    /// Whether the commands that wait may be executed now: those that write need a place.
    fn may_turn(&mut self, backlog: &VecDeque<Job>) -> bool {
        if self.place.is_some() || backlog.iter().all(|job| job.request.op.is_read()) {
            return true;
        }
        if self.placing.is_none() {
            self.place = self.pacer.try_place();
            if self.place.is_none() {
                self.placing = Some(Box::pin(self.pacer.clone().place()));
            }
        }
        self.place.is_some()
    }

    fn begin_read_round(&mut self, pause: Duration) {
        count(&self.stats.read_rounds);
        let (group, confirmer) = (self.group.clone(), self.confirmer.clone());
        self.reads.begin_round(Box::pin(async move {
            if pause.is_zero() {
                return confirmer.confirm(&group).await;
            }
            crate::clock::sleep(pause).await;
            group.confirm_leadership().await
        }));
    }

    /// False when the leadership is another one than this run's.
    fn read_round_ended(&mut self, confirmed: Result<u64>) -> bool {
        match confirmed {
            Ok(term) if term == self.term => {
                for waiting in self.reads.confirm(self.effective) {
                    self.answer(waiting);
                }
                true
            }
            Ok(_) => false,
            Err(_) => {
                self.reads.ask_again();
                if self.reads.wants_round() {
                    self.begin_read_round(Duration::from_millis(10));
                }
                true
            }
        }
    }

    /// Takes in the verdict on the oldest batch on its way; false when it took no effect.
    pub(super) fn settle(&mut self, verdict: Verdict) -> bool {
        let took_effect = matches!(&verdict, Verdict::Applied(outcome) if outcome.took_effect);
        if !took_effect {
            count(&self.stats.fenced);
            return false;
        }
        let Some(flight) = self.flights.pop_front() else { return false };
        failpoint::reach("batch-before-answers");
        count(&self.stats.batches);
        self.effective = flight.number;
        if let Some(place) = flight.place {
            place.done();
        }
        self.view.settle(flight.number, &flight.rows);
        for waiting in flight.waiting {
            self.answer(waiting);
        }
        for waiting in self.reads.release(self.effective) {
            self.answer(waiting);
        }
        true
    }

    /// Takes in the verdicts that are there: what they say holds, whoever leads now.
    fn settle_ready(&mut self) {
        while let Some(Some(verdict)) = self.verdicts.next().now_or_never() {
            if !self.settle(verdict) {
                return;
            }
        }
    }

    /// Lets an answer out.
    pub(super) fn answer(&self, waiting: Waiting) {
        count(&self.stats.commands);
        let Waiting { job, body } = waiting;
        let ack = if job.request.op.is_read() { AckLevel::default() } else { job.request.ack };
        let served = Served {
            node: self.node,
            term: self.term,
            hops: job.hops,
            time: self.time,
            applied: self.replica.applied_now(),
            ack,
        };
        job.reply.send(body.map(|body| Reply { body, served }), job.request);
    }

    /// What is unanswered, to be executed again in the next run. A write without a session
    /// cannot be: nothing would notice that it took effect after all.
    pub(super) fn into_backlog(self) -> Vec<Job> {
        let flown = self.flights.into_iter().flat_map(|flight| flight.waiting);
        let (mut again, mut lost) = (Vec::new(), Vec::new());
        for Waiting { mut job, .. } in flown.chain(self.reads.into_waiting()) {
            job.flown |= !job.request.op.is_read();
            let repeatable = !job.flown || job.request.stamp.is_some();
            if repeatable { again.push(job) } else { lost.push(job) }
        }
        again.extend(self.unexecuted);
        for job in lost {
            answers::refuse(job, answers::lost());
        }
        again.retain(|job| !job.reply.is_closed());
        again
    }
}

/// Waits for commands and takes all that are there; false when nobody can send any more.
async fn take_jobs(jobs: &mut mpsc::Receiver<Job>, backlog: &mut VecDeque<Job>, most: usize) -> bool {
    let mut taken = Vec::new();
    let some = jobs.recv_many(&mut taken, most).await > 0;
    backlog.extend(taken);
    some
}

async fn placed(placing: &mut Option<BoxFuture<'static, Place>>) -> Place {
    match placing {
        Some(placing) => placing.await,
        None => std::future::pending().await,
    }
}
