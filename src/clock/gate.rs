//! The gate round a node: while it is shut, no task of the node is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Handle of a spawned task.
pub type JoinHandle<T> = tokio::task::JoinHandle<T>;

tokio::task_local! {
    static GATE: Arc<Gate>;
}

#[derive(Default)]
struct GateState {
    shut: bool,
    /// Set while the clock is to stand still: the tokio time at which it stopped.
    frozen_at: Option<tokio::time::Instant>,
    /// How long the clock has stood still in all.
    behind: Duration,
    waiting: Vec<Waker>,
}

/// Holds back a node's tasks, and if asked its clock. Only the simulator makes one.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the node: nothing spawned inside the gate runs until [`Gate::open`]. With
    /// `freeze_clock` the node's monotonic clock stands still meanwhile.
    pub fn shut(&self, freeze_clock: bool) {
        let mut state = self.state();
        state.shut = true;
        if freeze_clock && state.frozen_at.is_none() {
            state.frozen_at = Some(tokio::time::Instant::now());
        }
    }

    /// Lets the node run again.
    pub fn open(&self) {
        let wakers = {
            let mut state = self.state();
            state.shut = false;
            if let Some(since) = state.frozen_at.take() {
                state.behind += since.elapsed();
            }
            std::mem::take(&mut state.waiting)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Runs a future, and everything it spawns through [`spawn`], behind this gate.
    pub async fn run<F: Future>(self: Arc<Self>, future: F) -> F::Output {
        let gated = Gated { gate: self.clone(), future: Box::pin(future) };
        GATE.scope(self, gated).await
    }

    /// Waits until the gate is open.
    pub async fn opened(&self) {
        std::future::poll_fn(|context| self.poll_open(context)).await;
    }

    /// Ready while the gate is open; else the task is woken when it opens.
    pub fn poll_open(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.shut {
            state.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// How far the node's clock is behind tokio's.
    pub(super) fn behind(&self) -> Duration {
        let state = self.state();
        state.behind + state.frozen_at.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The gate of the running task, if any.
    pub fn current() -> Option<Arc<Gate>> {
        GATE.try_with(Arc::clone).ok()
    }
}

struct Gated<F> {
    gate: Arc<Gate>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        std::task::ready!(this.gate.poll_open(context));
        this.future.as_mut().poll(context)
    }
}

/// Spawns a task; inside a gate, the task is behind the same gate.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match Gate::current() {
        None => tokio::spawn(future),
        Some(gate) => tokio::spawn(gate.run(future)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn a_shut_gate_holds_tasks_and_a_frozen_clock() {
        let gate = Gate::new();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let node = gate.clone().run(async move {
            spawn(async move {
                let start = Instant::now();
                loop {
                    sleep(Duration::from_millis(10)).await;
                    if sender.send(Instant::now() - start).is_err() {
                        return;
                    }
                }
            })
            .await
        });
        let node = tokio::spawn(node);
        assert_eq!(receiver.recv().await, Some(Duration::from_millis(10)));
        gate.shut(true);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(receiver.try_recv().is_err(), "a task ran behind a shut gate");
        gate.open();
        let after = receiver.recv().await.expect("runs again");
        assert!(after < Duration::from_millis(30), "the frozen clock went on: {after:?}");
        node.abort();
    }
}
