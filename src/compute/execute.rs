//! Runs one call on the current thread.

use super::inside::Marked;
use super::overlay::Overlay;
use super::registry::Given;
use super::{Registry, TaskContext};
use crate::error::{Code, Error};
use crate::partition::{SlotView, TaskCall, TaskOutcome};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of what ran.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) overruns: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) state_reads: AtomicU64,
}

/// An error without writes.
pub(super) fn failed(error: Error) -> TaskOutcome {
    TaskOutcome { answer: Err(error), writes: Vec::new() }
}

/// Runs a call's handler; a panic ends here.
pub(super) fn execute(
    registry: &Registry,
    view: &dyn SlotView,
    earlier: &Overlay,
    call: &TaskCall,
    max_write_bytes: usize,
    counters: &Counters,
) -> TaskOutcome {
    counters.calls.fetch_add(1, Ordering::Relaxed);
    let (handler, example) = match registry.in_turn(&call.name, call.last_slot.is_some()) {
        Ok(found) => found,
        Err(error) => return failed(error),
    };
    let mut context = TaskContext::new(view, earlier, call, max_write_bytes);
    let result = {
        let _marked = Marked::new();
        // The context is dropped unread after a panic, so that no half-made state is seen.
        let given = Given { name: &call.name, example, payload: &call.payload };
        catch_unwind(AssertUnwindSafe(|| handler(&mut context, &given)))
    };
    counters.state_reads.fetch_add(context.reads(), Ordering::Relaxed);
    match result {
        Ok(Ok(answer)) => TaskOutcome { answer: Ok(answer), writes: context.into_writes() },
        Ok(Err(error)) => failed(error.into_error(&call.name)),
        Err(panic) => {
            counters.panics.fetch_add(1, Ordering::Relaxed);
            failed(panicked(&call.name, panic.as_ref()))
        }
    }
}

/// What a panic of user code is to the caller.
pub(super) fn panicked(task: &str, panic: &(dyn Any + Send)) -> Error {
    let message = panic_message(panic);
    tracing::error!(task, message, "a task panicked; nothing that it wrote takes effect");
    Error::new(Code::TaskPanicked, format!("the handler panicked: {message}")).at(format!("task {task}"))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}
