//! Hybrid logical time (Kulkarni et al., "Logical Physical Clocks", 2014): wall milliseconds with
//! a counter, never going back, merged from every message. Pure: the wall clock is an argument.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A remote time further ahead of the own clock than this is refused.
pub const MAX_AHEAD_MS: u64 = 10_000;

/// 48 bits of Unix milliseconds, 16 bits of counter; ordered as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HybridTime(pub u64);

impl HybridTime {
    /// The first instant of a millisecond.
    pub fn from_ms(unix_ms: u64) -> Self {
        HybridTime(unix_ms << 16)
    }

    /// Unix milliseconds of this time.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next time after `self` that is not below the wall clock.
    #[must_use]
    pub fn tick(self, wall_ms: u64) -> Self {
        HybridTime((self.0 + 1).max(Self::from_ms(wall_ms).0))
    }

    /// Whether this time, received from elsewhere, is too far ahead of the own clock to be merged.
    pub fn too_far_ahead(self, wall_ms: u64) -> bool {
        self.ms() > wall_ms.saturating_add(MAX_AHEAD_MS)
    }
}

impl fmt::Display for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & 0xFFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ticks_always_rise_and_follow_the_wall(last in 0u64..u64::MAX / 2, wall in 0u64..1 << 46) {
            let next = HybridTime(last).tick(wall);
            prop_assert!(next > HybridTime(last));
            prop_assert!(next.ms() >= wall);
        }
    }

    #[test]
    fn ten_seconds_ahead_is_the_limit() {
        assert!(!HybridTime::from_ms(11_000).too_far_ahead(1_000));
        assert!(HybridTime::from_ms(11_001).too_far_ahead(1_000));
    }
}
