//! Time for bounds: it stands still while this whole machine does.
//!
//! A bound of real time would be broken by a machine that was asleep, or that gave this process no
//! processor: nobody's fault. A thread of the runtime's ticks moves this time on, by a quarter of a
//! second at most each, so what was missed does not count. Never used for what is measured.

use keystead::clock::{self, Instant};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(50);
/// The most that one tick counts.
const MOST: Duration = Duration::from_millis(250);

/// The time so far. Clones show the same.
#[derive(Clone, Debug)]
pub struct Pulse {
    passed: Arc<AtomicU64>,
}

impl Pulse {
    /// Begins at zero, and ticks while somebody has a clone.
    pub fn start() -> Pulse {
        let passed = Arc::new(AtomicU64::new(0));
        let shown = Arc::downgrade(&passed);
        clock::spawn(async move {
            let mut last = Instant::now();
            loop {
                clock::sleep(TICK).await;
                let Some(shown) = shown.upgrade() else { return };
                let now = Instant::now();
                shown.fetch_add((now - last).min(MOST).as_millis() as u64, Ordering::Relaxed);
                last = now;
            }
        });
        Pulse { passed }
    }

    /// The time so far.
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.passed.load(Ordering::Relaxed))
    }

    /// Waits until something holds; what it lacks if it does not in so much time.
    ///
    /// # Errors
    /// What `lacks` said last.
    pub async fn until<F: Future<Output = Option<String>>>(
        &self,
        at_most: Duration,
        mut lacks: impl FnMut() -> F,
    ) -> Result<Duration, String> {
        let begun = self.now();
        loop {
            let Some(what) = lacks().await else { return Ok(self.now() - begun) };
            if self.now() - begun > at_most {
                return Err(what);
            }
            clock::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the future gives; `None` if it takes longer.
    pub async fn within<F: Future>(&self, at_most: Duration, future: F) -> Option<F::Output> {
        let until = self.now() + at_most;
        let over = async {
            while self.now() < until {
                clock::sleep(TICK).await;
            }
        };
        tokio::select! {
            biased;
            done = future => Some(done),
            () = over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_was_asleep_costs_one_tick() {
        let pulse = Pulse::start();
        clock::sleep(Duration::from_secs(1)).await;
        let awake = pulse.now();
        assert!(awake > Duration::from_millis(900), "{awake:?}");
        tokio::time::advance(Duration::from_secs(60)).await;
        clock::sleep(TICK).await;
        assert!(pulse.now() < awake + Duration::from_millis(600), "{:?}", pulse.now());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded() {
        let pulse = Pulse::start();
        let lacking = pulse.until(Duration::from_secs(2), || async { Some("rain".to_owned()) }).await;
        assert_eq!(lacking, Err("rain".to_owned()));
        assert!(pulse.until(Duration::from_secs(2), || async { None }).await.is_ok());
        assert_eq!(pulse.within(Duration::from_secs(1), std::future::pending::<()>()).await, None);
        assert_eq!(pulse.within(Duration::from_secs(1), async { 7 }).await, Some(7));
    }
}
