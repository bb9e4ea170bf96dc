//! Fuzz targets: what a partition keeps and sends. Entries, rows and their keys, kept answers, sessions as
//! rows tell of them and as clients' stamps drive them, the meta of a checkpoint, a snapshot's chunks.

use super::checkpoint::{Position, decode_meta, encode_meta, index_of};
use super::entry::{Batch, Marker, PartitionEntry, RowWrite};
use super::rows::{self, PartitionRow};
use super::sessions::KeptAnswer;
use super::snapshot::{decode_chunk, encode_chunk};
use super::state::{Filling, State};
use super::*;
use crate::error::{Code, Error};
use crate::fuzzing::Fuzz;
use crate::raft::LogId;
use crate::types::*;
use bytes::Bytes;
use std::collections::BTreeSet;

const SLOT: Slot = Slot(5);

fn bytes(input: &[u8]) -> Bytes {
    Bytes::copy_from_slice(input)
}

fn refused(error: &Error, codes: &[Code]) -> String {
    assert!(codes.contains(&error.code), "{error}");
    error.what.clone()
}

fn batch() -> Batch {
    let value = |text: &str, expires_ms| StoredValue { expires_ms, ..StoredValue::new(3, Value::utf8(text)) }.encode();
    let row = |key: &[u8]| rows::map_row(SLOT, MapId(7), key);
    let number = |which, value| RowWrite::put(rows::partition_row(which), rows::encode_number(value));
    Batch {
        term: 1,
        run: RunId(2),
        number: 1,
        writes: vec![
            RowWrite::put(row(b"a"), value("one", 0)),
            RowWrite::put(row(b"b\0c"), value("two", 1_700_000_000_000)),
            RowWrite::put(row(b"a"), value("three", 9)),
            RowWrite::remove(row(b"b\0c"), 4, RemovalCause::Evicted),
            RowWrite::drop(rows::session_row(SessionId(9))),
            RowWrite::put(rows::dropped_row(MapId(3)), Bytes::from_static(b"\x01")),
            number(PartitionRow::Time, HybridTime::from_ms(1_700_000_000_000).0),
            number(PartitionRow::Revision, 4),
        ],
    }
}

fn entries() -> [PartitionEntry; 3] {
    let plain = Batch { writes: vec![RowWrite::put("r".into(), "v".into())], ..batch() };
    let marker = Marker { term: 1, run: RunId(2) };
    [PartitionEntry::Marker(marker), PartitionEntry::Batch(batch()), PartitionEntry::Batch(plain)]
}

#[test]
fn partition_entry() {
    Fuzz::new("partition_entry", entries().map(|entry| entry.encode())).run(|input| {
        match PartitionEntry::decode(&bytes(input)) {
            Ok(entry) => {
                let again = entry.encode();
                assert_eq!(PartitionEntry::decode(&again).as_ref(), Ok(&entry));
                apply(entry)
            }
            Err(error) => refused(&error, &[Code::UnknownFormat, Code::CorruptLog]),
        }
    });
}

/// Applies an entry as if it were the next one of its run.
fn apply(entry: PartitionEntry) -> String {
    let PartitionEntry::Batch(batch) = entry else { return "a marker".to_owned() };
    let term = batch.term.min(u64::MAX / 2);
    let batch = Batch { term, number: 1, ..batch };
    let marker = PartitionEntry::Marker(Marker { term, run: batch.run });
    let memory = Memory::new(None);
    let feed = FeedPool::new(FeedLimits { per_partition: 1 << 20, per_node: 1 << 20 }, memory).feed();
    let mut state = State::default();
    assert!(state.apply(&LogId::new_term_index(term, 1), marker, true, Some(&feed)));
    let writes = batch.writes.clone();
    assert!(state.apply(&LogId::new_term_index(term, 2), PartitionEntry::Batch(batch), true, Some(&feed)));
    let (floor, head, _) = feed.extent();
    let read = feed.read(floor, 1 << 20, |_| true);
    state.revision();
    state.held();
    let kept: BTreeSet<&Bytes> = writes.iter().map(|write| &write.row).collect();
    let last = |row| writes.iter().rev().find(|write| write.row == row).and_then(RowWrite::value);
    for row in kept {
        let found = state.rows.get(row).and_then(super::cells::Cell::value);
        assert_eq!(found.as_deref(), last(row).map(|value| &value[..]), "the last write of a row stays");
    }
    format!("a batch, head {} read {}", head > 0, read.is_ok())
}

#[test]
fn row_key() {
    let seeds = [
        rows::map_row(SLOT, MapId(7), b"key\0with\0zeros"),
        rows::map_prefix(SLOT, MapId(7), b"\0"),
        rows::answer_row(SLOT, SessionId(1), 2),
        rows::lot_row(SessionId(1), 2),
        rows::session_row(SessionId(3)),
        rows::job_row(JobId::new(SLOT, 99)),
        rows::dropped_row(MapId(4)),
        rows::partition_row(PartitionRow::Time),
    ];
    Fuzz::new("row_key", seeds).run(|input| {
        let mut said = Vec::new();
        let slot = rows::slot_of_row(input);
        if let (Some(map), Some(key)) = (rows::map_of_row(input), rows::map_key(input)) {
            let number = u16::from_be_bytes([input[0], input[1]]);
            assert_eq!(rows::map_row(Slot(number), map, &key), input, "one spelling");
            assert_eq!(rows::map_of(input), Some(map));
            said.push("entry");
        }
        if let Some((slot, session, number)) = rows::parse_answer_row(input) {
            assert_eq!(rows::answer_row(slot, session, number)[7..], input[7..]);
            said.push("answer");
        }
        if let Some((session, first)) = rows::parse_lot_row(input) {
            assert_eq!(rows::lot_row(session, first)[7..], input[7..]);
            said.push("lot");
        }
        if let Some(session) = rows::parse_session_row(input) {
            assert_eq!(rows::session_row(session), input);
            said.push("session");
        }
        if let Some(job) = rows::parse_job_row(input) {
            assert_eq!(rows::job_row(job), input);
            job.slot();
            said.push("job");
        }
        if let Some(map) = rows::parse_dropped_row(input) {
            assert_eq!(rows::dropped_row(map), input);
            said.push("dropped");
        }
        assert!(!(rows::is_partition_wide(input) && slot.is_some()));
        format!("{said:?} {} {} {}", slot.is_some(), rows::is_map_row(input), rows::is_time_row(input))
    });
}

#[test]
fn number_and_fence() {
    let mut fence = Fence::default();
    fence.admit_marker(3, &Marker { term: 3, run: RunId(258) });
    Fuzz::new("number_and_fence", [fence.encode(), rows::encode_number(1 << 40)]).run(|input| {
        let number = rows::decode_number(input);
        assert!(number.is_none_or(|number| rows::encode_number(number) == input));
        let fence = Fence::decode(input);
        match &fence {
            Ok(fence) => {
                assert_eq!(fence.encode(), input);
                let mut next = *fence;
                next.admit_batch(1, &Batch { number: u64::MAX, ..batch() });
            }
            Err(error) => drop(refused(error, &[Code::UnknownFormat])),
        }
        format!("{} {}", number.is_some(), fence.is_ok())
    });
}

fn lot() -> Bytes {
    let mut lot = lots::OpenLot::new(7);
    lot.add(7, b"done");
    lot.add(9, b"");
    lot.add(8, &[3; lots::LARGEST]);
    lot.finish(6).2
}

#[test]
fn kept_lot() {
    Fuzz::new("kept_lot", [lot(), Bytes::from_static(b"\x01")]).run(|input| {
        let numbers: Vec<u64> = lots::numbers(input).collect();
        assert!(numbers.iter().all(|number| lots::find(input, *number).is_some()));
        match lots::check(input) {
            Ok(()) => format!("{} answers", numbers.len().min(3)),
            Err(error) => refused(&error, &[Code::UnknownFormat, Code::CorruptRow]),
        }
    });
}

fn job() -> JobInfo {
    let payload = TaskPayload { codec: ValueCodec::Json, data: Bytes::from_static(b"{}") };
    JobInfo {
        id: JobId::new(SLOT, 1 << 20),
        name: "job".to_owned(),
        key: Bytes::from_static(b"key"),
        payload: payload.clone(),
        state: JobState::Done,
        attempt: 2,
        node: Some(NodeId(3)),
        permille: 1000,
        text: "all".to_owned(),
        submitted_ms: 1,
        begun_ms: 2,
        ended_ms: 3,
        deadline_ms: 4,
        cancelling: false,
        outcome: Some(Ok(payload)),
    }
}

#[test]
fn job_row() {
    let failed = JobInfo { outcome: Some(Err(Error::new(Code::TooLarge, "much"))), state: JobState::Failed, ..job() };
    let seeds = [job(), failed].map(|job| jobs::encode(&job).expect("encodes"));
    Fuzz::new("job_row", seeds).run(|input| match jobs::decode(input) {
        Ok(job) => {
            let again = jobs::encode(&job).expect("encodes");
            assert_eq!(jobs::decode(&again).as_ref(), Ok(&job));
            format!("a job, {}", job.state.name())
        }
        Err(error) => refused(&error, &[Code::UnknownFormat, Code::CorruptRow]),
    });
}

#[test]
fn checkpoint_meta() {
    let position = Position { applied: Some(LogId::new_term_index(2, 9)), serve_from: 7, ..Position::default() };
    let seeds = [encode_meta(&Position::default(), 0), encode_meta(&position, 12)];
    Fuzz::new("checkpoint_meta", seeds).run(|input| match decode_meta(input) {
        Ok(position) => {
            let again = decode_meta(&encode_meta(&position, 0)).expect("decodes");
            assert_eq!(format!("{again:?}"), format!("{position:?}"));
            format!("a position, {}", index_of(&position.applied) > 0)
        }
        Err(error) => refused(&error, &[Code::UnknownFormat]),
    });
}

#[test]
fn snapshot_chunk() {
    let puts = batch().writes.into_iter().filter_map(|write| Some((write.row.clone(), write.value()?.clone())));
    let mut puts: Vec<(Bytes, Bytes)> = puts.collect();
    puts.sort();
    puts.dedup_by(|a, b| a.0 == b.0);
    let seeds = [encode_chunk(&puts), encode_chunk(&[])];
    Fuzz::new("snapshot_chunk", seeds).run(|input| match decode_chunk(bytes(input)) {
        Ok(rows) => {
            let again = encode_chunk(&rows);
            assert!(bytes(input).starts_with(&again), "one spelling");
            let memory = Memory::new(Some(1 << 20));
            let mut filling = Filling::new(&memory, true);
            rows.iter().for_each(|(row, value)| filling.add(row, value));
            let ordered = rows.windows(2).all(|pair| pair[0].0 < pair[1].0);
            if ordered {
                let state = filling.finish();
                state.indexes.map_sizes().for_each(drop);
            }
            format!("{} rows, in order {ordered}, to the end {}", rows.len().min(3), again.len() == input.len())
        }
        Err(error) => refused(&error, &[Code::UnknownFormat, Code::CorruptRow]),
    });
}

/// Stamps as a client may send them, one for each 8 bytes.
fn stamps(input: &[u8]) -> impl Iterator<Item = (u8, SessionStamp)> {
    input.as_chunks::<8>().0.iter().map(|&[what, session, number, lowest, previous, sent, wide, _]| {
        let number_of = |small: u8, bit: u8| match wide >> bit & 1 {
            0 => u64::from(small),
            _ => u64::MAX - u64::from(small),
        };
        let number = number_of(number, 0).max(1);
        let stamp = SessionStamp {
            session: SessionId(u64::from(session % 4) + 1),
            number,
            // What the edge lets pass.
            lowest_unanswered: number_of(lowest, 1).clamp(1, number),
            previous: Some(number_of(previous, 2)).filter(|previous| *previous > 0 && *previous < number),
            first_sent: HybridTime(number_of(sent, 3) << (16 * (wide >> 4 & 1))),
            given_up: Vec::new(),
        };
        (what, stamp)
    })
}

/// Drives sessions by stamps; gives how often each admission came.
fn drive(sessions: &mut Sessions, input: &[u8]) -> String {
    let mut now = HybridTime::from_ms(1_000);
    let mut seen = BTreeSet::new();
    for (what, stamp) in stamps(input).take(400) {
        now = now.tick(now.ms() + u64::from(what) * 50);
        let admission = sessions.admit(&stamp, SLOT);
        if admission == Admission::Execute {
            let answer = vec![what; if what % 3 == 0 { 300 } else { 4 }];
            sessions.record(&stamp, SLOT, &answer, now);
            if what % 2 == 0 {
                sessions.take_lots();
            }
            let again = sessions.admit(&stamp, SLOT);
            assert_ne!(again, Admission::Execute, "a write that was executed is not executed again");
        }
        if what % 7 == 0 {
            sessions.take_lots();
            sessions.expire(now, 2);
        }
        seen.insert(format!("{admission:?}").split(['(', ' ']).next().unwrap_or_default().to_owned());
    }
    format!("{seen:?}")
}

#[test]
fn session_stamps() {
    let seeds = [
        (1..40u8).flat_map(|n| [n, 1, n, n.saturating_sub(3), n - 1, 5, 0, 0]).collect::<Vec<u8>>(),
        (1..40u8).flat_map(|n| [n * 3, n % 4, n / 4, 1, 0, 200, n % 16, 0]).collect(),
    ];
    Fuzz::new("session_stamps", seeds).slow(3).bytes_per_byte(512).run(|input| {
        let limits = SessionLimits { max_sessions: 3, max_answers: 8, idle_ms: 2_000, ..SessionLimits::default() };
        drive(&mut Sessions::new(limits), input)
    });
}

/// Rows as one input: kind and length before each.
fn rows_of(input: &[u8]) -> Vec<(u8, Bytes)> {
    let (mut rest, mut rows) = (input, Vec::new());
    while let Some((&[kind, length], behind)) = rest.split_first_chunk() {
        let (row, behind) = behind.split_at(usize::from(length).min(behind.len()));
        rows.push((kind, bytes(row)));
        rest = behind;
    }
    rows
}

#[test]
fn session_rows() {
    let mut session = vec![1];
    for number in [7u64, HybridTime::from_ms(50_000).0, 0] {
        session.extend_from_slice(&number.to_le_bytes());
    }
    let mut seed = Vec::new();
    for (kind, row) in [(1u8, session), (130, lot()[..20].to_vec()), (132, lot()[..15].to_vec()), (1, vec![])] {
        seed.push(kind);
        seed.push(row.len() as u8);
        seed.extend_from_slice(&row);
    }
    Fuzz::new("session_rows", [seed]).run(|input| {
        let (sessions, answers): (Vec<_>, Vec<_>) = rows_of(input).into_iter().partition(|(kind, _)| *kind < 64);
        let sessions = sessions.into_iter().map(|(kind, row)| (SessionId(u64::from(kind % 4)), row));
        let answers = answers.into_iter().map(|(kind, row)| match kind % 2 {
            0 => KeptAnswer::Lot(SessionId(1), u64::from(kind), row),
            _ => KeptAnswer::Own(SessionId(1), u64::from(kind % 16), SLOT, row.len()),
        });
        match Sessions::rebuild(SessionLimits::default(), HybridTime(3), sessions, answers) {
            Ok(mut sessions) => {
                let said = drive(&mut sessions, &[1, 0, 250, 250, 3, 255, 0, 0].repeat(3));
                sessions.expire(HybridTime(u64::MAX), 100);
                format!("{} {said}", sessions.len())
            }
            Err(error) => refused(&error, &[Code::UnknownFormat, Code::CorruptRow]),
        }
    });
}
