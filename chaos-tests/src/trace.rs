//! What happened in a run, in order: the thing that must be identical when a seed is run again.
//!
//! In: events from clients, nemesis, network and observers, on the simulation's thread. Out: a
//! digest over all of them, and their text if wanted. An event never carries anything that
//! depends on the machine (addresses, wall time, hash order).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

/// How many of the last lines are kept when the whole text is not wanted.
const LAST_LINES: usize = 60;

/// How much text to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The last lines, for the report of a failure.
    Last,
    /// Everything, each network write included.
    All,
}

struct Trace {
    keep: Keep,
    now: Duration,
    events: u64,
    digest: Xxh3,
    lines: VecDeque<String>,
}

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// A finished trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Digest over all events.
    pub digest: u64,
    /// How many there were.
    pub events: u64,
    /// Their text, as far as kept.
    pub lines: Vec<String>,
}

/// Starts this thread's trace anew.
pub fn start(keep: Keep) {
    let trace =
        Trace { keep, now: Duration::ZERO, events: 0, digest: Xxh3::new(), lines: VecDeque::with_capacity(LAST_LINES) };
    TRACE.with(|current| *current.borrow_mut() = Some(trace));
}

/// Ends this thread's trace; `None` if none was started.
pub fn finish() -> Option<Summary> {
    let trace = TRACE.with(|current| current.borrow_mut().take())?;
    Some(Summary { digest: trace.digest.digest(), events: trace.events, lines: trace.lines.into() })
}

/// Tells the time between the simulation's steps, when no host runs that could be asked.
pub fn set_now(now: Duration) {
    with(|trace| trace.now = now);
}

/// The simulation's time: the running host's, else what [`set_now`] said last.
pub fn now() -> Duration {
    let told = TRACE.with(|current| current.borrow().as_ref().map_or(Duration::ZERO, |trace| trace.now));
    turmoil::sim_elapsed().unwrap_or(told)
}

/// Records an event worth a line.
pub fn event(who: &str, what: fmt::Arguments<'_>) {
    let now = now();
    with(|trace| {
        let line = format!("{:>12.6} {who} {what}", now.as_secs_f64());
        trace.add(&line);
        if trace.keep == Keep::Last && trace.lines.len() == LAST_LINES {
            trace.lines.pop_front();
        }
        trace.lines.push_back(line);
    });
}

/// Records a frequent event: into the digest always, into the text only when all is kept.
pub fn detail(who: &str, what: &str, number: u64) {
    let now = now();
    with(|trace| {
        trace.digest.update(&(now.as_nanos() as u64).to_le_bytes());
        trace.digest.update(who.as_bytes());
        trace.digest.update(what.as_bytes());
        trace.digest.update(&number.to_le_bytes());
        trace.events += 1;
        if trace.keep == Keep::All {
            trace.lines.push_back(format!("{:>12.6} {who} {what} {number}", now.as_secs_f64()));
        }
    });
}

fn with(work: impl FnOnce(&mut Trace)) {
    TRACE.with(|current| {
        if let Some(trace) = current.borrow_mut().as_mut() {
            work(trace);
        }
    });
}

impl Trace {
    fn add(&mut self, line: &str) {
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
        self.events += 1;
    }
}

/// Records an event with `format!`'s syntax: `trace!("n1", "crashed at {offset}")`.
#[macro_export]
macro_rules! event {
    ($who:expr, $($what:tt)*) => { $crate::trace::event($who, format_args!($($what)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(keep: Keep, events: &[&str]) -> Summary {
        start(keep);
        set_now(Duration::from_micros(1_500_000));
        events.iter().for_each(|what| crate::event!("n1", "{what}"));
        detail("n1", "sent", 7);
        finish().expect("started")
    }

    #[test]
    fn the_digest_tells_runs_apart() {
        assert_eq!(record(Keep::Last, &["a", "b"]), record(Keep::Last, &["a", "b"]));
        assert_ne!(record(Keep::Last, &["a", "b"]).digest, record(Keep::Last, &["b", "a"]).digest);
        assert_eq!(record(Keep::Last, &["a"]).digest, record(Keep::All, &["a"]).digest, "whatever is kept");
    }

    #[test]
    fn lines_carry_time_and_origin() {
        assert_eq!(record(Keep::All, &["a"]).lines, ["    1.500000 n1 a", "    1.500000 n1 sent 7"]);
        assert_eq!(record(Keep::Last, &["a"]).lines, ["    1.500000 n1 a"]);
        assert!(record(Keep::Last, &["a"; 500]).lines.len() <= LAST_LINES);
        assert_eq!(finish(), None, "finished before");
    }
}
