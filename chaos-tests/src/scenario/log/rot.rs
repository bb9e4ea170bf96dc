//! Rot in the log: between two lives of the process a bit flips in the body of an entry that the
//! log itself names durable. Such damage is never a torn write: the entry's replica must be given up,
//! with the news of it, and everything of the others must be there.

use crate::dice::Dice;
use keystead::storage::disk::{Disk, OpenMode};
use std::io;
use std::path::Path;

// The format of segments, as `src/storage/log/format.rs` describes it.
const SEGMENT_HEADER: usize = 32;
const BATCH_HEADER: usize = 52;
const BATCH_MAGIC: &[u8] = b"KSB\x01";
const RECORD_HEAD: usize = 33;
const ENTRY: u8 = 1;
const TOUCHED: usize = 12;
const CRC: usize = 4;

/// Where an entry's body lies, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) group: u32,
    offset: u64,
    length: u64,
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

/// CRC-32 as the log writes it: a torn header must not be believed.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Whether a batch begins here, with a header that is sound.
fn is_batch(bytes: &[u8], at: usize) -> bool {
    let Some(header) = bytes.get(at..at + BATCH_HEADER) else { return false };
    header.starts_with(BATCH_MAGIC) && number(header, 48, 4) == Some(u64::from(crc(&header[..48])))
}

/// The bodies in a segment's batches, each with its batch's end; and what the last batch names durable,
/// as (segment, offset).
fn bodies(bytes: &[u8]) -> (Vec<(u64, Body)>, (u64, u64)) {
    let (mut found, mut durable, mut at) = (Vec::new(), (0, 0), SEGMENT_HEADER);
    while is_batch(bytes, at) {
        let header = |offset, length| number(bytes, at + offset, length).unwrap_or(0);
        let records = at + BATCH_HEADER + header(40, 4) as usize;
        let end = records + header(44, 4) as usize * TOUCHED + CRC;
        if end > bytes.len() {
            break;
        }
        durable = durable.max((header(24, 8), header(32, 8)));
        let mut record = at + BATCH_HEADER;
        while record + RECORD_HEAD <= records {
            let length = number(bytes, record, 4).unwrap_or(0);
            let offset = (record + RECORD_HEAD) as u64;
            let group = number(bytes, record + 5, 4).unwrap_or(0) as u32;
            if bytes[record + 4] == ENTRY && length > 0 {
                found.push((end as u64, Body { group, offset, length }));
            }
            record += RECORD_HEAD + length as usize;
        }
        at = end;
    }
    (found, durable)
}

/// Flips a bit of an entry that is known durable; mostly of the last one. `None` when there is none.
pub(super) fn flip(disk: &dyn Disk, dir: &Path, dice: &mut Dice) -> io::Result<Option<Body>> {
    let mut names: Vec<String> = disk.list(dir)?.into_iter().filter(|name| name.ends_with(".log")).collect();
    names.sort_unstable();
    let Some(newest) = names.last() else { return Ok(None) };
    let file = disk.open(&dir.join(newest), OpenMode::ReadWrite)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let (found, (segment, offset)) = bodies(&bytes);
    let here = u64::from_str_radix(newest.trim_end_matches(".log"), 16).unwrap_or(0);
    let mut durable: Vec<Body> =
        found.into_iter().filter(|(end, _)| segment == here && *end <= offset).map(|(_, body)| body).collect();
    let Some(last) = durable.pop() else { return Ok(None) };
    let chosen = match durable.is_empty() || dice.per_mille(600) {
        true => last,
        false => dice.pick(&durable).clone(),
    };
    let at = chosen.offset + dice.below(chosen.length);
    let mut byte = [bytes[at as usize]];
    byte[0] ^= 1 << dice.below(8);
    file.write_all_at(&byte, at)?;
    file.sync_data()?;
    Ok(Some(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_checksum_is_the_logs() {
        assert_eq!(crc(b"123456789"), 0xCBF4_3926);
    }
}
