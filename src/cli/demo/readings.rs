//! The peers' own counts of how tasks read state: beside it, or over the network.

use crate::cli::local::Peers;

/// Names of the counters: reads over the network, local reads.
pub(super) const READ_COUNTERS: [&str; 2] =
    ["keystead_task_state_reads_remote_total", "keystead_task_state_reads_local_total"];

/// Rows of state that tasks have read; `None` if a peer did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StateReads {
    /// Over the network.
    pub(super) remote: Option<u64>,
    /// Locally.
    pub(super) local: Option<u64>,
}

impl StateReads {
    /// From the counters, in the order of [`READ_COUNTERS`].
    pub(super) fn from_counters([remote, local]: [Option<u64>; 2]) -> Self {
        StateReads { remote, local }
    }

    fn plus(self, other: StateReads) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        StateReads { remote: sum(self.remote, other.remote), local: sum(self.local, other.local) }
    }

    /// What came on top of an earlier reading.
    pub(super) fn since(self, earlier: StateReads) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        StateReads { remote: difference(self.remote, earlier.remote), local: difference(self.local, earlier.local) }
    }

    /// Nothing read: where a sum begins.
    pub(super) fn none() -> Self {
        StateReads { remote: Some(0), local: Some(0) }
    }

    /// The sum over the peers that live and `others`, what a killed peer had read.
    pub(super) async fn sum(peers: &Peers, others: StateReads) -> Self {
        let mut sum = others;
        for name in peers.alive() {
            sum = sum.plus(StateReads::from_counters(peers.counters(&name, READ_COUNTERS).await));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_is_not_zero() {
        let all = StateReads::from_counters([Some(0), Some(5)]);
        assert_eq!(all.plus(all), StateReads { remote: Some(0), local: Some(10) });
        assert_eq!(all.plus(StateReads::default()), StateReads::default());
        assert_eq!(all.since(StateReads::none()), all);
        assert_eq!(StateReads::from_counters([Some(3), Some(9)]).since(all).local, Some(4));
        assert_eq!(all.since(StateReads::default()), StateReads::default());
    }
}
