//! Lots: the small answers of one batch to one session, in one row. In: numbers with encoded answers.
//! Out: a row's value, and what is in it. Persisted; the bytes are pinned by a test. Pure.
//!
//! version (2) | lowest unanswered number (8) | per answer: number (8) | length (2) | answer.
//! Little-endian; in the order in which the writes were executed. Version 1 has no lowest number.

use crate::error::{Code, Error, Result};
use bytes::{Buf, BufMut, Bytes};

const VERSION: u8 = 2;
/// Rows of earlier builds: the answers follow the version.
const WITHOUT_LOWEST: u8 = 1;
const HEADER: usize = 9;

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
        let mut row = vec![0; HEADER];
        row[0] = VERSION;
        OpenLot { first, lowest: first, count: 0, row }
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

    /// First number, answers, and the row, which says which number the session waits for at the lowest.
    pub(super) fn finish(mut self, unanswered_from: u64) -> (u64, usize, Bytes) {
        self.row[1..HEADER].copy_from_slice(&unanswered_from.to_le_bytes());
        (self.first, self.count, self.row.into())
    }
}

/// The bytes behind the header, whose length is the other; `None` of a row of another format.
fn body(row: &[u8]) -> Option<(&[u8], usize)> {
    let header = match *row.first()? {
        VERSION => HEADER,
        WITHOUT_LOWEST => 1,
        _ => return None,
    };
    Some((row.get(header..)?, header))
}

fn answers(row: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = body(row).map_or(&[][..], |(body, _)| body);
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
    if !matches!(row.first(), Some(&VERSION | &WITHOUT_LOWEST)) {
        let what = format!("a row of kept answers has format version {:?}", row.first());
        return Err(Error::new(Code::UnknownFormat, what));
    }
    let header = body(row).map_or(0, |(_, header)| header);
    let read: usize = header + answers(row).map(|(_, answer)| 10 + answer.len()).sum::<usize>();
    if header == 0 || read != row.len() {
        let what = format!("a row of kept answers ends early: {read} of {} bytes can be read", row.len());
        return Err(Error::new(Code::CorruptRow, what));
    }
    Ok(())
}

/// The lowest number that the session waited for when the lot was written; 0 where the row does not say.
pub(super) fn unanswered_from(row: &[u8]) -> u64 {
    let number = row.get(1..HEADER).filter(|_| row[0] == VERSION);
    number.map_or(0, |mut number| number.get_u64_le())
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
        let (first, count, row) = lot.finish(6);
        assert_eq!((first, count, unanswered_from(&row)), (7, 2, 6));
        let answers = b"\x07\0\0\0\0\0\0\0\x03\0one\x03\0\0\0\0\0\0\0\0\0";
        assert_eq!(&row[..], [&b"\x02\x06\0\0\0\0\0\0\0"[..], answers].concat());

        let before = [&b"\x01"[..], answers].concat();
        assert_eq!((check(&before), unanswered_from(&before)), (Ok(()), 0), "rows of earlier builds");
        assert!(numbers(&before).eq([7, 3]));
    }

    proptest! {
        #[test]
        fn everything_is_found(answers: std::collections::BTreeMap<u64, Vec<u8>>, garbage: Vec<u8>) {
            let mut lot = OpenLot::new(9);
            answers.iter().for_each(|(number, answer)| lot.add(*number, answer));
            let (_, count, row) = lot.finish(1);
            prop_assert_eq!(count, answers.len());
            prop_assert!(numbers(&row).eq(answers.keys().copied()));
            for (number, answer) in &answers {
                prop_assert_eq!(find(&row, *number), Some(Bytes::copy_from_slice(answer)));
            }
            prop_assert_eq!(check(&row), Ok(()));
            let ends: Vec<usize> = answers.values().scan(HEADER, |at, answer| { *at += 10 + answer.len(); Some(*at) }).collect();
            for length in 0..row.len() {
                prop_assert_eq!(check(&row[..length]).is_ok(), length == HEADER || ends.contains(&length), "{}", length);
            }
            let _ = (numbers(&garbage).count(), check(&garbage), unanswered_from(&garbage));
        }
    }
}
