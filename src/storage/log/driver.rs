//! What makes the log's core run: a thread of its own, or, where threads run inline, a task. Both
//! do the same steps.

use super::core::LogCore;
use super::queue::Taken;
use crate::clock::{self, Instant, ThreadKind, Threads};
use std::time::Duration;

/// Starts the log.
pub(super) fn start(core: LogCore, threads: &dyn Threads) {
    if threads.inline() {
        drop(clock::spawn(run_task(core)));
    } else {
        threads.run(ThreadKind::Log, Box::new(move || run_thread(core)));
    }
}

/// Keeps syncs apart while several requests share each: a sync costs the same for one as for
/// many. Whoever is alone never waits.
struct Spacing {
    spacing: Duration,
    not_before: Option<Instant>,
}

impl Spacing {
    fn of(core: &LogCore) -> Self {
        Spacing { spacing: core.config.sync_spacing, not_before: None }
    }

    /// A write of all this begins.
    fn begins(&mut self, taken: &Taken) {
        self.not_before = (taken.ops.len() > 1).then(|| Instant::now() + self.spacing);
    }
}

/// One step; `false` after the last.
fn step(core: &mut LogCore, taken: Taken) -> bool {
    let closed = taken.closed;
    if taken.ops.is_empty() && !closed {
        core.idle();
    } else {
        core.commit(taken);
    }
    if closed {
        core.finish();
        return false;
    }
    core.maintain();
    true
}

fn run_thread(mut core: LogCore) {
    let shared = core.shared.clone();
    let mut spacing = Spacing::of(&core);
    loop {
        let taken = shared.queue.take_blocking(core.patience(), spacing.not_before);
        spacing.begins(&taken);
        if !step(&mut core, taken) {
            return;
        }
    }
}

async fn run_task(mut core: LogCore) {
    let shared = core.shared.clone();
    let mut spacing = Spacing::of(&core);
    loop {
        match core.patience() {
            None => shared.queue.filled().await,
            Some(Duration::ZERO) => {}
            // Whether it filled or time passed is seen by what is taken.
            Some(patience) => drop(clock::timeout(patience, shared.queue.filled()).await),
        }
        if let Some(at) = spacing.not_before {
            clock::sleep_until(at).await;
        }
        let lag = core.segments.lag();
        if !lag.is_zero() {
            clock::sleep(lag).await;
        }
        // Let every task that is ready put its request in: they share the sync.
        tokio::task::yield_now().await;
        let taken = shared.queue.take();
        spacing.begins(&taken);
        if !step(&mut core, taken) {
            return;
        }
    }
}
