//! The node's monotonic clock: tokio's, less the time for which a [`Gate`] froze it.

use super::gate::Gate;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A point of the node's monotonic time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(tokio::time::Instant);

fn behind() -> Duration {
    Gate::current().map_or(Duration::ZERO, |gate| gate.behind())
}

impl Instant {
    /// Now.
    pub fn now() -> Self {
        Instant(tokio::time::Instant::now() - behind())
    }

    /// Time since then; zero if it lies ahead.
    pub fn elapsed(self) -> Duration {
        Instant::now().0.saturating_duration_since(self.0)
    }

    /// Time from `earlier` to this; zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Instant) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Instant(self.0 + by)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, by: Duration) {
        self.0 += by;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Instant(self.0 - by)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, by: Duration) {
        self.0 -= by;
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, other: Self) -> Duration {
        self.0.saturating_duration_since(other.0)
    }
}

/// Future of [`sleep`] and [`sleep_until`].
pub struct Sleep {
    deadline: Instant,
    inner: Pin<Box<tokio::time::Sleep>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.inner.as_mut().poll(context));
            let behind = behind();
            if self.deadline.0 + behind <= tokio::time::Instant::now() {
                return Poll::Ready(());
            }
            // The clock stood still meanwhile: wait for the rest.
            let again = self.deadline.0 + behind;
            self.inner.as_mut().reset(again);
        }
    }
}

/// Waits for a while of the node's time.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Waits until a point of the node's time.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, inner: Box::pin(tokio::time::sleep_until(deadline.0 + behind())) }
}

/// The time given to [`timeout`] is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

/// Future of [`timeout`] and [`timeout_at`].
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}

/// Gives a future at most so long.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    timeout_at(Instant::now() + duration, future)
}

/// Gives a future until a point of the node's time.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout { future: Box::pin(future), sleep: sleep_until(deadline) }
}

/// Ticks at a fixed period; a missed tick is not made up for.
pub struct Interval {
    period: Duration,
    next: Instant,
}

impl Interval {
    /// Waits for the next tick.
    pub async fn tick(&mut self) {
        sleep_until(self.next).await;
        self.next = (self.next + self.period).max(Instant::now());
    }
}

/// An interval whose first tick is one period from now.
pub fn interval(period: Duration) -> Interval {
    Interval { period, next: Instant::now() + period }
}
