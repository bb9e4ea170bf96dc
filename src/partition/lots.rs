//! Lots: the small answers of one batch to one session, in one row. In: numbers with encoded answers.
//! Out: a row's value, and what is in it. Persisted; the bytes are pinned by a test. Pure.
//!
//! version (1) | per answer: number (8) | length (2) | answer. Little-endian; in the order in which the
//! writes were executed.

use crate::error::{Code, Error, Result};
use bytes::{Buf, BufMut, Bytes};

const VERSION: u8 = 1;

/// An answer of more bytes has a row of its own.
pub(super) const LARGEST: usize = 256;

/// A lot that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lot {
    /// Answers in it that are not forgotten yet; with the last one it goes.
    pub(super) left: usize,
    /// Its row's bytes.
    pub(super) bytes: usize,
}

/// A lot that is being filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenLot {
    first: u64,
    lowest: u64,
    count: usize,
    row: Vec<u8>,
}

impl OpenLot {
    /// A lot that begins with this number, by which its row is called.
    pub(super) fn new(first: u64) -> Self {
        OpenLot { first, lowest: first, count: 0, row: vec![VERSION] }
    }

    /// The number that it began with.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The lowest number in it.
    pub(super) fn lowest(&self) -> u64 {
        self.lowest
    }

    /// Adds an answer of at most [`LARGEST`] bytes.
    pub(super) fn add(&mut self, number: u64, answer: &[u8]) {
        self.lowest = self.lowest.min(number);
        self.count += 1;
        self.row.put_u64_le(number);
        self.row.put_u16_le(answer.len() as u16);
        self.row.put_slice(answer);
    }

    /// The row as it is by now.
    pub(super) fn so_far(&self) -> &[u8] {
        &self.row
    }

    /// First number, answers, and the row.
    pub(super) fn finish(self) -> (u64, usize, Bytes) {
        (self.first, self.count, self.row.into())
    }
}

fn answers(row: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = row.strip_prefix(&[VERSION]).unwrap_or_default();
    std::iter::from_fn(move || {
        let number = rest.try_get_u64_le().ok()?;
        let length = usize::from(rest.try_get_u16_le().ok()?);
        let (answer, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some((number, answer))
    })
}

/// Refuses a row that is not a lot, whole, as it is written here.
///
/// # Errors
/// `UnknownFormat`, `CorruptRow`.
pub(super) fn check(row: &[u8]) -> Result<()> {
    if row.first() != Some(&VERSION) {
        let what = format!("a row of kept answers has format version {:?}", row.first());
        return Err(Error::new(Code::UnknownFormat, what));
    }
    let read: usize = 1 + answers(row).map(|(_, answer)| 10 + answer.len()).sum::<usize>();
    if read != row.len() {
        let what = format!("a row of kept answers ends early: {read} of {} bytes can be read", row.len());
        return Err(Error::new(Code::CorruptRow, what));
    }
    Ok(())
}

/// The numbers in a lot.
pub(super) fn numbers(row: &[u8]) -> impl Iterator<Item = u64> {
    answers(row).map(|(number, _)| number)
}

/// A number's answer; `None` when the row does not hold it.
pub(super) fn find(row: &[u8], number: u64) -> Option<Bytes> {
    answers(row).find(|(found, _)| *found == number).map(|(_, answer)| Bytes::copy_from_slice(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lot_has_golden_bytes() {
        let mut lot = OpenLot::new(7);
        lot.add(7, b"one");
        lot.add(3, b"");
        assert_eq!((lot.first(), lot.lowest(), find(lot.so_far(), 7)), (7, 3, Some(Bytes::from_static(b"one"))));
        let (first, count, row) = lot.finish();
        assert_eq!((first, count), (7, 2));
        assert_eq!(&row[..], b"\x01\x07\0\0\0\0\0\0\0\x03\0one\x03\0\0\0\0\0\0\0\0\0");
    }

    proptest! {
        #[test]
        fn everything_is_found(answers: std::collections::BTreeMap<u64, Vec<u8>>, garbage: Vec<u8>) {
            let mut lot = OpenLot::new(9);
            answers.iter().for_each(|(number, answer)| lot.add(*number, answer));
            let (_, count, row) = lot.finish();
            prop_assert_eq!(count, answers.len());
            prop_assert!(numbers(&row).eq(answers.keys().copied()));
            for (number, answer) in &answers {
                prop_assert_eq!(find(&row, *number), Some(Bytes::copy_from_slice(answer)));
            }
            prop_assert_eq!(check(&row), Ok(()));
            let ends: Vec<usize> = answers.values().scan(1, |at, answer| { *at += 10 + answer.len(); Some(*at) }).collect();
            for length in 0..row.len() {
                prop_assert_eq!(check(&row[..length]).is_ok(), length == 1 || ends.contains(&length), "{}", length);
            }
            let _ = (numbers(&garbage).count(), check(&garbage));
        }
    }
}
