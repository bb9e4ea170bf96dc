//! Fuzz targets: a segment, an image, and whole directories of segments as a start finds them.

use super::memory::{Files, Inline, MemoryDisk, simulate};
use super::*;
use crate::error::Code;
use crate::fuzzing::Fuzz;
use crate::storage::log::format::{self, BATCH_HEADER, BatchWriter, HeaderVerdict, Kind, Position, RECORD_HEAD};
use crate::storage::log::image::{Image, Run};
use crate::storage::log::segment::segment_name;
use std::collections::BTreeSet;

const SEQUENCE: u64 = 5;

fn image() -> Image {
    Image {
        damaged: false,
        vote: Some(Bytes::from_static(b"vote")),
        committed: Some(Bytes::from_static(b"id")),
        purged: Some((4, Bytes::from_static(b"purged"))),
        runs: vec![Run { segment: 2, first: 5, last: 6, bytes: 90 }, Run { segment: 3, first: 7, last: 9, bytes: 120 }],
    }
}

/// A segment with two batches: a checkpoint, and a record of each kind.
fn segment() -> Vec<u8> {
    let mut file = format::segment_header(SEQUENCE).to_vec();
    let mut writer = BatchWriter::default();
    writer.begin();
    writer.record(Kind::Replica, (GroupId(3), 9), 0, &image().encode());
    writer.record(Kind::Tombstone, (GroupId(1), 2), 0, b"");
    let at = |file: &[u8]| Position { segment: SEQUENCE, offset: file.len() as u64 };
    file.extend_from_slice(writer.finish(format::CHECKPOINT, at(&file), Position { segment: 4, offset: 77 }));
    let durable = at(&file);
    writer.begin();
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        writer.record(kind, (GroupId(3), number as u64 % 2), number as u64, &[number as u8; 5][..number % 6]);
    }
    file.extend_from_slice(writer.finish(0, at(&file), durable));
    file
}

/// Puts right the checksums of what stands where batches and records stand.
fn reseal(file: &mut [u8]) {
    fn seal(bytes: &mut [u8], from: usize, to: usize) {
        if to + 4 <= bytes.len() {
            let crc = crc32fast::hash(&bytes[from..to]);
            bytes[to..to + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
    };
    seal(file, 0, 28);
    let mut at = format::SEGMENT_HEADER;
    while at + BATCH_HEADER <= file.len() {
        file[at..at + 4].copy_from_slice(b"KSB\x01");
        file[at + 16..at + 24].copy_from_slice(&(at as u64).to_le_bytes());
        seal(file, at, at + 48);
        let (records, touched) = (number(file, at + 40), number(file, at + 44));
        let end = (at + BATCH_HEADER).saturating_add(records);
        let mut record = at + BATCH_HEADER;
        while record + RECORD_HEAD <= end.min(file.len()) {
            let body = record + RECORD_HEAD..(record + RECORD_HEAD).saturating_add(number(file, record));
            if let Some(bytes) = file.get(body.clone()) {
                let crc = crc32fast::hash(bytes);
                file[record + 25..record + 29].copy_from_slice(&crc.to_le_bytes());
            }
            seal(file, record, record + 29);
            record = body.end;
        }
        let list = end..end.saturating_add(touched.saturating_mul(12));
        if list.end <= file.len() {
            seal(file, list.start, list.end);
        }
        at = list.end.saturating_add(4);
    }
}

#[test]
fn log_segment() {
    Fuzz::new("log_segment", [segment(), segment()[..40].to_vec()]).reseal(|file| reseal(file)).run(|input| {
        let header = format::read_segment_header(input, SEQUENCE);
        let (mut batches, mut records, mut sound) = (0, 0, 0);
        let mut from = format::SEGMENT_HEADER;
        while let Some(batch) = format::find_batch(input, SEQUENCE, from) {
            assert!(batch.offset >= from && batch.end() <= input.len(), "a batch lies in its segment");
            assert!(batch.end() > batch.offset);
            let range = batch.records();
            let mut at = range.start;
            while let Some(record) = format::record_at(input, at, range.end) {
                assert!(record.body.end <= range.end && record.body.end >= at + RECORD_HEAD);
                at = record.body.end;
                records += 1;
                sound += usize::from(record.sound);
                if record.sound && record.kind == Kind::Replica {
                    Image::decode(&input[record.body.clone()]);
                }
            }
            batch.touched(input);
            batches += 1;
            from = batch.end();
        }
        format!("{} {} {} {}", header == HeaderVerdict::Sound, batches > 0, records > 3, sound == records)
    });
}

#[test]
fn log_segment_flipped_bits() {
    let whole = segment();
    // The input says which bits are flipped.
    Fuzz::new("log_segment_flipped_bits", [[0u8, 40, 1], [1, 0, 0x80]]).run(|input| {
        let Some((&[high, low, mask], _)) = input.split_first_chunk() else { return String::new() };
        let at = usize::from(u16::from_be_bytes([high, low])) % whole.len();
        let mut bad = whole.clone();
        bad[at] ^= mask.max(1);
        if at < format::SEGMENT_HEADER {
            assert_ne!(format::read_segment_header(&bad, SEQUENCE), HeaderVerdict::Sound);
            return "header".to_owned();
        }
        let (good, read) = (describe(&whole), describe(&bad));
        assert_ne!(good, read, "byte {at}: the damage goes unnoticed");
        assert!(read.is_subset(&good), "byte {at}: something is read that was not written");
        "noticed".to_owned()
    });
}

/// What a reader takes for true in a segment.
fn describe(bytes: &[u8]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut from = format::SEGMENT_HEADER;
    while let Some(batch) = format::find_batch(bytes, SEQUENCE, from) {
        seen.insert(format!("{batch:?}"));
        if let Some(touched) = batch.touched(bytes) {
            seen.insert(format!("{} touches {touched:?}", batch.offset));
        }
        let range = batch.records();
        let mut at = range.start;
        while let Some(record) = format::record_at(bytes, at, range.end) {
            at = record.body.end;
            seen.insert(format!("{:?} {} {}", record.kind, record.offset, record.index));
            if record.sound {
                seen.insert(format!("{} holds {:?}", record.offset, &bytes[record.body]));
            }
        }
        from = batch.end();
    }
    seen
}

#[test]
fn log_image() {
    Fuzz::new("log_image", [image().encode(), Image::default().encode()]).run(|input| match Image::decode(input) {
        Some(mut image) => {
            assert_eq!(image.encode(), input, "one spelling");
            image.last();
            image.live_bytes();
            let (mut cut, mut purged) = (image.clone(), image.clone());
            cut.truncate_after(Some(6));
            purged.purge(6, Bytes::new());
            purged.purge(u64::MAX, Bytes::new());
            image.append(9, 10, 50);
            image.truncate_after(None);
            format!("{} runs", purged.runs.len().min(2))
        }
        None => "none".to_owned(),
    });
}

/// A log's files after some life: three replicas, a purge, a truncation, several segments.
fn directory() -> Files {
    simulate(async {
        let disk = MemoryDisk::of(&Files::new());
        let config = LogConfig { segment_bytes: 2048, ..small() };
        let (log, _) = memory::open_memory(&disk, config);
        for number in 1..=3 {
            let one = group(&log, number).await;
            one.save_vote(bytes("vote")).await.expect("durable");
            append(&one, entries(1..12, "a")).await.expect("durable");
        }
        let one = log.group(GroupId(1), 1).expect("is there");
        one.truncate_after(Some(8)).await.expect("durable");
        append(&one, entries(9..14, "b")).await.expect("durable");
        one.purge(4, bytes("four")).await.expect("durable");
        log.tombstone(GroupId(3), 1).await.expect("durable");
        let files = disk.files();
        log.shutdown().await;
        files
    })
}

/// Files as one input: per file its sequence number, the length of its bytes, and its bytes.
fn packed(files: &Files) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.push(memory::sequence(name) as u8);
        out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

fn unpacked(mut input: &[u8]) -> Files {
    let mut files = Files::new();
    while let Some((&[sequence, low, high], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        files.insert(segment_name(u64::from(sequence) % 8), bytes.to_vec());
        input = rest;
    }
    files
}

fn reseal_files(input: &mut Vec<u8>) {
    let mut files = unpacked(input);
    for (name, bytes) in &mut files {
        let sequence = memory::sequence(name);
        reseal(bytes);
        if let Some(header) = bytes.get_mut(..format::SEGMENT_HEADER) {
            header.copy_from_slice(&format::segment_header(sequence));
        }
    }
    *input = packed(&files);
}

/// Entries that the checkpoints of sealed files announce: those with more than a log can hold are left out.
fn announced(files: &Files) -> u64 {
    let mut sum: u64 = 0;
    for (name, bytes) in files {
        let (sequence, mut from) = (memory::sequence(name), format::SEGMENT_HEADER);
        while let Some(batch) = format::find_batch(bytes, sequence, from) {
            let mut at = batch.records().start;
            while let Some(record) = format::record_at(bytes, at, batch.records().end) {
                at = record.body.end;
                let image = Image::decode(&bytes[record.body]).filter(|_| record.kind == Kind::Replica);
                let runs = image.map(|image| image.runs).unwrap_or_default();
                let count = |run: &Run| (run.last - run.first).saturating_add(1);
                sum = runs.iter().map(count).fold(sum, u64::saturating_add);
            }
            from = batch.end();
        }
    }
    sum
}

#[test]
fn log_directory() {
    let whole = directory();
    let last = whole.keys().next_back().expect("a segment").clone();
    let mut torn = whole.clone();
    let length = torn[&last].len();
    torn.get_mut(&last).expect("there").truncate(length - 7);
    let fuzz = Fuzz::new("log_directory", [packed(&whole), packed(&torn)]).reseal(reseal_files).slow(3);
    fuzz.bytes_per_byte(256).run(|input| {
        let files = unpacked(input);
        if announced(&files) > 100_000 {
            return "too many entries".to_owned();
        }
        simulate(async {
            let disk = MemoryDisk::of(&files);
            let config = LogConfig { segment_bytes: 2048, ..small() };
            let opened = SharedLog::open(disk.clone(), Arc::new(Inline), Path::new("log"), config.clone());
            let (log, recovery) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    assert!(matches!(error.code, Code::CorruptLog | Code::UnknownFormat), "{error}");
                    return error.what;
                }
            };
            if recovery.votes_lost {
                assert_eq!(disk.files(), files, "a log that is refused stays as it is");
                return "votes lost".to_owned();
            }
            for (group, replica) in &recovery.replicas {
                let one = log.group(*group, *replica).expect("a sound replica");
                let _ = one.read(0..u64::MAX, usize::MAX).await;
            }
            log.shutdown().await;
            // What was found is settled: the next start finds the same.
            let (again, second) = SharedLog::open(disk, Arc::new(Inline), Path::new("log"), config).expect("opens");
            assert_eq!((second.replicas, second.damaged), (recovery.replicas.clone(), recovery.damaged.clone()));
            assert!(!second.votes_lost);
            again.shutdown().await;
            format!("fresh {} damaged {}", recovery.fresh, recovery.damaged.len())
        })
    });
}
