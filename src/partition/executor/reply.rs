//! Where an executor's answers go: to one caller that waits for this answer, or to a stream that
//! has many requests under way and takes their answers from one channel. A stream's answer costs
//! no allocation, no timer and no waking of its own. Every request is answered exactly once: who
//! drops a stream's without an answer has answered that it was dropped.

use crate::error::Result;
use crate::types::{Reply, Request};
use tokio::sync::{mpsc, oneshot};

/// A stream's request, answered.
#[derive(Debug)]
pub struct Answered {
    /// As the stream numbered it.
    pub ticket: u64,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a stream's request.
#[derive(Debug)]
pub enum Answer {
    /// The reply.
    Done(Reply),
    /// It failed here; the request comes back, so that it can be tried elsewhere.
    Failed(crate::error::Error, Box<Request>),
    /// It was dropped: a write may have taken effect.
    Dropped,
}

/// The place of one request among a stream's answers.
#[derive(Debug)]
pub struct StreamReply {
    ticket: u64,
    /// Bounded by the requests that the stream lets run; `None` once it is answered.
    sender: Option<mpsc::UnboundedSender<Answered>>,
}

impl StreamReply {
    /// The answer to the request of this number goes there.
    pub fn new(ticket: u64, sender: mpsc::UnboundedSender<Answered>) -> Self {
        StreamReply { ticket, sender: Some(sender) }
    }

    /// The request was not taken: nothing is sent.
    pub fn withdraw(mut self) {
        self.sender = None;
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(sender) = self.sender.take() {
            // The stream may have ended; then there is nobody to tell.
            let _ = sender.send(Answered { ticket: self.ticket, answer });
        }
    }
}

impl Drop for StreamReply {
    fn drop(&mut self) {
        self.answer(Answer::Dropped);
    }
}

/// Where an answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To one who waits.
    Caller(oneshot::Sender<Result<Reply>>),
    /// To a stream.
    Stream(StreamReply),
}

impl ReplyTo {
    /// Answers a request. Nobody may be waiting any more; then there is nobody to tell.
    pub fn send(self, outcome: Result<Reply>, request: Request) {
        match self {
            ReplyTo::Caller(sender) => drop(sender.send(outcome)),
            ReplyTo::Stream(mut stream) => stream.answer(match outcome {
                Ok(reply) => Answer::Done(reply),
                Err(error) => Answer::Failed(error, Box::new(request)),
            }),
        }
    }

    /// Whether nobody waits any more.
    pub fn is_closed(&self) -> bool {
        match self {
            ReplyTo::Caller(sender) => sender.is_closed(),
            ReplyTo::Stream(stream) => stream.sender.as_ref().is_none_or(mpsc::UnboundedSender::is_closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};
    use crate::types::{AckLevel, Op, ReadLevel};
    use bytes::Bytes;

    fn request() -> Request {
        let op = Op::Get { map: "m".into(), key: Bytes::new() };
        let (read, ack) = (ReadLevel::Linearizable, AckLevel::default());
        Request { affinity: None, op, read, ack, stamp: None, deadline_ms: 1000 }
    }

    #[test]
    fn a_streams_request_is_answered_once_whatever_becomes_of_it() {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let place = |ticket| ReplyTo::Stream(StreamReply::new(ticket, sender.clone()));
        place(1).send(Err(Error::new(Code::NoLeader, "none")), request());
        drop(place(2));
        StreamReply::new(3, sender.clone()).withdraw();
        let first = answers.try_recv().expect("answered");
        assert!(matches!(first, Answered { ticket: 1, answer: Answer::Failed(error, again) }
            if error.code == Code::NoLeader && *again == request()));
        assert!(matches!(answers.try_recv(), Ok(Answered { ticket: 2, answer: Answer::Dropped })));
        assert!(answers.try_recv().is_err(), "what is withdrawn is not answered");
        let open = place(4);
        assert!(!open.is_closed());
        drop(answers);
        assert!(open.is_closed());
    }
}
