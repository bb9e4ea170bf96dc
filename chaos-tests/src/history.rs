//! What the clients of a run asked and were told.
//!
//! In: invocations and outcomes, in the order in which the simulation's one thread executed
//! them; that order is the real-time order that [`crate::checks`] judges by. Out: operations.
//! Nothing here knows the system under test.

use crate::trace;
use keystead::types::AckLevel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a client asked of one key. A value is a number; workloads write each value once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Reads.
    Get,
    /// Writes.
    Put(i64),
    /// Writes if there is nothing.
    PutIfAbsent(i64),
    /// Writes if the present value is the expected one.
    CompareAndSet {
        /// What must be there.
        expected: Option<i64>,
        /// What is then written.
        new: i64,
    },
    /// Writes if there is something.
    Replace(i64),
    /// Writes, and tells what was there.
    GetAndPut(i64),
    /// Deletes.
    Delete,
    /// Deletes if the present value is this one.
    RemoveIf(i64),
    /// Adds; a missing value counts as 0.
    Increment(i64),
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a read: what is there.
    Value(Option<i64>),
    /// Written.
    Written,
    /// The condition did not hold; this is there.
    Refused(Option<i64>),
    /// Written; this was there.
    Replaced(Option<i64>),
    /// Deleted; whether there was something.
    Deleted(bool),
    /// The number after an increment.
    Number(i64),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// With an error that promises that nothing happened and nothing will.
    Refused,
    /// It may have taken effect, may still do so, or never.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Which key.
    pub key: String,
    /// What was asked.
    pub action: Action,
    /// Place of the invocation in the order of all events.
    pub invoked: u64,
    /// Place of the outcome; meaningless while it is unknown.
    pub returned: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Simulated time of the invocation.
    pub at: Duration,
    /// The level that was asked for, and the one that the answer named.
    pub levels: (AckLevel, Option<AckLevel>),
}

impl Action {
    /// Whether it changes nothing.
    pub fn is_read(self) -> bool {
        self == Action::Get
    }
}

impl Operation {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<Answer> {
        match self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Refused | Outcome::Unknown => None,
        }
    }

    /// Whether a change was acknowledged.
    pub fn acknowledged_change(&self) -> bool {
        matches!(self.answer(), Some(Answer::Written | Answer::Replaced(_) | Answer::Deleted(_) | Answer::Number(_)))
    }
}

/// Names an operation of a [`History`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationId(usize);

#[derive(Debug, Default)]
struct Recorded {
    operations: Vec<Operation>,
    order: u64,
}

/// Records operations. Clones record into the same history.
#[derive(Clone, Debug, Default)]
pub struct History {
    recorded: Arc<Mutex<Recorded>>,
}

impl History {
    fn recorded(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client asks. Until told otherwise the outcome is unknown.
    pub fn invoke(&self, client: u32, key: &str, action: Action, level: AckLevel) -> OperationId {
        let mut recorded = self.recorded();
        recorded.order += 1;
        let operation = Operation {
            client,
            key: key.to_owned(),
            action,
            invoked: recorded.order,
            returned: u64::MAX,
            outcome: Outcome::Unknown,
            at: trace::now(),
            levels: (level, None),
        };
        let id = OperationId(recorded.operations.len());
        crate::event!(&format!("c{client}"), "{} {key} {action:?}", id.0);
        recorded.operations.push(operation);
        id
    }

    /// The client got an answer, which for a write names its level.
    pub fn answered(&self, id: OperationId, answer: Answer, level: Option<AckLevel>) {
        self.end(id, Outcome::Answered(answer), level);
    }

    /// The client got an error after which nothing can have happened.
    pub fn refused(&self, id: OperationId) {
        self.end(id, Outcome::Refused, None);
    }

    /// The client gave up, or was told that nobody knows.
    pub fn unknown(&self, id: OperationId) {
        self.end(id, Outcome::Unknown, None);
    }

    fn end(&self, id: OperationId, outcome: Outcome, level: Option<AckLevel>) {
        let mut recorded = self.recorded();
        recorded.order += 1;
        let order = recorded.order;
        let operation = &mut recorded.operations[id.0];
        operation.returned = if outcome == Outcome::Unknown { u64::MAX } else { order };
        operation.outcome = outcome;
        operation.levels.1 = level;
        crate::event!(&format!("c{}", operation.client), "{} -> {outcome:?}", id.0);
    }

    /// The present place in the order of all events.
    pub fn mark(&self) -> u64 {
        self.recorded().order
    }

    /// All operations so far, in the order of invocation.
    pub fn operations(&self) -> Vec<Operation> {
        self.recorded().operations.clone()
    }
}
