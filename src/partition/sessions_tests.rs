use super::sessions::*;
use super::{entry::RowWrite, rows};
use crate::error::Code;
use crate::types::{HybridTime, SessionId, SessionStamp, Slot};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SLOT: Slot = Slot(5);

fn stamp(session: u64, number: u64, lowest: u64, previous: Option<u64>, sent_ms: u64) -> SessionStamp {
    let (session, first_sent) = (SessionId(session), HybridTime::from_ms(sent_ms));
    SessionStamp { session, number, lowest_unanswered: lowest, previous, first_sent, given_up: Vec::new() }
}

const ANSWER: &[u8] = b"done";

/// Records a write in a turn of its own.
fn record(sessions: &mut Sessions, stamp: &SessionStamp, answer: &[u8], now: HybridTime) -> Vec<RowWrite> {
    let mut writes = sessions.record(stamp, SLOT, answer, now);
    writes.extend(sessions.take_lots());
    writes
}

#[test]
fn a_retry_gets_the_kept_answer_until_the_client_has_it() {
    let mut sessions = Sessions::new(SessionLimits::default());
    let first = stamp(1, 1, 1, None, 1000);
    assert_eq!(sessions.admit(&first, SLOT), Admission::Execute);
    let writes = record(&mut sessions, &first, ANSWER, HybridTime::from_ms(1000));
    assert!(writes.iter().any(|write| write.row == rows::session_row(SessionId(1))), "a new session has a row");
    assert_eq!(sessions.admit(&first, SLOT), Admission::Kept(rows::lot_row(SessionId(1), 1)));
    // Enough answered writes later the answer is gone, and the number is refused for good.
    for number in 2..80 {
        let next = stamp(1, number, number, None, 1000);
        record(&mut sessions, &next, ANSWER, HybridTime::from_ms(1000));
    }
    assert_eq!(sessions.admit(&first, SLOT), Admission::Ended);
}

#[test]
fn a_sessions_row_has_golden_bytes() {
    let mut sessions = Sessions::new(SessionLimits::default());
    let writes = record(&mut sessions, &stamp(1, 3, 2, None, 1), ANSWER, HybridTime::from_ms(1));
    let row = writes.iter().find(|write| write.row == rows::session_row(SessionId(1))).expect("a session's row");
    let mut expected = vec![2];
    expected.extend_from_slice(&2u64.to_le_bytes());
    expected.extend_from_slice(&HybridTime::from_ms(60_001).0.to_le_bytes());
    expected.extend_from_slice(&0u64.to_le_bytes());
    expected.extend_from_slice(&2u64.to_le_bytes());
    assert_eq!(row.value().map(|value| &value[..]), Some(&expected[..]));
}

#[test]
fn a_write_waits_for_its_previous_one() {
    let mut sessions = Sessions::new(SessionLimits::default());
    assert_eq!(sessions.admit(&stamp(1, 2, 1, Some(1), 1000), SLOT), Admission::ResendFrom(1));
    record(&mut sessions, &stamp(1, 1, 1, None, 1000), ANSWER, HybridTime::from_ms(1000));
    assert_eq!(sessions.admit(&stamp(1, 2, 1, Some(1), 1000), SLOT), Admission::Execute);
    assert_eq!(sessions.admit(&stamp(1, 4, 1, Some(3), 1000), SLOT), Admission::ResendFrom(3));
}

#[test]
fn what_was_given_up_does_not_come_late() {
    let now = HybridTime::from_ms(1000);
    for large in [false, true] {
        let (mut sessions, mut table) = (Sessions::new(SessionLimits::default()), Table::default());
        let answer = vec![7; if large { 300 } else { 4 }];
        table.turn.extend(sessions.record(&stamp(1, 1, 1, None, 1000), SLOT, &answer, now));
        table.end_turn(&mut sessions);
        // The client waits for 2 no more when it sends 3.
        let (late, next) = (stamp(1, 2, 1, None, 1000), stamp(1, 3, 3, None, 1000));
        assert_eq!(sessions.admit(&late, SLOT), Admission::Execute);
        assert_eq!(sessions.admit(&next, SLOT), Admission::Execute);
        table.turn.extend(sessions.record(&next, SLOT, &answer, now));
        assert_eq!(sessions.admit(&late, SLOT), Admission::Ended, "in the same turn");
        table.end_turn(&mut sessions);
        assert_eq!(sessions.admit(&late, SLOT), Admission::Ended);
        assert!(matches!(sessions.admit(&next, SLOT), Admission::Kept(_)), "a retry has its answer");
        let rebuilt = table.rebuild(SessionLimits::default());
        assert_eq!(rebuilt.admit(&late, SLOT), Admission::Ended, "with another leader, too; large: {large}");
        assert_eq!(rebuilt, sessions);
    }
}

/// A stamp that names what was given up.
fn naming(number: u64, lowest: u64, given_up: &[(u64, u64)]) -> SessionStamp {
    SessionStamp { given_up: given_up.to_vec(), ..stamp(1, number, lowest, None, 1000) }
}

#[test]
fn what_was_given_up_while_an_older_one_is_waited_for_does_not_come_late() {
    let now = HybridTime::from_ms(1000);
    for large in [false, true] {
        let (mut sessions, mut table) = (Sessions::new(SessionLimits::default()), Table::default());
        let answer = vec![7; if large { 300 } else { 4 }];
        table.turn.extend(sessions.record(&stamp(1, 4, 1, None, 1000), SLOT, &answer, now));
        table.end_turn(&mut sessions);
        // The client waits for 1 and 3 still, and for 2, 5 and 6 no more, when it sends 7.
        let next = naming(7, 1, &[(2, 2), (5, 6)]);
        assert_eq!(sessions.admit(&next, SLOT), Admission::Execute);
        table.turn.extend(sessions.record(&next, SLOT, &answer, now));
        assert_eq!(sessions.admit(&stamp(1, 6, 1, None, 1000), SLOT), Admission::Ended, "in the same turn");
        table.end_turn(&mut sessions);
        let rebuilt = table.rebuild(SessionLimits::default());
        assert_eq!(rebuilt, sessions);
        for sessions in [&sessions, &rebuilt] {
            for (late, admission) in [(2, Admission::Ended), (5, Admission::Ended), (6, Admission::Ended)] {
                assert_eq!(sessions.admit(&stamp(1, late, 1, None, 1000), SLOT), admission, "{late}, large: {large}");
            }
            for open in [1, 3, 8] {
                assert_eq!(sessions.admit(&stamp(1, open, 1, None, 1000), SLOT), Admission::Execute, "{open}");
            }
            assert!(matches!(sessions.admit(&stamp(1, 4, 1, None, 1000), SLOT), Admission::Kept(_)));
        }
        // That one of them was its previous one says nothing of those before it.
        assert_eq!(sessions.admit(&stamp(1, 8, 1, Some(6), 1000), SLOT), Admission::ResendFrom(6));
    }
}

#[test]
fn an_answer_that_is_kept_is_given_though_its_write_was_given_up() {
    let (mut sessions, now) = (Sessions::new(SessionLimits::default()), HybridTime::from_ms(1000));
    record(&mut sessions, &stamp(1, 2, 1, None, 1000), ANSWER, now);
    record(&mut sessions, &naming(3, 1, &[(2, 2)]), ANSWER, now);
    assert!(matches!(sessions.admit(&stamp(1, 2, 1, None, 1000), SLOT), Admission::Kept(_)));
}

#[test]
fn what_was_given_up_has_golden_bytes_and_goes_with_the_lowest_number() {
    let (mut sessions, now) = (Sessions::new(SessionLimits::default()), HybridTime::from_ms(1));
    let stamp_of = |number, lowest, given_up: &[(u64, u64)]| SessionStamp {
        given_up: given_up.to_vec(),
        ..stamp(1, number, lowest, None, 1)
    };
    let session_row = |writes: &[RowWrite]| {
        writes.iter().find(|write| write.row == rows::session_row(SessionId(1))).and_then(RowWrite::value).cloned()
    };
    let row = session_row(&record(&mut sessions, &stamp_of(9, 2, &[(1, 3), (5, 20)]), ANSWER, now)).expect("a row");
    let mut expected = vec![3];
    for number in [2, HybridTime::from_ms(60_001).0, 0, 2, 2, 3, 5, 8] {
        expected.extend_from_slice(&u64::to_le_bytes(number));
    }
    assert_eq!(row[..], expected[..]);
    assert_eq!(session_row(&record(&mut sessions, &stamp_of(10, 2, &[(6, 7)]), ANSWER, now)), None, "nothing is new");
    let row = session_row(&record(&mut sessions, &stamp_of(11, 8, &[(10, 10)]), ANSWER, now)).expect("a row");
    assert_eq!((row[0], row.len()), (3, 65), "8 and 10 are left");
    let rebuilt = |row: Bytes| Sessions::rebuild(SessionLimits::default(), now, [(SessionId(1), row)], []);
    assert_eq!(rebuilt(row.clone()).map(|_| ()), Ok(()));
    let short = row.slice(..row.len() - 1);
    assert_eq!(rebuilt(short).map(|_| ()).map_err(|error| error.code), Err(Code::UnknownFormat));
}

#[test]
fn what_a_session_has_given_up_is_bounded() {
    let limits = SessionLimits { max_given_up: 2, ..SessionLimits::default() };
    let (mut sessions, now) = (Sessions::new(limits), HybridTime::from_ms(1000));
    record(&mut sessions, &naming(9, 1, &[(2, 2), (4, 4)]), ANSWER, now);
    assert_eq!(sessions.admit(&naming(10, 1, &[(6, 6)]), SLOT), Admission::Full);
    assert_eq!(sessions.admit(&naming(10, 1, &[(3, 3)]), SLOT), Admission::Execute, "one range in place of two");
    assert_eq!(sessions.admit(&naming(10, 3, &[(6, 6)]), SLOT), Admission::Execute, "2 goes");
    assert_eq!(sessions.admit(&stamp(1, 10, 1, None, 1000), SLOT), Admission::Execute, "it names nothing");
}

#[test]
fn rows_of_earlier_builds_are_read() {
    let session: Bytes =
        [&[1][..], &2u64.to_le_bytes(), &HybridTime::from_ms(60_001).0.to_le_bytes(), &[0; 8]].concat().into();
    let lot = Bytes::from_static(b"\x01\x03\0\0\0\0\0\0\0\x04\0done");
    let kept = [KeptAnswer::Lot(SessionId(1), 3, lot)];
    let sessions = Sessions::rebuild(SessionLimits::default(), HybridTime::default(), [(SessionId(1), session)], kept);
    let sessions = sessions.expect("readable");
    assert_eq!(sessions.admit(&stamp(1, 1, 1, None, 1000), SLOT), Admission::Ended);
    assert!(matches!(sessions.admit(&stamp(1, 3, 3, None, 1000), SLOT), Admission::Kept(_)));
    assert_eq!(sessions.admit(&stamp(1, 4, 3, None, 1000), SLOT), Admission::Execute);
}

#[test]
fn what_was_sent_before_a_session_was_forgotten_never_runs_again() {
    let limits = SessionLimits { idle_ms: 1000, ..SessionLimits::default() };
    let mut sessions = Sessions::new(limits);
    let old = stamp(1, 1, 1, None, 5_000);
    record(&mut sessions, &old, ANSWER, HybridTime::from_ms(5_000));
    let later = HybridTime::from_ms(200_000);
    let ended = sessions.expire(later, 10);
    assert!(ended.contains(&RowWrite::drop(rows::lot_row(SessionId(1), 1))));
    assert_eq!(sessions.admit(&old, SLOT), Admission::Ended);
    assert_eq!(sessions.admit(&stamp(9, 1, 1, None, 5_000), SLOT), Admission::Ended);
    assert_eq!(sessions.admit(&stamp(9, 1, 1, None, 190_000), SLOT), Admission::Execute);
}

#[test]
fn sessions_and_answers_are_bounded() {
    let limits = SessionLimits { max_sessions: 3, max_answers: 2, ..SessionLimits::default() };
    let mut sessions = Sessions::new(limits);
    for id in 1..10 {
        record(&mut sessions, &stamp(id, 1, 1, None, id * 100_000), ANSWER, HybridTime::from_ms(id * 100_000));
        assert!(sessions.len() <= 3);
    }
    record(&mut sessions, &stamp(9, 2, 1, None, 900_001), ANSWER, HybridTime::from_ms(900_001));
    assert_eq!(sessions.admit(&stamp(9, 3, 1, None, 900_002), SLOT), Admission::Full);
    // Only such a write can tell that answers have been heard of: they make room for it, and go.
    let heard = stamp(9, 3, 3, None, 900_002);
    assert_eq!(sessions.admit(&heard, SLOT), Admission::Execute);
    record(&mut sessions, &heard, ANSWER, HybridTime::from_ms(900_002));
    assert_eq!(sessions.admit(&stamp(9, 1, 1, None, 900_001), SLOT), Admission::Ended);
    assert_eq!(sessions.admit(&stamp(9, 4, 3, None, 900_003), SLOT), Admission::Execute);
}

#[test]
fn the_session_that_makes_room_costs_no_new_one_its_writes() {
    let limits = SessionLimits { max_sessions: 2, ..SessionLimits::default() };
    let mut sessions = Sessions::new(limits);
    for id in 1..100 {
        let now = 1_000_000 + id * 10;
        let first = stamp(id, 1, 1, None, now - 1);
        assert_eq!(sessions.admit(&first, SLOT), Admission::Execute, "session {id}");
        record(&mut sessions, &first, ANSWER, HybridTime::from_ms(now));
        assert_eq!(sessions.len(), 2.min(id as usize));
        if id > 2 {
            assert_eq!(sessions.admit(&stamp(id - 2, 1, 1, None, now - 21), SLOT), Admission::Ended, "gone for good");
        }
    }
}

#[test]
fn the_bytes_of_answers_that_were_heard_of_make_room_too() {
    let limits = SessionLimits { max_answer_bytes: 500, ..SessionLimits::default() };
    let mut sessions = Sessions::new(limits);
    let now = HybridTime::from_ms(1000);
    record(&mut sessions, &stamp(1, 1, 1, None, 1000), &[7; 300], now);
    record(&mut sessions, &stamp(1, 2, 1, None, 1000), &[7; 300], now);
    assert_eq!(sessions.admit(&stamp(1, 3, 1, None, 1000), SLOT), Admission::Full);
    assert_eq!(sessions.admit(&stamp(1, 3, 2, None, 1000), SLOT), Admission::Execute, "300 bytes are left");
}

#[test]
fn large_answers_have_rows_of_their_own() {
    let mut sessions = Sessions::new(SessionLimits::default());
    let large = vec![7; 257];
    let writes = record(&mut sessions, &stamp(1, 1, 1, None, 1000), &large, HybridTime::from_ms(1000));
    assert!(writes.contains(&RowWrite::put(rows::answer_row(SLOT, SessionId(1), 1), large.into())));
    let writes = record(&mut sessions, &stamp(1, 2, 1, None, 1000), &[7; 256], HybridTime::from_ms(1000));
    assert!(writes.iter().any(|write| write.row == rows::lot_row(SessionId(1), 2)));
}

#[test]
fn a_lot_goes_with_its_last_answer() {
    let mut sessions = Sessions::new(SessionLimits::default());
    let now = HybridTime::from_ms(1000);
    // Ten writes in one turn; a retry within it gets its answer from the turn.
    for number in 1..=10 {
        sessions.record(&stamp(1, number, 1, None, 1000), SLOT, ANSWER, now);
    }
    assert_eq!(sessions.admit(&stamp(1, 3, 1, None, 1000), SLOT), Admission::Now(Bytes::from_static(ANSWER)));
    assert_eq!(sessions.take_lots().len(), 1);
    assert_eq!(sessions.admit(&stamp(1, 3, 1, None, 1000), SLOT), Admission::Kept(rows::lot_row(SessionId(1), 1)));
    let goes = |writes: &[RowWrite]| writes.contains(&RowWrite::drop(rows::lot_row(SessionId(1), 1)));
    // One answer of the first lot stays unanswered for long: the lot stays with it.
    let mut gone = Vec::new();
    for number in 11..=60 {
        gone.extend(record(&mut sessions, &stamp(1, number, 10, None, 1000), ANSWER, now));
    }
    assert!(!goes(&gone));
    for number in 61..=99 {
        gone.extend(record(&mut sessions, &stamp(1, number, number, None, 1000), ANSWER, now));
    }
    assert!(goes(&gone));
}

#[test]
fn answers_that_cannot_be_read_are_not_overlooked() {
    let limits = SessionLimits::default();
    let mut sessions = Sessions::new(limits);
    let writes = record(&mut sessions, &stamp(1, 1, 1, None, 1000), ANSWER, HybridTime::from_ms(1000));
    let row =
        |row: Bytes| writes.iter().find(|write| write.row == row).and_then(RowWrite::value).expect("a row").clone();
    let (session, lot) = (row(rows::session_row(SessionId(1))), row(rows::lot_row(SessionId(1), 1)));
    let rebuild = |session: &Bytes, lot: Bytes| {
        let (open, kept) = ([(SessionId(1), session.clone())], [KeptAnswer::Lot(SessionId(1), 1, lot)]);
        Sessions::rebuild(limits, HybridTime::default(), open, kept).map(|_| ()).map_err(|error| error.code)
    };
    assert_eq!(rebuild(&session, lot.clone()), Ok(()));
    let newer: Bytes = [&[3], &lot[1..]].concat().into();
    assert_eq!(rebuild(&session, newer), Err(Code::UnknownFormat));
    assert_eq!(rebuild(&session, lot.slice(..lot.len() - 1)), Err(Code::CorruptRow));
    let newer: Bytes = [&[4], &session[1..]].concat().into();
    assert_eq!(rebuild(&newer, lot), Err(Code::UnknownFormat));
}

#[derive(Clone, Debug)]
enum Step {
    Send { session: u64, retry: bool, large: bool },
    Turn,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (1u64..4, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(session, retry, large)| Step::Send { session, retry, large }),
        3 => Just(Step::Turn),
        1 => (1u64..400_000).prop_map(Step::Pass),
    ]
}

/// A model partition: what is written at the end of each turn.
#[derive(Default)]
struct Table {
    rows: BTreeMap<Bytes, Bytes>,
    turn: Vec<RowWrite>,
}

impl Table {
    fn end_turn(&mut self, sessions: &mut Sessions) {
        let lots = sessions.take_lots();
        for write in self.turn.drain(..).chain(lots) {
            match write.value() {
                Some(value) => drop(self.rows.insert(write.row.clone(), value.clone())),
                None => drop(self.rows.remove(&write.row)),
            }
        }
    }

    fn rebuild(&self, limits: SessionLimits) -> Sessions {
        let floor = self.rows.get(&rows::partition_row(rows::PartitionRow::SessionFloor));
        let floor = HybridTime(floor.and_then(|row| rows::decode_number(row)).unwrap_or(0));
        let open = self.rows.iter().filter_map(|(row, value)| Some((rows::parse_session_row(row)?, value.clone())));
        let answers = self.rows.iter();
        let answers = answers.filter_map(|(row, value)| KeptAnswer::of_row(row, value.len(), || Some(value.clone())));
        Sessions::rebuild(limits, floor, open.collect::<Vec<_>>(), answers.collect::<Vec<_>>()).expect("readable")
    }

    /// The kept answer that an admission points at.
    fn answer(&self, row: &Bytes, number: u64) -> Option<Bytes> {
        let value = self.rows.get(row)?;
        match rows::parse_lot_row(row) {
            Some(_) => super::lots::find(value, number),
            None => Some(value.clone()),
        }
    }
}

proptest! {
    /// Whatever happens, no number is executed twice, an answer that is kept is the right one, and
    /// rebuilding from the rows changes nothing.
    #[test]
    fn each_number_runs_once(steps in prop::collection::vec(step(), 1..300)) {
        let limits = SessionLimits { idle_ms: 60_000, max_sessions: 2, ..SessionLimits::default() };
        let mut sessions = Sessions::new(limits);
        let mut table = Table::default();
        let mut sent: BTreeMap<u64, Vec<SessionStamp>> = BTreeMap::new();
        let mut executed: BTreeMap<(SessionId, u64), Vec<u8>> = BTreeMap::new();
        let mut now = HybridTime::from_ms(1_000_000);
        for step in steps {
            match step {
                Step::Pass(ms) => now = HybridTime::from_ms(now.ms() + ms),
                Step::Turn => {
                    table.end_turn(&mut sessions);
                    prop_assert_eq!(&table.rebuild(limits), &sessions);
                    sessions.expire(now, 10).into_iter().for_each(|write| table.turn.push(write));
                }
                Step::Send { session, retry, large } => {
                    let known = sent.entry(session).or_default();
                    let number = known.len() as u64 + 1;
                    let fresh = stamp(session, number, number.saturating_sub(3).max(1), None, now.ms());
                    let one = if retry && !known.is_empty() { known[(now.0 as usize) % known.len()].clone() } else { known.push(fresh.clone()); fresh };
                    now = now.tick(now.ms());
                    match sessions.admit(&one, SLOT) {
                        Admission::Execute => {
                            let mut answer = one.number.to_le_bytes().to_vec();
                            answer.resize(if large { 300 } else { 9 }, 1);
                            prop_assert!(executed.insert((one.session, one.number), answer.clone()).is_none(), "{one:?} ran twice");
                            table.turn.extend(sessions.record(&one, SLOT, &answer, now));
                        }
                        Admission::Now(answer) => {
                            prop_assert_eq!(Some(&answer.to_vec()), executed.get(&(one.session, one.number)));
                        }
                        Admission::Kept(row) => {
                            // Large answers of the turn under way are seen through the overlay.
                            let pending = table.turn.iter().rev().find(|write| write.row == row);
                            let kept = match pending {
                                Some(write) => write.value().cloned(),
                                None => table.answer(&row, one.number),
                            };
                            let kept = kept.map(|kept| kept.to_vec());
                            prop_assert_eq!(kept.as_ref(), executed.get(&(one.session, one.number)));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
