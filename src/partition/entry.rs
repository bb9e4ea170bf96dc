//! What a partition's log entries hold: a run's marker, or a batch of absolute puts and deletes.
//! Persisted and sent between peers; the bytes are pinned by tests.
//!
//! A batch that removes entries of maps is of version 2: each such removal says its revision and
//! why. Everything else is written as version 1, which older logs hold.

use crate::error::{Code, Error, Result};
pub use crate::types::RemovalCause;
use crate::types::RunId;
use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
/// A batch in which entries of maps are removed.
const VERSION_REMOVALS: u8 = 2;
const KIND_MARKER: u8 = 1;
const KIND_BATCH: u8 = 2;

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets this value. An entry's value says its revision.
    Put(Bytes),
    /// A row that is no map's entry goes.
    Drop,
    /// A map's entry goes, as a change with a revision of its own.
    Remove {
        /// The partition's revision of the removal.
        revision: u64,
        /// Why.
        cause: RemovalCause,
    },
}

/// One row's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// The row (see [`super::rows`]).
    pub row: Bytes,
    /// What becomes of it.
    pub change: Change,
}

impl RowWrite {
    /// A row's new value.
    pub fn put(row: Bytes, value: Bytes) -> Self {
        RowWrite { row, change: Change::Put(value) }
    }

    /// A row that is no map's entry goes.
    pub fn drop(row: Bytes) -> Self {
        RowWrite { row, change: Change::Drop }
    }

    /// A map's entry goes.
    pub fn remove(row: Bytes, revision: u64, cause: RemovalCause) -> Self {
        RowWrite { row, change: Change::Remove { revision, cause } }
    }

    /// The row's new value; `None` when it goes.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.change {
            Change::Put(value) => Some(value),
            Change::Drop | Change::Remove { .. } => None,
        }
    }
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
    /// The rows it writes, in the order in which they are to be applied. An entry of a map may be
    /// written several times, so that whoever follows changes sees each; any other row once.
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
    14 + write.row.len() + write.value().map_or(0, Bytes::len)
}

impl PartitionEntry {
    /// version (1) | kind (1) | term (8) | run (8), then for a batch: number (8) | count (4) |
    /// per write: row length (4) | row | then 0 for a row dropped; 1 | value length (4) | value; or,
    /// in version 2, 2 | revision (8) | cause (1) for an entry removed. Little-endian.
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
                let removes = |write: &RowWrite| matches!(write.change, Change::Remove { .. });
                let version = if batch.writes.iter().any(removes) { VERSION_REMOVALS } else { VERSION };
                out.put_slice(&[version, KIND_BATCH]);
                out.put_u64_le(batch.term);
                out.put_u64_le(batch.run.0);
                out.put_u64_le(batch.number);
                out.put_u32_le(batch.writes.len() as u32);
                for write in &batch.writes {
                    out.put_u32_le(write.row.len() as u32);
                    out.put_slice(&write.row);
                    match &write.change {
                        Change::Drop => out.put_u8(0),
                        Change::Put(value) => {
                            out.put_u8(1);
                            out.put_u32_le(value.len() as u32);
                            out.put_slice(value);
                        }
                        Change::Remove { revision, cause } => {
                            out.put_u8(2);
                            out.put_u64_le(*revision);
                            out.put_u8(*cause as u8);
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
        let unknown = || Error::new(Code::UnknownFormat, "a partition entry holds a change of an unknown kind");
        let version = input.try_get_u8().map_err(|_| short())?;
        let kind = input.try_get_u8().map_err(|_| short())?;
        if version != VERSION && version != VERSION_REMOVALS {
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
                    let change = match input.try_get_u8().map_err(|_| short())? {
                        0 => Change::Drop,
                        1 => Change::Put(take(&mut input).ok_or_else(short)?),
                        2 if version == VERSION_REMOVALS => {
                            let revision = input.try_get_u64_le().map_err(|_| short())?;
                            let cause = RemovalCause::from_number(input.try_get_u8().map_err(|_| short())?);
                            Change::Remove { revision, cause: cause.ok_or_else(unknown)? }
                        }
                        _ => return Err(unknown()),
                    };
                    writes.push(RowWrite { row, change });
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
                RowWrite::put(Bytes::from_static(b"r"), Bytes::from_static(b"vv")),
                RowWrite::drop(Bytes::from_static(b"d")),
            ],
        })
    }

    fn removals() -> PartitionEntry {
        let write = RowWrite::remove(Bytes::from_static(b"e"), 258, RemovalCause::Evicted);
        PartitionEntry::Batch(Batch { term: 1, run: RunId(2), number: 3, writes: vec![write] })
    }

    #[test]
    fn entries_have_golden_bytes() {
        let marker = PartitionEntry::Marker(Marker { term: 5, run: RunId(6) });
        assert_eq!(&marker.encode()[..], b"\x01\x01\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0");
        let expected: &[u8] = b"\x01\x02\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\
            \x01\0\0\0r\x01\x02\0\0\0vv\x01\0\0\0d\0";
        assert_eq!(&batch().encode()[..], expected);
        assert_eq!(PartitionEntry::decode(&marker.encode()), Ok(marker));
        assert_eq!(PartitionEntry::decode(&batch().encode()), Ok(batch()));
        let expected: &[u8] = b"\x02\x02\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\
            \x01\0\0\0e\x02\x02\x01\0\0\0\0\0\0\x02";
        assert_eq!(&removals().encode()[..], expected);
        assert_eq!(PartitionEntry::decode(&removals().encode()), Ok(removals()));
    }

    #[test]
    fn a_removal_in_a_batch_of_version_1_is_refused() {
        let mut bytes = removals().encode().to_vec();
        bytes[0] = 1;
        assert_eq!(PartitionEntry::decode(&bytes.into()).expect_err("unknown").code, Code::UnknownFormat);
    }

    #[test]
    fn every_cut_is_noticed() {
        for whole in [batch().encode(), removals().encode()] {
            for length in 0..whole.len() {
                assert!(PartitionEntry::decode(&whole.slice(..length)).is_err(), "cut at {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn batches_round_trip(term: u64, run: u64, number: u64, writes: Vec<(Vec<u8>, Result<Vec<u8>, Option<u64>>)>) {
            let writes = writes.into_iter().map(|(row, change)| match change {
                Ok(value) => RowWrite::put(row.into(), value.into()),
                Err(None) => RowWrite::drop(row.into()),
                Err(Some(revision)) => RowWrite::remove(row.into(), revision, RemovalCause::Expired),
            });
            let entry = PartitionEntry::Batch(Batch { term, run: RunId(run), number, writes: writes.collect() });
            prop_assert_eq!(PartitionEntry::decode(&entry.encode()).expect("decodes"), entry);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = PartitionEntry::decode(&Bytes::from(bytes));
        }
    }
}
