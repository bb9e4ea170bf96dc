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
use std::sync::{Arc, Mutex, PoisonError};

/// Which directions are cut now. turmoil refuses a connection through a cut at once; a real
/// network says nothing, so [`SimNetwork`] looks here and says nothing either.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    cut: Arc<Mutex<BTreeSet<(IpAddr, IpAddr)>>>,
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
}
