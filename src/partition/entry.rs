//! What a partition's log entries hold: a run's marker, or a batch of absolute puts and deletes.
//! Persisted and sent between peers; the bytes are pinned by tests.

use crate::error::{Code, Error, Result};
use crate::types::RunId;
use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const KIND_MARKER: u8 = 1;
const KIND_BATCH: u8 = 2;

/// One row's new value; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// The row (see [`super::rows`]).
    pub row: Bytes,
    /// Its new value.
    pub value: Option<Bytes>,
}

/// Begins a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The term of the leadership that the run belongs to (classic leader ids: it names the leader).
    pub term: u64,
    /// The run.
    pub run: RunId,
}

/// What an executor's turn did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The term that it was computed in.
    pub term: u64,
    /// The run that it was computed in.
    pub run: RunId,
    /// Its number within the run, from 1.
    pub number: u64,
    /// The rows it writes, at most one write a row.
    pub writes: Vec<RowWrite>,
}

/// A partition's log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionEntry {
    /// Begins a run.
    Marker(Marker),
    /// Changes rows.
    Batch(Batch),
}

/// Bytes that a write takes in an entry.
pub fn encoded_len(write: &RowWrite) -> usize {
    9 + write.row.len() + write.value.as_ref().map_or(0, Bytes::len)
}

impl PartitionEntry {
    /// version (1) | kind (1) | term (8) | run (8), then for a batch: number (8) | count (4) |
    /// per write: row length (4) | row | 0, or 1 | value length (4) | value. Little-endian.
    pub fn encode(&self) -> Bytes {
        match self {
            PartitionEntry::Marker(marker) => {
                let mut out = BytesMut::with_capacity(18);
                out.put_slice(&[VERSION, KIND_MARKER]);
                out.put_u64_le(marker.term);
                out.put_u64_le(marker.run.0);
                out.freeze()
            }
            PartitionEntry::Batch(batch) => {
                let size: usize = batch.writes.iter().map(encoded_len).sum();
                let mut out = BytesMut::with_capacity(30 + size);
                out.put_slice(&[VERSION, KIND_BATCH]);
                out.put_u64_le(batch.term);
                out.put_u64_le(batch.run.0);
                out.put_u64_le(batch.number);
                out.put_u32_le(batch.writes.len() as u32);
                for write in &batch.writes {
                    out.put_u32_le(write.row.len() as u32);
                    out.put_slice(&write.row);
                    match &write.value {
                        None => out.put_u8(0),
                        Some(value) => {
                            out.put_u8(1);
                            out.put_u32_le(value.len() as u32);
                            out.put_slice(value);
                        }
                    }
                }
                out.freeze()
            }
        }
    }

    /// Reads what [`PartitionEntry::encode`] wrote, without copying rows and values.
    ///
    /// # Errors
    /// `UnknownFormat` for a version or kind that is not known, `CorruptLog` for bytes that end early.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut input = bytes.clone();
        let short = || Error::new(Code::CorruptLog, format!("a partition entry of {} bytes ends early", bytes.len()));
        let version = input.try_get_u8().map_err(|_| short())?;
        let kind = input.try_get_u8().map_err(|_| short())?;
        if version != VERSION {
            return Err(Error::new(Code::UnknownFormat, format!("a partition entry has format version {version}")));
        }
        let term = input.try_get_u64_le().map_err(|_| short())?;
        let run = RunId(input.try_get_u64_le().map_err(|_| short())?);
        match kind {
            KIND_MARKER => Ok(PartitionEntry::Marker(Marker { term, run })),
            KIND_BATCH => {
                let number = input.try_get_u64_le().map_err(|_| short())?;
                let count = input.try_get_u32_le().map_err(|_| short())?;
                let mut writes = Vec::with_capacity((count as usize).min(bytes.len() / 5));
                for _ in 0..count {
                    let row = take(&mut input).ok_or_else(short)?;
                    let value = match input.try_get_u8().map_err(|_| short())? {
                        0 => None,
                        _ => Some(take(&mut input).ok_or_else(short)?),
                    };
                    writes.push(RowWrite { row, value });
                }
                Ok(PartitionEntry::Batch(Batch { term, run, number, writes }))
            }
            other => Err(Error::new(Code::UnknownFormat, format!("a partition entry is of kind {other}"))),
        }
    }
}

fn take(input: &mut Bytes) -> Option<Bytes> {
    let length = input.try_get_u32_le().ok()? as usize;
    (length <= input.len()).then(|| input.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch() -> PartitionEntry {
        PartitionEntry::Batch(Batch {
            term: 1,
            run: RunId(2),
            number: 3,
            writes: vec![
                RowWrite { row: Bytes::from_static(b"r"), value: Some(Bytes::from_static(b"vv")) },
                RowWrite { row: Bytes::from_static(b"d"), value: None },
            ],
        })
    }

    #[test]
    fn entries_have_golden_bytes() {
        let marker = PartitionEntry::Marker(Marker { term: 5, run: RunId(6) });
        assert_eq!(&marker.encode()[..], b"\x01\x01\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0");
        let expected: &[u8] = b"\x01\x02\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\
            \x01\0\0\0r\x01\x02\0\0\0vv\x01\0\0\0d\0";
        assert_eq!(&batch().encode()[..], expected);
        assert_eq!(PartitionEntry::decode(&marker.encode()), Ok(marker));
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = batch().encode();
        for length in 0..whole.len() {
            assert!(PartitionEntry::decode(&whole.slice(..length)).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn batches_round_trip(term: u64, run: u64, number: u64, writes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
            let writes = writes.into_iter().map(|(row, value)| RowWrite { row: row.into(), value: value.map(Bytes::from) });
            let entry = PartitionEntry::Batch(Batch { term, run: RunId(run), number, writes: writes.collect() });
            prop_assert_eq!(PartitionEntry::decode(&entry.encode()).expect("decodes"), entry);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = PartitionEntry::decode(&Bytes::from(bytes));
        }
    }
}
