//! Runs one seed in a fresh thread, and judges panics.
//!
//! In: a seed and a scenario. Out: a [`Verdict`]. A seed replays exactly only in a fresh process
//! as well, since some crates draw from counters that all threads share: the binary starts one
//! process per seed.

use crate::checks::Violation;
use crate::{hook, tally, trace};
use std::cell::RefCell;
use std::sync::Once;

/// What the text of a panic that a scenario provokes on purpose contains.
pub const PLANNED_PANIC: &str = "a planned panic";

/// Stack of a simulation's thread.
const STACK_BYTES: usize = 16 << 20;

/// A scenario: runs on a seeded thread with a trace, and returns what is wrong.
pub type Scenario = fn(u64) -> Vec<Violation>;

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What is wrong; empty if it passed.
    pub violations: Vec<Violation>,
    /// The trace.
    pub trace: trace::Summary,
    /// What the run did, in numbers.
    pub counts: tally::Counts,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// The command that runs this seed again and shows its whole trace.
    pub fn replay_command(&self) -> String {
        format!("cargo run -p chaos-tests --release -- simulate --seeds {}..{} --trace", self.seed, self.seed + 1)
    }
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static SIMULATING: RefCell<bool> = const { RefCell::new(false) };
}

/// A task that panics takes nothing else down, so the panic would go unseen: remember it.
fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SIMULATING.with(|simulating| *simulating.borrow()) {
                return others(info);
            }
            let what = info.to_string();
            if !what.contains(PLANNED_PANIC) {
                PANICS.with(|panics| panics.borrow_mut().push(what));
            }
        }));
    });
}

/// Runs a scenario with this seed.
pub fn run(seed: u64, keep: trace::Keep, scenario: Scenario) -> Verdict {
    install_panic_hook();
    let simulation = move || {
        hook::seed_this_thread(seed);
        SIMULATING.with(|simulating| *simulating.borrow_mut() = true);
        trace::start(keep);
        tally::take();
        let result = std::panic::catch_unwind(|| scenario(seed));
        let mut violations = result.unwrap_or_default();
        let panics = PANICS.with(|panics| std::mem::take(&mut *panics.borrow_mut()));
        violations.extend(panics.into_iter().map(|what| Violation { check: "no panic", what }));
        let trace = trace::finish().unwrap_or(trace::Summary { digest: 0, events: 0, lines: Vec::new() });
        Verdict { seed, violations, trace, counts: tally::take() }
    };
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK_BYTES).spawn(simulation);
    thread
        .map_err(|error| error.to_string())
        .and_then(|thread| thread.join().map_err(|_| "the thread died".into()))
        .unwrap_or_else(|what| Verdict {
            seed,
            violations: vec![Violation { check: "runner", what }],
            trace: trace::Summary { digest: 0, events: 0, lines: Vec::new() },
            counts: tally::Counts::new(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(seed: u64) -> Vec<Violation> {
        if seed == 0 {
            return Vec::new();
        }
        let contained = std::panic::catch_unwind(|| panic!("{PLANNED_PANIC}, which passes"));
        assert!(contained.is_err());
        assert!(seed < 2, "a panic that nobody planned");
        Vec::new()
    }

    #[test]
    fn a_panic_fails_the_seed_unless_planned() {
        assert!(run(0, trace::Keep::Last, panics).passed());
        assert!(run(1, trace::Keep::Last, panics).passed());
        let verdict = run(2, trace::Keep::Last, panics);
        assert!(!verdict.passed() && verdict.violations[0].what.contains("nobody planned"), "{verdict:?}");
        assert!(verdict.replay_command().ends_with("simulate --seeds 2..3 --trace"));
    }
}
