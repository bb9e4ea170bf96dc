//! What the clients of real peers asked and were told, in the order of real time.
//!
//! An invocation is noted before the request leaves, an outcome after the answer came: so an operation's
//! true moment lies between its two places in the order. The same [`Operation`]s as the simulator's, for
//! the same [`crate::checks`].

use crate::history::{Action, Operation, Outcome};
use keystead::clock::Instant;
use keystead::types::AckLevel;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct Noted {
    operations: Vec<Operation>,
    order: u64,
}

/// A record. Clones note into the same.
#[derive(Clone, Debug)]
pub struct Record {
    noted: Arc<Mutex<Noted>>,
    begun: Instant,
}

impl Default for Record {
    fn default() -> Self {
        Record { noted: Arc::default(), begun: Instant::now() }
    }
}

impl Record {
    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client asks. Until told otherwise the outcome is unknown.
    pub fn invoke(&self, client: u32, key: &str, action: Action) -> usize {
        let at = self.begun.elapsed();
        let mut noted = self.noted();
        noted.order += 1;
        let operation = Operation {
            client,
            key: key.to_owned(),
            action,
            invoked: noted.order,
            returned: u64::MAX,
            outcome: Outcome::Unknown,
            at,
            levels: (AckLevel::MajorityFsync, None),
        };
        noted.operations.push(operation);
        noted.operations.len() - 1
    }

    /// How it ended; an acknowledgement names its level.
    pub fn end(&self, operation: usize, outcome: Outcome, level: Option<AckLevel>) {
        let mut noted = self.noted();
        noted.order += 1;
        let order = noted.order;
        if let Some(operation) = noted.operations.get_mut(operation) {
            operation.returned = if outcome == Outcome::Unknown { u64::MAX } else { order };
            operation.outcome = outcome;
            operation.levels.1 = level;
        }
    }

    /// The present place in the order of all events.
    pub fn mark(&self) -> u64 {
        self.noted().order
    }

    /// All operations so far, in the order of invocation.
    pub fn operations(&self) -> Vec<Operation> {
        self.noted().operations.clone()
    }
}
