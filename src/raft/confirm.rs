//! Proves for reads that replicas here still lead, for all groups of a node together.
//!
//! In: a group whose reads wait. Out: the term in which its replica here led at some moment after
//! it was asked. Each other voter's node is asked what vote that voter has saved; the questions for
//! a node travel in one frame, one frame at a time, and whatever is asked meanwhile goes with the
//! next. This costs a node two frames per round trip, however many groups it leads, where a
//! heartbeat per group would cost two per group.
//!
//! Why a majority of such answers is a proof. A read began at `a`. Suppose that a leader of a
//! higher term was elected before `a`; only then can a write that this replica has not got be
//! acknowledged before `a`. It was elected by a majority of a configuration, and each of those
//! voters had *saved* a vote for it before it sent that vote, so before `a`. The answers here were
//! given after `a`, from votes as saved: a voter that answers "my vote is for your leader in your
//! term" had saved no later vote then, and votes never go back. So the voters that said so and
//! those that elected share nobody. But both are majorities, and those of one configuration, or of
//! two that follow each other, share a voter. The configuration used here is at most one step
//! behind the newest of this leader's: openraft publishes the present one each time before it
//! waits for anything, and proposes a next one only when the present one is committed. A vote that
//! is not saved yet counts as not given by either side. Learners are never asked. A replica that
//! lost its vote comes back under another id, of which no answer counts here.
//!
//! Whoever asks must have applied an entry of its own term (the run's marker): then it has all
//! that earlier terms have committed. Nothing here says what may be read, nor changes any vote.

use super::group::Group;
use super::network::{RaftTransport, kind};
use super::types::{LeaderId, Vote};
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::net::peer::Lane;
use crate::types::{GroupId, NodeId, ReplicaId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

const VERSION: u8 = 1;
/// A question's bytes.
const QUESTION: usize = 4 + 8 + 8 + 8;
/// Questions in one frame; more wait for the next.
const MAX_QUESTIONS: usize = 4096;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the vote that `replica` of `group` has saved is for `leader` in `term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    group: GroupId,
    replica: ReplicaId,
    term: u64,
    leader: ReplicaId,
}

impl Question {
    fn is_answered_by(&self, vote: &Vote) -> bool {
        *vote == Vote { leader_id: LeaderId { term: self.term, voted_for: self.leader }, committed: true }
    }
}

/// A leading replica's term and voters, as openraft has them now.
struct Standing {
    term: u64,
    /// A majority of each is a majority.
    configs: Vec<BTreeSet<ReplicaId>>,
    /// Where the voters are.
    nodes: BTreeMap<ReplicaId, NodeId>,
}

impl Standing {
    /// `None` if the replica does not lead.
    fn of(group: &Group) -> Option<Self> {
        let metrics = group.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader || !metrics.vote.committed {
            return None;
        }
        let members = metrics.membership_config.membership();
        let node = |id| Some((id, members.get_node(&id)?.node));
        Some(Standing {
            term: metrics.vote.leader_id.term,
            configs: members.get_joint_config().clone(),
            nodes: members.voter_ids().filter_map(node).collect(),
        })
    }
}

/// One group that waits for a majority.
struct Asked {
    configs: Vec<BTreeSet<ReplicaId>>,
    progress: Mutex<Progress>,
}

struct Progress {
    agreed: BTreeSet<ReplicaId>,
    open: usize,
    done: Option<oneshot::Sender<bool>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn majority(configs: &[BTreeSet<ReplicaId>], agreed: &BTreeSet<ReplicaId>) -> bool {
    !configs.is_empty() && configs.iter().all(|voters| voters.intersection(agreed).count() * 2 > voters.len())
}

impl Asked {
    /// Whether no answer matters any more: it is decided, or nobody waits for it.
    fn is_over(&self) -> bool {
        lock(&self.progress).done.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(&self, replica: ReplicaId, yes: bool) {
        let mut progress = lock(&self.progress);
        progress.open = progress.open.saturating_sub(1);
        if yes {
            progress.agreed.insert(replica);
        }
        let proved = majority(&self.configs, &progress.agreed);
        if (proved || progress.open == 0)
            && let Some(done) = progress.done.take()
        {
            // Nobody may wait for it any more.
            let _ = done.send(proved);
        }
    }
}

/// What is asked of one node.
#[derive(Default)]
struct Pair {
    waiting: Vec<(Question, Arc<Asked>)>,
    /// A task sends what waits.
    busy: bool,
}

impl Pair {
    fn forget_decided(&mut self) {
        self.waiting.retain(|(_, asked)| !asked.is_over());
    }
}

type Pairs = Mutex<BTreeMap<NodeId, Pair>>;

/// A node's proofs of leadership.
pub struct Confirmer {
    transport: Arc<dyn RaftTransport>,
    pairs: Arc<Pairs>,
}

impl Confirmer {
    /// Asks over this transport.
    pub fn new(transport: Arc<dyn RaftTransport>) -> Self {
        Confirmer { transport, pairs: Arc::default() }
    }

    /// Proves that the group's replica here led after this call; gives the term.
    ///
    /// # Errors
    /// `NoLeader` when it does not lead, or no majority says that it does.
    pub async fn confirm(&self, group: &Group) -> Result<u64> {
        let Some(standing) = Standing::of(group) else {
            return Err(Error::new(Code::NoLeader, "the replica here does not lead"));
        };
        self.prove(group.id(), group.replica(), standing, group.saved_vote()).await
    }

    async fn prove(&self, group: GroupId, me: ReplicaId, standing: Standing, own: Option<Vote>) -> Result<u64> {
        let Standing { term, configs, nodes } = standing;
        let question = |replica| Question { group, replica, term, leader: me };
        let mut agreed = BTreeSet::new();
        if own.is_some_and(|vote| question(me).is_answered_by(&vote)) {
            agreed.insert(me);
        }
        if majority(&configs, &agreed) {
            return Ok(term);
        }
        let others: Vec<(ReplicaId, NodeId)> = nodes.into_iter().filter(|(replica, _)| *replica != me).collect();
        let (done, proved) = oneshot::channel();
        let progress = Mutex::new(Progress { agreed, open: others.len(), done: Some(done) });
        let asked = Arc::new(Asked { configs, progress });
        for (replica, node) in others {
            self.ask(node, question(replica), asked.clone());
        }
        drop(asked);
        match proved.await {
            Ok(true) => Ok(term),
            _ => Err(Error::new(Code::NoLeader, "no majority confirms the leadership")),
        }
    }

    fn ask(&self, node: NodeId, question: Question, asked: Arc<Asked>) {
        let begin = {
            let mut pairs = lock(&self.pairs);
            let pair = pairs.entry(node).or_default();
            if pair.waiting.len() >= MAX_QUESTIONS {
                // The node is slow, and others have decided meanwhile. What is left is one a group.
                pair.forget_decided();
            }
            pair.waiting.push((question, asked));
            !std::mem::replace(&mut pair.busy, true)
        };
        if begin {
            clock::spawn(work(self.transport.clone(), self.pairs.clone(), node));
        }
    }
}

/// Sends what waits for a node until nothing does.
async fn work(transport: Arc<dyn RaftTransport>, pairs: Arc<Pairs>, node: NodeId) {
    loop {
        // Groups whose reads came at the same time travel together.
        tokio::task::yield_now().await;
        let round = {
            let mut pairs = lock(&pairs);
            let Some(pair) = pairs.get_mut(&node) else { return };
            pair.forget_decided();
            let rest = pair.waiting.split_off(MAX_QUESTIONS.min(pair.waiting.len()));
            let round = std::mem::replace(&mut pair.waiting, rest);
            if round.is_empty() {
                pairs.remove(&node);
                return;
            }
            round
        };
        let payload = encode_questions(round.iter().map(|(question, _)| question));
        let answer = transport.call(node, Lane::Control, GroupId::META, kind::CONFIRM, payload, PATIENCE).await;
        let answers = answer.and_then(|bytes| decode_answers(&bytes, round.len()));
        let answers = answers.unwrap_or_else(|_| vec![false; round.len()]);
        for ((question, asked), yes) in round.into_iter().zip(answers) {
            asked.answer(question.replica, yes);
        }
    }
}

/// Answers a node's questions from the votes that the replicas here have saved.
///
/// # Errors
/// `ProtocolMismatch` for bytes that are no questions.
pub fn answer_questions(payload: Bytes, saved_vote: impl Fn(GroupId, ReplicaId) -> Option<Vote>) -> Result<Bytes> {
    let mut answers = BytesMut::new();
    answers.put_u8(VERSION);
    for question in decode_questions(payload)? {
        let vote = saved_vote(question.group, question.replica);
        answers.put_u8(u8::from(vote.is_some_and(|vote| question.is_answered_by(&vote))));
    }
    Ok(answers.freeze())
}

fn damaged() -> Error {
    Error::new(Code::ProtocolMismatch, "questions about leadership, or their answers, are damaged")
}

/// Questions about no replica: who answers them is there.
pub(super) fn no_questions() -> Bytes {
    encode_questions([].iter())
}

fn encode_questions<'a>(questions: impl ExactSizeIterator<Item = &'a Question>) -> Bytes {
    let mut to = BytesMut::with_capacity(1 + questions.len() * QUESTION);
    to.put_u8(VERSION);
    for question in questions {
        to.put_u32_le(question.group.0);
        to.put_u64_le(question.replica);
        to.put_u64_le(question.term);
        to.put_u64_le(question.leader);
    }
    to.freeze()
}

fn decode_questions(mut from: Bytes) -> Result<Vec<Question>> {
    if from.is_empty() || from.get_u8() != VERSION || !from.len().is_multiple_of(QUESTION) {
        return Err(damaged());
    }
    let mut questions = Vec::with_capacity(from.len() / QUESTION);
    while from.has_remaining() {
        questions.push(Question {
            group: GroupId(from.get_u32_le()),
            replica: from.get_u64_le(),
            term: from.get_u64_le(),
            leader: from.get_u64_le(),
        });
    }
    Ok(questions)
}

fn decode_answers(from: &[u8], count: usize) -> Result<Vec<bool>> {
    match from.split_first() {
        Some((&VERSION, answers)) if answers.len() == count && answers.iter().all(|answer| *answer < 2) => {
            Ok(answers.iter().map(|answer| *answer == 1).collect())
        }
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
#[path = "confirm_tests.rs"]
mod tests;
