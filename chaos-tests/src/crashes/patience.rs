//! Waiting, counted in looks and not by the clock: a machine that has no time for this process and its
//! peers, or stops them all for a while, does not use the patience up.

use keystead::clock;
use std::time::Duration;

/// How often something is still looked at.
pub(super) struct Patience {
    left: u64,
    between: Duration,
}

impl Patience {
    /// As many looks as fit into this time.
    pub(super) fn of(time: Duration, between: Duration) -> Patience {
        Patience { left: (time.as_millis() / between.as_millis().max(1)) as u64, between }
    }

    /// Waits for the next look; `false` when there is none.
    pub(super) async fn next(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        clock::sleep(self.between).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_after_so_many_looks() {
        let mut patience = Patience::of(Duration::from_millis(4), Duration::from_millis(1));
        let mut looks = 0;
        while patience.next().await {
            looks += 1;
        }
        assert_eq!(looks, 4);
    }
}
