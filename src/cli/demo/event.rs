//! One event of the demo, and the window that it asks about.

/// Length of a sub-window, in seconds.
pub(super) const BUCKET_SECONDS: i64 = 3600;
/// Sub-windows of the window: a week.
pub(super) const BUCKETS: u32 = 7 * 24;

/// A purchase or a return of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its row in the input, from 1.
    pub(super) row: u64,
    /// Whose it is: the key.
    pub(super) customer: String,
    /// When it happened, Unix seconds.
    pub(super) time_s: i64,
    /// What it adds, in pence; negative for a return.
    pub(super) pence: i64,
}

impl Event {
    /// The sub-window it falls into.
    pub(super) fn bucket(&self) -> i64 {
        self.time_s.div_euclid(BUCKET_SECONDS)
    }
}
