//! Ends a child with its parent: the parent holds the other end of the child's standard input and
//! never writes, so the end of input is the end of the parent, however it came about.

use crate::clock::{ThreadKind, Threads};
use std::io::{ErrorKind, Read, stdin};

/// Exits the process, as a crash would, when standard input ends.
pub(in crate::cli) fn exit_with_parent(threads: &dyn Threads) {
    let wait = || {
        wait_for_end(stdin());
        tracing::warn!("the process that started this peer is gone; the peer stops");
        std::process::exit(1);
    };
    threads.run(ThreadKind::Backend, Box::new(wait));
}

fn wait_for_end(mut input: impl Read) {
    let mut buffer = [0; 64];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives some bytes, is interrupted once, gives more, then fails or ends.
    struct Words(Vec<std::io::Result<usize>>);

    impl Read for Words {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            self.0.pop().unwrap_or(Ok(0))
        }
    }

    #[test]
    fn only_the_end_ends_it() {
        let mut words = Words(vec![Ok(7), Ok(0), Ok(1), Err(ErrorKind::Interrupted.into()), Ok(5)]);
        wait_for_end(&mut words);
        assert_eq!(words.0.len(), 1, "it stops at the first end, not before");
        wait_for_end(Words(vec![Err(ErrorKind::BrokenPipe.into())]));
    }
}
