//! The peers' own counts of how tasks read state: beside it, or over the network.

use super::peers::Peers;

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

    /// The sum over the peers that live and the one that was killed, as far as it was read.
    pub(super) async fn sum(peers: &Peers, killed: StateReads) -> Self {
        let mut sum = killed;
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
    }
}
