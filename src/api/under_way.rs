//! The requests of one stream that are under way: those that go to a partition's executor here at
//! once, and those that take the long way over the router. In: checked requests, in the stream's
//! order. Out: replies, in the order in which they are ready. A request on the short way that fails
//! goes the long way with the time it has left; one that is not answered in time is answered here.

use super::exchange::Lane;
use super::{DEADLINE_GRACE, Edge};
use crate::clock::{self, Instant};
use crate::error::{Code, Error, Result, Retry};
use crate::node::{Answer, Answered, StreamReply};
use crate::types::{GroupId, Reply, Request};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often requests are looked for that nobody has answered in time.
const LOOK: Duration = Duration::from_millis(100);

/// A request at an executor.
struct Open<T> {
    tag: T,
    is_read: bool,
    group: GroupId,
    give_up: Instant,
}

/// A stream's requests under way.
pub(super) struct UnderWay<L: Lane> {
    edge: Edge,
    long: FuturesUnordered<BoxFuture<'static, (L::Item, usize)>>,
    short: BTreeMap<u64, Open<L::Tag>>,
    answers: mpsc::UnboundedReceiver<Answered>,
    sender: mpsc::UnboundedSender<Answered>,
    next: u64,
    look: Pin<Box<clock::Sleep>>,
}

/// A reply and its size.
fn item<L: Lane>(edge: &Edge, tag: &L::Tag, outcome: Result<Reply>) -> (L::Item, usize) {
    let item = L::item(tag, outcome);
    let bytes = L::size(&item);
    match edge.check_answer(bytes) {
        Ok(()) => (item, bytes),
        Err(error) => (L::item(tag, Err(error)), 0),
    }
}

/// Whether the router would give the same answer.
fn is_final(error: &Error) -> bool {
    error.code.retry() == Retry::Never && !matches!(error.code, Code::NoSuchMap | Code::MemberRemoved)
}

/// What is said of a request that its executor has not answered: what this peer can see of the cause.
fn unanswered<T>(edge: &Edge, open: &Open<T>, what: &str) -> Error {
    match edge.service.trouble(open.group) {
        Some(error) if open.is_read => error,
        Some(error) => error.of_unsure_write(),
        None => Error::new(if open.is_read { Code::DeadlineExceeded } else { Code::OutcomeUnknown }, what),
    }
}

impl<L: Lane> UnderWay<L> {
    /// None yet.
    pub(super) fn new(edge: Edge) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let look = Box::pin(clock::sleep(LOOK));
        UnderWay { edge, long: FuturesUnordered::new(), short: BTreeMap::new(), answers, sender, next: 0, look }
    }

    pub(super) fn len(&self) -> usize {
        self.long.len() + self.short.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins one.
    pub(super) fn begin(&mut self, tag: L::Tag, request: Result<Request>) {
        let request = match request {
            Ok(request) => request,
            Err(error) => return self.go_long(tag, Err(error), false),
        };
        let ticket = self.next;
        self.next += 1;
        let is_read = request.op.is_read();
        let give_up = Instant::now() + Duration::from_millis(request.deadline_ms.into()) + DEADLINE_GRACE;
        match self.edge.submit_here(request, StreamReply::new(ticket, self.sender.clone())) {
            Ok(group) => drop(self.short.insert(ticket, Open { tag, is_read, group, give_up })),
            Err(request) => self.go_long(tag, Ok(*request), false),
        }
    }

    /// `unsure`: a write that went the short way may have reached a log.
    fn go_long(&mut self, tag: L::Tag, request: Result<Request>, unsure: bool) {
        let edge = self.edge.clone();
        let mut going: BoxFuture<'static, (L::Item, usize)> = Box::pin(async move {
            let outcome = match request {
                Ok(request) => edge.execute(request).await,
                Err(error) => Err(error),
            };
            let outcome = outcome.map_err(|error| if unsure { error.of_unsure_write() } else { error });
            item::<L>(&edge, &tag, outcome)
        });
        // It starts here and now: what comes behind it may take the short way.
        self.long.push(match (&mut going).now_or_never() {
            Some(item) => Box::pin(std::future::ready(item)),
            None => going,
        });
    }

    /// The next reply and its size; never without one under way. May be dropped and called again.
    pub(super) async fn next(&mut self) -> (L::Item, usize) {
        loop {
            tokio::select! {
                biased;
                Some(answered) = self.answers.recv() => {
                    if let Some(item) = self.take(answered) {
                        return item;
                    }
                }
                Some(item) = self.long.next(), if !self.long.is_empty() => return item,
                () = &mut self.look => {
                    self.look = Box::pin(clock::sleep(LOOK));
                    if let Some(item) = self.give_up() {
                        return item;
                    }
                }
            }
        }
    }

    /// A reply that is there already.
    pub(super) fn ready(&mut self) -> Option<(L::Item, usize)> {
        while let Ok(answered) = self.answers.try_recv() {
            if let Some(item) = self.take(answered) {
                return Some(item);
            }
        }
        self.long.next().now_or_never().flatten()
    }

    /// What an executor answered, as a reply; `None` when the request goes on.
    fn take(&mut self, answered: Answered) -> Option<(L::Item, usize)> {
        // One that was given up is not there any more.
        let open = self.short.remove(&answered.ticket)?;
        let outcome = match answered.answer {
            Answer::Done(reply) => Ok(reply),
            Answer::Failed(error, _) if is_final(&error) => Err(error),
            Answer::Failed(error, mut request) => {
                let left = open.give_up.saturating_duration_since(Instant::now()).saturating_sub(DEADLINE_GRACE);
                request.deadline_ms = (left.as_millis() as u32).max(1);
                let unsure = !open.is_read && error.code == Code::OutcomeUnknown;
                self.go_long(open.tag, Ok(*request), unsure);
                return None;
            }
            Answer::Dropped => {
                Err(unanswered(&self.edge, &open, "the partition did not answer: it stopped, or had no time left"))
            }
        };
        Some(item::<L>(&self.edge, &open.tag, outcome))
    }

    /// Answers one that has had its time.
    fn give_up(&mut self) -> Option<(L::Item, usize)> {
        let now = Instant::now();
        let ticket = self.short.iter().find(|(_, open)| open.give_up <= now).map(|(ticket, _)| *ticket)?;
        // There may be more: the next look is soon.
        self.look = Box::pin(clock::sleep(Duration::ZERO));
        let open = self.short.remove(&ticket)?;
        let error = unanswered(&self.edge, &open, "no answer within the deadline");
        Some(item::<L>(&self.edge, &open.tag, Err(error)))
    }
}
