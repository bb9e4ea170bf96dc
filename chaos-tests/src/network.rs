//! The network between simulated nodes: streams and gossip datagrams over turmoil.
//!
//! In: the calls of `keystead::net::Network` and chitchat's `Transport`. Out: turmoil's sockets,
//! held still while the node's gate is shut. A stream is never repaired: bytes that a partition
//! swallowed leave it stalled, as turmoil does not retransmit.

mod datagrams;
mod streams;

pub use datagrams::{DatagramLoss, SimTransport};
pub use streams::SimNetwork;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Which directions are cut now. turmoil refuses a connection through a cut at once; a real
/// network says nothing, so [`SimNetwork`] looks here and says nothing either.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    cut: Arc<Mutex<BTreeSet<(IpAddr, IpAddr)>>>,
    held: Arc<Mutex<Held>>,
}

/// Directions in which streams stand still while datagrams pass.
#[derive(Debug, Default)]
struct Held {
    directions: BTreeSet<(IpAddr, IpAddr)>,
    waiting: Vec<Waker>,
}

impl Cuts {
    /// Marks one direction as cut or whole.
    pub fn set(&self, from: IpAddr, to: IpAddr, cut: bool) {
        let mut all = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if cut {
            all.insert((from, to));
        } else {
            all.remove(&(from, to));
        }
    }

    /// Whether nothing can go there and back.
    fn between(&self, from: IpAddr, to: IpAddr) -> bool {
        let all = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        all.contains(&(from, to)) || all.contains(&(to, from))
    }

    /// Whether streams stand still in one of the directions.
    fn holds(&self, from: IpAddr, to: IpAddr) -> bool {
        let held = self.held();
        held.directions.contains(&(from, to)) || held.directions.contains(&(to, from))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what streams carry in one direction back, or lets it go on. Nothing of it is lost, as
    /// where TCP sends again; datagrams pass.
    pub fn hold(&self, from: IpAddr, to: IpAddr, hold: bool) {
        let mut held = self.held();
        if hold {
            held.directions.insert((from, to));
        } else {
            held.directions.remove(&(from, to));
        }
        let waiting = std::mem::take(&mut held.waiting);
        drop(held);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready unless what comes from there is held back; then the task is woken by a change.
    fn poll_free(&self, from: IpAddr, to: IpAddr, context: &Context<'_>) -> Poll<()> {
        let mut held = self.held();
        if !held.directions.contains(&(from, to)) {
            return Poll::Ready(());
        }
        held.waiting.push(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn what_is_held_goes_on_later() {
        let (cuts, [a, b]) = (Cuts::default(), [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))));
        let context = Context::from_waker(Waker::noop());
        assert!(cuts.poll_free(a, b, &context).is_ready());
        cuts.hold(a, b, true);
        assert!(cuts.poll_free(a, b, &context).is_pending() && cuts.poll_free(b, a, &context).is_ready());
        assert!(cuts.holds(b, a), "no connection is made meanwhile");
        assert_eq!(cuts.held().waiting.len(), 1);
        cuts.hold(a, b, false);
        assert!(cuts.poll_free(a, b, &context).is_ready() && !cuts.holds(a, b));
        assert!(cuts.held().waiting.is_empty(), "woken");
    }
}
