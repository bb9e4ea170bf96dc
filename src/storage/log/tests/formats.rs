//! Golden bytes of each persisted form, and round trips.

use crate::storage::log::format::{self, BatchWriter, CHECKPOINT, HeaderVerdict, Kind, Position, VERSION};
use crate::storage::log::image::{Image, Run};
use crate::types::GroupId;
use bytes::Bytes;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_segment_header() {
    assert_eq!(VERSION, 1);
    let header = format::segment_header(7);
    assert_eq!(hex(&header), "4b455953544c4f4701000000070000000000000000000000000000008c6aa963");
    assert_eq!(format::read_segment_header(&header, 7), HeaderVerdict::Sound);
    assert_eq!(format::read_segment_header(&header, 8), HeaderVerdict::Damaged);
    assert_eq!(format::read_segment_header(&header[..31], 7), HeaderVerdict::Damaged);
}

#[test]
fn golden_batch() {
    let mut writer = BatchWriter::default();
    writer.begin();
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        writer.record(kind, (GroupId(3), 0x0908), number as u64, &[number as u8; 2][..number % 3]);
    }
    let at = Position { segment: 5, offset: 32 };
    let batch = writer.finish(CHECKPOINT, at, Position { segment: 4, offset: 77 }).to_vec();
    assert_eq!(hex(&batch), GOLDEN_BATCH);
}

/// Header, a record of each kind, trailer.
const GOLDEN_BATCH: &str = concat!(
    "4b534201010000000500000000000000200000000000000004000000000000004d000000000000005301000001000000aee6f160",
    "00000000010300000008090000000000000000000000000000000000006fb759b5",
    "010000000203000000080900000000000001000000000000001bdf05a5c69510a201",
    "020000000303000000080900000000000002000000000000005111e19d313185a80202",
    "00000000040300000008090000000000000300000000000000000000006abff19c",
    "01000000050300000008090000000000000400000000000000942b6fd50e91033c04",
    "020000000603000000080900000000000005000000000000003512c44ce3ee0e2d0505",
    "0000000007030000000809000000000000060000000000000000000000297ebf31",
    "010000000803000000080900000000000007000000000000002e7a664c6c70007e07",
    "02000000090300000008090000000000000800000000000000c510db877d57f4150808",
    "000000000a0300000008090000000000000900000000000000000000001aa81631",
    "030000000809000000000000f94a364a",
);

#[test]
fn golden_image() {
    let image = Image {
        damaged: true,
        vote: Some(Bytes::from_static(b"v")),
        committed: None,
        purged: Some((4, Bytes::from_static(b"id"))),
        runs: vec![Run { segment: 2, first: 5, last: 6, bytes: 90 }],
    };
    let golden = concat!(
        "01",
        "0200000076",
        "00000000",
        "0300000069640400000000000000",
        "01000000",
        "0200000000000000050000000000000006000000000000005a00000000000000"
    );
    assert_eq!(hex(&image.encode()), golden);
    assert_eq!(Image::decode(&image.encode()), Some(image));
}

fn images() -> impl Strategy<Value = Image> {
    let small = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from));
    let run = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(segment, a, b, bytes)| Run {
        segment,
        first: a.min(b),
        last: a.max(b),
        bytes,
    });
    (any::<bool>(), small(), small(), proptest::option::of(any::<u64>()), proptest::collection::vec(run, 0..5))
        .prop_map(|(damaged, vote, committed, purged, runs)| Image {
            damaged,
            vote,
            committed,
            purged: purged.map(|index| (index, Bytes::from_static(b"name"))),
            runs,
        })
}

proptest! {
    #[test]
    fn an_image_reads_back_and_no_part_of_it_does(image in images(), cut in 1usize..100) {
        let body = image.encode();
        prop_assert_eq!(Image::decode(&body), Some(image));
        prop_assert_eq!(Image::decode(&body[..body.len().saturating_sub(cut)]), None);
    }

    #[test]
    fn records_read_back_and_a_flipped_bit_shows(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
        flip: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let mut writer = BatchWriter::default();
        writer.begin();
        for (index, body) in bodies.iter().enumerate() {
            writer.record(Kind::Entry, (GroupId(1), 2), index as u64, body);
        }
        let at = Position { segment: 1, offset: 0 };
        let mut batch = writer.finish(0, at, at).to_vec();
        let header = format::batch_at(&batch, 1, 0).expect("a batch");
        prop_assert_eq!(header.end(), batch.len());
        prop_assert!(format::batch_at(&batch, 2, 0).is_none(), "a batch of another segment was taken");
        let sound = |batch: &[u8]| {
            let header = format::batch_at(batch, 1, 0)?;
            let mut at = header.records().start;
            for (index, body) in bodies.iter().enumerate() {
                let record = format::record_at(batch, at, header.records().end)?;
                if !record.sound || record.index != index as u64 || batch[record.body.clone()] != body[..] {
                    return None;
                }
                at = record.body.end;
            }
            header.touched(batch)
        };
        prop_assert_eq!(sound(&batch), Some(vec![(GroupId(1), 2)]));
        let place = flip.index(batch.len());
        batch[place] ^= 1 << bit;
        prop_assert_eq!(sound(&batch), None);
    }
}
