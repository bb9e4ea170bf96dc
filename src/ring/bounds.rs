//! Fair shares by weight under limits, and the bounds on load round them.

/// A node holds at most this percentage of its fair share (rounded up), and at least as much below
/// it (rounded down): measured as the best trade of balance against movement.
pub const LOAD_BOUND_PERCENT: u64 = 110;

/// Shares are counted in millionths of a replica.
const UNIT: u128 = 1_000_000;

/// A node's share of the load and the bounds round it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The fair share in millionths; never 0, so that loads can be compared relative to it.
    pub(super) share: u128,
    /// No node should hold more.
    pub(super) most: usize,
    /// No node should hold less.
    pub(super) least: usize,
}

impl Bounds {
    /// Bounds round a share, never above `limit`.
    pub(super) fn of(share: u128, limit: usize) -> Self {
        let percent = u128::from(LOAD_BOUND_PERCENT);
        let most = (share * percent).div_ceil(100 * UNIT) as usize;
        let least = (share * (200 - percent) / (100 * UNIT)) as usize;
        Bounds { share: share.max(1), most: most.min(limit), least: least.min(limit) }
    }

    /// The fair share rounded up.
    pub(super) fn fair(&self) -> usize {
        self.share.div_ceil(UNIT) as usize
    }
}

/// Divides `total` by weight; nobody gets more than their limit, and what they leave goes to the others.
/// Items are (weight, limit); shares and limits are whole on entry, millionths on return.
pub(super) fn fair_shares(total: usize, items: &[(u64, usize)]) -> Vec<u128> {
    share_millionths(total as u128 * UNIT, items)
}

/// As [`fair_shares`], with the total in millionths.
pub(super) fn share_millionths(total: u128, items: &[(u64, usize)]) -> Vec<u128> {
    let mut shares: Vec<Option<u128>> = vec![None; items.len()];
    let mut left = total;
    loop {
        let open = |shares: &[Option<u128>]| (0..items.len()).filter(|i| shares[*i].is_none()).collect::<Vec<_>>();
        let sharing = open(&shares);
        let weight: u128 = sharing.iter().map(|i| u128::from(items[*i].0)).sum();
        let fair = |i: usize| left * u128::from(items[i].0) / weight.max(1);
        let limit = |i: usize| items[i].1 as u128 * UNIT;
        let limited: Vec<usize> = sharing.iter().copied().filter(|i| fair(*i) > limit(*i)).collect();
        if limited.is_empty() {
            return (0..items.len()).map(|i| shares[i].unwrap_or_else(|| fair(i))).collect();
        }
        let mut taken = 0;
        for i in limited {
            shares[i] = Some(limit(i));
            taken += limit(i);
        }
        left -= taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_limited_node_leaves_goes_to_the_others() {
        assert_eq!(fair_shares(12, &[(1, 12), (1, 12), (1, 12)]), [4 * UNIT; 3]);
        assert_eq!(fair_shares(12, &[(10, 6), (1, 6), (1, 6)]), [6 * UNIT, 3 * UNIT, 3 * UNIT]);
        // Limiting the first pushes the second over its own limit.
        assert_eq!(fair_shares(12, &[(10, 5), (5, 5), (1, 5)]), [5 * UNIT, 5 * UNIT, 2 * UNIT]);
    }

    #[test]
    fn bounds_are_rounded_outwards() {
        let bounds = Bounds::of(21_333_333, 64);
        assert_eq!((bounds.most, bounds.least, bounds.fair()), (24, 19, 22));
        assert_eq!(Bounds::of(64 * UNIT, 64).most, 64);
        assert_eq!(Bounds::of(0, 64), Bounds { share: 1, most: 0, least: 0 });
    }

    proptest! {
        #[test]
        fn shares_respect_limits_and_use_up_the_total(
            items in prop::collection::vec((1u64..20, 0usize..50), 1..12), percent in 0usize..=100,
        ) {
            let room: usize = items.iter().map(|item| item.1).sum();
            let total = room * percent / 100;
            let shares = fair_shares(total, &items);
            for (share, (_, limit)) in shares.iter().zip(&items) {
                prop_assert!(*share <= *limit as u128 * UNIT);
            }
            let sum: u128 = shares.iter().sum();
            prop_assert!(sum <= total as u128 * UNIT);
            prop_assert!(total as u128 * UNIT - sum <= items.len() as u128);
        }
    }
}
