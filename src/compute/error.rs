//! How a handler fails.

use crate::error::{Code, Error};
use std::fmt;

/// A handler's error: its own, or one of the grid's that it passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// The handler's own; reaches the caller as `TaskFailed`.
    Failed {
        /// A code of the user's choice.
        code: String,
        /// What happened.
        message: String,
    },
    /// An error of the grid, passed on with its code.
    Grid(Error),
}

impl TaskError {
    /// An error of the handler's own.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        TaskError::Failed { code: code.into(), message: message.into() }
    }

    /// As the caller sees it; names the task.
    pub(super) fn into_error(self, task: &str) -> Error {
        let error = match self {
            TaskError::Failed { code, message } => Error::new(Code::TaskFailed, format!("{code}: {message}")),
            TaskError::Grid(error) => error,
        };
        if error.place.is_empty() { error.at(format!("task {task}")) } else { error }
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        TaskError::Grid(error)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Failed { code, message } => write!(f, "{code}: {message}"),
            TaskError::Grid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TaskError {}
