//! The snapshot file's bytes. All numbers are little-endian.
//!
//! ```text
//! file    = header block* trailer
//! header  = magic "KSSNAP" (6) | version (2) = 1 | group (4) | replica (8) | crc32 of these (4)
//! block   = kind (1) = 1 | length (4) | crc32 of kind, length and payload (4) | row*
//! row     = key length (4) | key | value length (4) | value
//! trailer = kind (1) = 2 | length (4) | crc32 (4) | rows in all (8) | crc32 of all blocks' crcs (4) | meta
//! ```
//!
//! A block's own checksum finds damage within it; the trailer's count and checksum find blocks
//! that are missing, doubled or exchanged. The trailer ends the file.

use super::super::{ReplicaKey, io_error};
use crate::error::{Code, Error, Result};
use crate::storage::disk::DiskFile;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use std::io;
use std::path::Path;

const MAGIC: &[u8; 6] = b"KSSNAP";
const VERSION: u16 = 1;
const HEADER: usize = 6 + 2 + 4 + 8 + 4;
const FRAME: usize = 1 + 4 + 4;
const ROWS: u8 = 1;
const TRAILER: u8 = 2;
/// A block is written when it holds at least this many bytes of rows.
const BLOCK: usize = 256 * 1024;

fn header(key: ReplicaKey) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER);
    out.put_slice(MAGIC);
    out.put_u16_le(VERSION);
    out.put_u32_le(key.group.0);
    out.put_u64_le(key.replica);
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out
}

fn frame_crc(kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Writes a snapshot file, block by block. Does not sync.
pub(super) struct SnapshotWriter<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    block: BytesMut,
    rows: u64,
    crcs: Hasher,
}

impl<'a> SnapshotWriter<'a> {
    pub(super) fn begin(file: &'a dyn DiskFile, key: ReplicaKey) -> io::Result<Self> {
        file.write_all_at(&header(key), 0)?;
        Ok(SnapshotWriter { file, at: HEADER as u64, block: BytesMut::new(), rows: 0, crcs: Hasher::new() })
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<u32> {
        let length = u32::try_from(payload.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let crc = frame_crc(kind, payload);
        let mut out = BytesMut::with_capacity(FRAME + payload.len());
        out.put_u8(kind);
        out.put_u32_le(length);
        out.put_u32_le(crc);
        out.put_slice(payload);
        self.file.write_all_at(&out, self.at)?;
        self.at += out.len() as u64;
        Ok(crc)
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for part in [key, value] {
            let length = u32::try_from(part.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
            self.block.put_u32_le(length);
            self.block.put_slice(part);
        }
        self.rows += 1;
        if self.block.len() >= BLOCK { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let payload = self.block.split();
        let crc = self.frame(ROWS, &payload)?;
        self.crcs.update(&crc.to_le_bytes());
        Ok(())
    }

    pub(super) fn finish(mut self, meta: &[u8]) -> io::Result<()> {
        self.end_block()?;
        let mut payload = BytesMut::with_capacity(12 + meta.len());
        payload.put_u64_le(self.rows);
        payload.put_u32_le(self.crcs.clone().finalize());
        payload.put_slice(meta);
        self.frame(TRAILER, &payload).map(|_| ())
    }
}

/// Reads a snapshot file, block by block.
pub(super) struct SnapshotReader<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    length: u64,
    at: u64,
    rows: u64,
    crcs: Hasher,
    trailer: Bytes,
}

impl<'a> SnapshotReader<'a> {
    pub(super) fn begin(file: &'a dyn DiskFile, path: &'a Path, key: ReplicaKey) -> Result<Self> {
        let length = file.len().map_err(|error| io_error("a snapshot file cannot be read", path, &error))?;
        let mut reader =
            SnapshotReader { file, path, length, at: 0, rows: 0, crcs: Hasher::new(), trailer: Bytes::new() };
        let found = reader.take(HEADER)?;
        if found == header(key) {
            return Ok(reader);
        }
        let (body, crc) = found.split_at(HEADER - 4);
        let intact = crc32fast::hash(body).to_le_bytes() == crc && body.starts_with(MAGIC);
        let version = u16::from_le_bytes([found[6], found[7]]);
        if intact && version != VERSION {
            return Err(Error::new(Code::UnknownFormat, format!("a snapshot file has format version {version}"))
                .at(path.display().to_string()));
        }
        Err(reader.corrupt(if intact { "belongs to another replica" } else { "has a damaged header" }))
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::new(Code::CorruptLog, format!("a snapshot file {what}, near byte {}", self.at))
            .at(self.path.display().to_string())
    }

    /// The next bytes; a length is checked against the file before room is made for it.
    fn take(&mut self, length: usize) -> Result<Bytes> {
        if length as u64 > self.length.saturating_sub(self.at) {
            return Err(self.corrupt("ends too early"));
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, self.at)
            .map_err(|error| io_error("a snapshot file cannot be read", self.path, &error))?;
        self.at += length as u64;
        Ok(bytes.into())
    }

    /// The next block's rows; `None` when the trailer was met.
    pub(super) fn next_rows(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>> {
        let mut frame = self.take(FRAME)?;
        let (kind, length, crc) = (frame.get_u8(), frame.get_u32_le(), frame.get_u32_le());
        let payload = self.take(length as usize)?;
        if frame_crc(kind, &payload) != crc {
            return Err(self.corrupt("has a block with a wrong checksum"));
        }
        match kind {
            ROWS => {
                self.crcs.update(&crc.to_le_bytes());
                let rows = decode_rows(payload).ok_or_else(|| self.corrupt("has a malformed block"))?;
                self.rows += rows.len() as u64;
                Ok(Some(rows))
            }
            TRAILER => {
                self.trailer = payload;
                Ok(None)
            }
            _ => Err(self.corrupt("has a block of unknown kind")),
        }
    }

    /// Checks the trailer against what was read; gives the meta.
    pub(super) fn finish(mut self) -> Result<Bytes> {
        if self.trailer.len() < 12 {
            return Err(self.corrupt("has a malformed trailer"));
        }
        let (rows, crcs) = (self.trailer.get_u64_le(), self.trailer.get_u32_le());
        if rows != self.rows || crcs != self.crcs.clone().finalize() {
            return Err(self.corrupt("lacks blocks or has them out of order"));
        }
        if self.at != self.length {
            return Err(self.corrupt("goes on after its trailer"));
        }
        Ok(self.trailer)
    }
}

fn decode_rows(mut payload: Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let part = |payload: &mut Bytes| {
        let length = payload.try_get_u32_le().ok()? as usize;
        (length <= payload.len()).then(|| payload.split_to(length))
    };
    let mut rows = Vec::new();
    while !payload.is_empty() {
        let key = part(&mut payload)?;
        rows.push((key, part(&mut payload)?));
    }
    Some(rows)
}
