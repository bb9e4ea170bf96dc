//! A fault in one partition holds up no other: a client that asks one partition all the time waits no
//! longer than a quiet grid lets it wait, as long as that partition's leader and a majority with it are
//! whole; and a partition that lost its leader serves again as soon as an election can be over.
//!
//! Source: DESIGN section 1, promise 4; section 5, the target of a failover.

use super::Violation;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a fault leaves of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// The leader, and a majority with it.
    Leader,
    /// A majority, which needs another leader.
    Majority,
    /// Less.
    Minority,
}

impl Left {
    /// What is left when these hosts are struck.
    pub fn of(leader: &str, replicas: &[String], struck: &BTreeSet<String>) -> Left {
        let whole = replicas.iter().filter(|host| !struck.contains(*host)).count();
        match whole * 2 > replicas.len() {
            false => Left::Minority,
            true if struck.contains(leader) => Left::Majority,
            true => Left::Leader,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Left::Leader => "gap of a partition that was not struck",
            Left::Majority => "gap of a partition whose leader was struck",
            Left::Minority => "gap from the mending on of a partition without a majority",
        }
    }
}

/// The answers of a partition to its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which partition.
    pub partition: u32,
    /// What the fault leaves of it.
    pub left: Left,
    /// When the client was answered, ascending.
    pub answers: Vec<Duration>,
}

/// When the fault strikes, when it is mended, and when the clients stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The fault begins.
    pub struck: Duration,
    /// It ends.
    pub mended: Duration,
    /// Until here the clients asked.
    pub until: Duration,
}

/// The longest gaps that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Where the leader and a majority are whole.
    pub whole: Duration,
    /// Where another leader is needed, and for those that had no majority from the mending on.
    pub elected: Duration,
}

impl Served {
    /// The longest time without an answer, from the fault on, or from the mending on where no majority
    /// was left before.
    pub fn gap(&self, times: &Times) -> Duration {
        let from = if self.left == Left::Minority { times.mended } else { times.struck };
        let within = self.answers.iter().copied().filter(|at| (from..times.until).contains(at));
        let ends = within.clone().chain([times.until]);
        let begins = [from].into_iter().chain(within);
        ends.zip(begins).map(|(end, begin)| end.saturating_sub(begin)).max().unwrap_or_default()
    }
}

/// Checks the gaps of all partitions.
pub fn gaps(served: &[Served], times: &Times, bounds: &Bounds) -> Vec<Violation> {
    let bound = |left| if left == Left::Leader { bounds.whole } else { bounds.elected };
    let late = served.iter().filter(|served| served.gap(times) > bound(served.left));
    let violation = |served: &Served| {
        let (gap, bound) = (served.gap(times), bound(served.left));
        let what = format!("partition {}: {} is {gap:?}, allowed is {bound:?}", served.partition, served.left.name());
        Violation { check: "no partition holds up another", what }
    };
    late.map(violation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn found(left: Left, answers: &[u64]) -> usize {
        let times = Times { struck: millis(1000), mended: millis(3000), until: millis(5000) };
        let bounds = Bounds { whole: millis(100), elected: millis(1500) };
        let answers = answers.iter().copied().map(millis).collect();
        gaps(&[Served { partition: 1, left, answers }], &times, &bounds).len()
    }

    fn steadily(silences: &[(u64, u64)]) -> Vec<u64> {
        let silent = |at: &u64| silences.iter().any(|(from, until)| from < at && at < until);
        (0..5100).step_by(50).filter(|at| !silent(at)).collect()
    }

    #[test]
    fn a_steady_partition_passes_whatever_is_left_of_it() {
        for left in [Left::Leader, Left::Majority, Left::Minority] {
            assert_eq!(found(left, &steadily(&[])), 0);
            assert_eq!(found(left, &steadily(&[(300, 800)])), 0, "before the fault");
        }
    }

    #[test]
    fn a_partition_that_is_held_up_is_found() {
        for silence in [(900, 1150), (2000, 2150), (2950, 3150), (4800, 6000)] {
            assert_eq!(found(Left::Leader, &steadily(&[silence])), 1, "{silence:?}");
            assert_eq!(found(Left::Majority, &steadily(&[silence])), 0, "an election may be as long: {silence:?}");
        }
        assert_eq!(found(Left::Leader, &[]), 1, "no answer at all");
    }

    #[test]
    fn an_election_that_takes_too_long_is_found() {
        assert_eq!(found(Left::Majority, &steadily(&[(1000, 2500)])), 0);
        assert_eq!(found(Left::Majority, &steadily(&[(1000, 2600)])), 1);
        assert_eq!(found(Left::Majority, &steadily(&[(3200, 6000)])), 1, "it never comes back");
    }

    #[test]
    fn without_a_majority_the_mending_counts() {
        assert_eq!(found(Left::Minority, &steadily(&[(1000, 4400)])), 0);
        assert_eq!(found(Left::Minority, &steadily(&[(1000, 4600)])), 1);
    }

    #[test]
    fn what_is_left_is_counted() {
        let hosts = ["n1", "n2", "n3"].map(str::to_owned);
        let left = |struck: &[&str]| Left::of("n1", &hosts, &struck.iter().map(|host| (*host).to_owned()).collect());
        assert_eq!((left(&[]), left(&["n4", "n5"]), left(&["n2", "n4"])), (Left::Leader, Left::Leader, Left::Leader));
        assert_eq!((left(&["n1"]), left(&["n1", "n4"])), (Left::Majority, Left::Majority));
        assert_eq!((left(&["n2", "n3"]), left(&["n1", "n2"])), (Left::Minority, Left::Minority));
        let four = ["n1", "n2", "n3", "n4"].map(str::to_owned);
        let half = ["n3", "n4"].map(str::to_owned).into();
        assert_eq!(Left::of("n1", &four, &half), Left::Minority, "a half is no majority");
    }
}
