//! Whether the running code is a task's handler: remote and blocking calls are refused there,
//! since a handler that waits for its own partition would wait for ever.

use crate::error::{Code, Error, Result};
use std::cell::Cell;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is running a task's handler.
pub fn inside_task() -> bool {
    INSIDE.get()
}

/// For calls that must not be made from a handler.
///
/// # Errors
/// `RemoteCallInTask` inside a handler.
pub fn refuse_inside_task(what: &str) -> Result<()> {
    if inside_task() {
        return Err(Error::new(Code::RemoteCallInTask, format!("{what} was called inside a task")));
    }
    Ok(())
}

/// Marks this thread while it lives; a panic unmarks it too.
pub(super) struct Marked {
    before: bool,
}

impl Marked {
    pub(super) fn new() -> Self {
        Marked { before: INSIDE.replace(true) }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}
