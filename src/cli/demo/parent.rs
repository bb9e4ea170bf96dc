//! Tells a child that its parent is gone: the parent holds the other end of the child's standard
//! input and never writes, so the end of input is the end of the parent, however it came about.

use crate::clock::{ThreadKind, Threads};
use std::io::Read;
use tokio::sync::oneshot;

/// Ends when standard input does. The thread that waits for it is never joined: it ends with the
/// process.
pub(in crate::cli) async fn parent_gone(threads: &dyn Threads) {
    let (sender, gone) = oneshot::channel::<()>();
    threads.run(ThreadKind::Backend, Box::new(move || wait_for_end(std::io::stdin(), sender)));
    // An error says that the thread has ended: for us that is the same.
    drop(gone.await);
}

fn wait_for_end(mut input: impl Read, gone: oneshot::Sender<()>) {
    let mut buffer = [0; 64];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => break,
            _ => {}
        }
    }
    drop(gone.send(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_input_is_reported_and_what_is_written_is_not() {
        let (sender, mut gone) = oneshot::channel();
        wait_for_end(&b"some words"[..], sender);
        assert_eq!(gone.try_recv(), Ok(()));
    }
}
