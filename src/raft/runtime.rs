//! openraft's view of time and tasks: the node's own (see `clock`), so that the simulator can
//! pause a node and freeze its clock, openraft included.

use crate::clock;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use std::future::Future;
use std::time::Duration;

/// Tokio's channels and mutexes with the node's tasks and clock.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl openraft::async_runtime::Instant for clock::Instant {
    fn now() -> Self {
        clock::Instant::now()
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: Send + 'static> = clock::JoinHandle<T>;
    type Sleep = clock::Sleep;
    type Instant = clock::Instant;
    type TimeoutError = clock::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = clock::Timeout<T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        clock::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        clock::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        clock::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        clock::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        clock::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Runtime(<TokioRuntime as AsyncRuntime>::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
