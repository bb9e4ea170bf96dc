//! Fuzz targets: snapshot files, whole and damaged, and their names.

use super::*;
use crate::error::Code;
use crate::fuzzing::Fuzz;
use crate::storage::backend::conformance::Model;
use crate::storage::backend::test_disk::TestDisk;

const KEY: ReplicaKey = ReplicaKey { group: GroupId(3), replica: 9 };

fn backend() -> (TestDisk, MemoryBackend) {
    let disk = TestDisk::default();
    let backend = MemoryBackend::open(Arc::new(disk.clone()), "/checkpoints").expect("opens");
    (disk, backend)
}

fn file() -> Vec<u8> {
    let (disk, backend) = backend();
    let row = |key: &str, value: &str| (Bytes::from(key.to_owned()), Some(Bytes::from(value.to_owned())));
    let rows = [row("a", "xyz"), row("b", ""), row("c", &"long ".repeat(20))];
    Model::default().checkpoint(&backend, KEY, &rows, &Bytes::from_static(b"meta"), true).expect("written");
    disk.read(&backend.path(KEY)).expect("read")
}

/// Loads a file with these bytes: its rows and meta.
fn load(bytes: &[u8]) -> Result<(Vec<(Bytes, Bytes)>, Bytes)> {
    let (disk, backend) = backend();
    let file = disk.open(&backend.path(KEY), OpenMode::Truncate).expect("opens");
    file.write_all_at(bytes, 0).expect("written");
    let mut rows = Vec::new();
    let meta = backend.load(KEY, &mut |key, value| rows.push((key, value)))?;
    Ok((rows, meta.expect("there is a file")))
}

/// Puts right the checksums of the header, of each block, and of all of them in the trailer.
fn reseal(file: &mut [u8]) {
    let mut all = crc32fast::Hasher::new();
    if let Some((header, crc)) = file.get_mut(..24).map(|header| header.split_at_mut(20)) {
        crc.copy_from_slice(&crc32fast::hash(header).to_le_bytes());
    }
    let mut at = 24;
    while let Some(&[kind, a, b, c, d]) = file.get(at..at + 5).and_then(<[u8]>::first_chunk) {
        let end = (at + 9).saturating_add(u32::from_le_bytes([a, b, c, d]) as usize);
        if end > file.len() {
            return;
        }
        if kind == 2 && end >= at + 21 {
            file[at + 17..at + 21].copy_from_slice(&all.clone().finalize().to_le_bytes());
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&file[at..at + 5]);
        crc.update(&file[at + 9..end]);
        let crc = crc.finalize().to_le_bytes();
        file[at + 5..at + 9].copy_from_slice(&crc);
        all.update(&crc);
        at = end;
    }
}

#[test]
fn snapshot_file() {
    Fuzz::new("snapshot_file", [file()]).reseal(|file| reseal(file)).bytes_per_byte(128).run(|input| {
        match load(input) {
            Ok((rows, meta)) => format!("{} rows, {} of meta", rows.len().min(4), meta.len().min(1)),
            Err(error) => {
                assert!(matches!(error.code, Code::CorruptLog | Code::UnknownFormat), "{error}");
                error.what
            }
        }
    });
}

#[test]
fn snapshot_file_flipped_bits() {
    let whole = file();
    load(&whole).expect("is sound");
    // The input says which bits are flipped, or where the end is cut off.
    Fuzz::new("snapshot_file_flipped_bits", [[0u8, 40, 1], [1, 0, 0]]).run(|input| {
        let Some((&[high, low, mask], _)) = input.split_first_chunk() else { return String::new() };
        let at = usize::from(u16::from_be_bytes([high, low])) % whole.len();
        let mut bad = whole.clone();
        bad[at] ^= mask;
        let error = load(if mask == 0 { &bad[..at] } else { &bad }).expect_err("noticed");
        assert_eq!(error.code, Code::CorruptLog, "{error}");
        error.what
    });
}

#[test]
fn snapshot_name() {
    Fuzz::new("snapshot_name", ["snap-3-9", "snap-4294967295-18446744073709551615", "snap-03-9.tmp"]).run(|input| {
        let name = String::from_utf8_lossy(input);
        let key = parse_name(&name);
        assert!(key.is_none_or(|key| format!("snap-{key}") == name), "one spelling");
        format!("{}", key.is_some())
    });
}
