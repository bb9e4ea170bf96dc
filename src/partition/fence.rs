//! The fence: which entries take effect. Pure, and decided by the entry and by what travels with
//! the applied index alone, never by rows, so that every replica decides alike, also one that
//! replays onto a fuzzy scan (models A-1, S-2).

use super::entry::{Batch, Marker};
use crate::error::{Code, Error, Result};
use crate::planted::{Bug, planted};
use crate::types::RunId;
use bytes::{BufMut, Bytes, BytesMut};

/// The last marker that took effect, and the number of the last batch after it that did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    run: RunId,
    number: u64,
}

impl Fence {
    /// A marker takes effect if its term is its entry's own.
    pub fn admit_marker(&mut self, entry_term: u64, marker: &Marker) -> bool {
        if marker.term != entry_term {
            return false;
        }
        *self = Fence { run: marker.run, number: 0 };
        true
    }

    /// A batch takes effect if its term is its entry's own, its run the last marker's and its
    /// number the one after the last that took effect.
    pub fn admit_batch(&mut self, entry_term: u64, batch: &Batch) -> bool {
        let of_run = batch.term == entry_term && batch.run == self.run;
        let follows = self.number.checked_add(1) == Some(batch.number) || planted(Bug::SkipBatchNumber);
        if !(of_run && follows || planted(Bug::SkipFencing)) {
            return false;
        }
        self.number = batch.number;
        true
    }

    /// version (1) | run (8) | number (8), little-endian.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(17);
        out.put_u8(1);
        out.put_u64_le(self.run.0);
        out.put_u64_le(self.number);
        out.freeze()
    }

    /// Reads what [`Fence::encode`] wrote.
    ///
    /// # Errors
    /// `UnknownFormat`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = || Error::new(Code::UnknownFormat, format!("a fence of {} bytes cannot be read", bytes.len()));
        let numbers = bytes.strip_prefix(&[1]).filter(|rest| rest.len() == 16).ok_or_else(bad)?;
        let number = |at: usize| numbers[at..at + 8].iter().rev().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
        Ok(Fence { run: RunId(number(0)), number: number(8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(term: u64, run: u64, number: u64) -> Batch {
        Batch { term, run: RunId(run), number, writes: Vec::new() }
    }

    #[test]
    fn only_the_next_batch_of_the_last_run_takes_effect() {
        let mut fence = Fence::default();
        assert!(!fence.admit_batch(1, &batch(1, 7, 1)), "a batch before any marker of its run");
        assert!(fence.admit_marker(1, &Marker { term: 1, run: RunId(7) }));
        assert!(fence.admit_batch(1, &batch(1, 7, 1)));
        assert!(!fence.admit_batch(1, &batch(1, 7, 1)), "a number again");
        assert!(!fence.admit_batch(1, &batch(1, 7, 3)), "a number was left out");
        assert!(!fence.admit_batch(2, &batch(1, 7, 2)), "committed in another term");
        assert!(!fence.admit_marker(2, &Marker { term: 1, run: RunId(8) }), "a marker of another term");
        assert!(fence.admit_batch(1, &batch(1, 7, 2)));
        assert!(fence.admit_marker(1, &Marker { term: 1, run: RunId(9) }));
        assert!(!fence.admit_batch(1, &batch(1, 7, 3)), "a batch of the run before");
        assert!(fence.admit_batch(1, &batch(1, 9, 1)));
    }

    #[test]
    fn the_fence_has_golden_bytes() {
        let fence = Fence { run: RunId(2), number: 258 };
        assert_eq!(&fence.encode()[..], b"\x01\x02\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0");
        assert_eq!(Fence::decode(&fence.encode()), Ok(fence));
        assert!(Fence::decode(b"\x02").is_err());
    }
}
