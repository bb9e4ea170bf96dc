//! Job tasks, as requests, rows and answers name them. A job is a row of the partition in whose
//! key's slot it was started; its id begins with that slot.

use super::{NodeId, Slot, TaskPayload};
use crate::error::Error;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A job task: the slot in the upper 16 bits, a random number below. Shown as 16 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl JobId {
    /// The job of a slot with this random number.
    pub fn new(slot: Slot, random: u64) -> Self {
        JobId(u64::from(slot.0) << 48 | (random >> 16).max(1))
    }

    /// The slot that it was started in.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> 48) as u16)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for JobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(JobId)
    }
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a place on its leader's peer, or for a leader whose peer carries it: its text says so.
    Queued,
    /// Runs.
    Running,
    /// Ended with an answer.
    Done,
    /// Ended with an error.
    Failed,
    /// Was cancelled.
    Cancelled,
}

impl JobState {
    /// Whether nothing will change any more.
    pub fn ended(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

/// A job task, as its partition keeps it. Times are the partition's, Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// Which.
    pub id: JobId,
    /// The registered name.
    pub name: String,
    /// The key that it was started by.
    pub key: Bytes,
    /// What it is given.
    pub payload: TaskPayload,
    /// How it stands.
    pub state: JobState,
    /// How often it was begun.
    pub attempt: u32,
    /// The peer on which it was begun last.
    pub node: Option<NodeId>,
    /// How far it is, in thousandths, as it says itself.
    pub permille: u16,
    /// What it says of its progress.
    pub text: String,
    /// When it was started.
    pub submitted_ms: u64,
    /// When it was begun last; 0 before.
    pub begun_ms: u64,
    /// When it ended; 0 before.
    pub ended_ms: u64,
    /// When it is over whatever it does.
    pub deadline_ms: u64,
    /// Somebody has asked it to end.
    pub cancelling: bool,
    /// What came of it.
    pub outcome: Option<Result<TaskPayload, Error>>,
}

/// A step in a job's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStep {
    /// Keeps a new job; gives the one that is there, if it is.
    Start {
        /// The registered name.
        name: String,
        /// The key.
        key: Bytes,
        /// What it is given.
        payload: TaskPayload,
        /// How long it may take in all, in milliseconds.
        time_ms: u64,
    },
    /// An attempt begins on a node.
    Begin {
        /// The attempt, from 1.
        attempt: u32,
        /// The node.
        node: NodeId,
    },
    /// An attempt says how far it is.
    Report {
        /// The attempt.
        attempt: u32,
        /// How far, in thousandths.
        permille: u16,
        /// In words.
        text: String,
    },
    /// An attempt has ended.
    End {
        /// The attempt.
        attempt: u32,
        /// What came of it.
        outcome: Result<TaskPayload, Error>,
    },
    /// Its leader's peer does not carry it, others do: it waits for one of them.
    Wait {
        /// The attempt that was begun last.
        attempt: u32,
        /// Who carries it.
        text: String,
    },
    /// Asks it to end.
    Cancel,
    /// Reads it.
    Get,
    /// Reads all jobs of the partition.
    List,
    /// Forgets jobs of the partition that ended long ago.
    Forget,
}
