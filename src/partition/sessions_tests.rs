use super::sessions::*;
use super::{entry::RowWrite, rows};
use crate::types::{HybridTime, SessionId, SessionStamp, Slot};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SLOT: Slot = Slot(5);

fn stamp(session: u64, number: u64, lowest: u64, previous: Option<u64>, sent_ms: u64) -> SessionStamp {
    let first_sent = HybridTime::from_ms(sent_ms);
    SessionStamp { session: SessionId(session), number, lowest_unanswered: lowest, previous, first_sent }
}

fn answer() -> Bytes {
    Bytes::from_static(b"done")
}

#[test]
fn a_retry_gets_the_kept_answer_until_the_client_has_it() {
    let mut sessions = Sessions::new(SessionLimits::default());
    let first = stamp(1, 1, 1, None, 1000);
    assert_eq!(sessions.admit(&first, SLOT), Admission::Execute);
    let writes = sessions.record(&first, SLOT, answer(), HybridTime::from_ms(1000));
    assert!(writes.iter().any(|write| write.row == rows::session_row(SessionId(1))), "a new session has a row");
    assert_eq!(sessions.admit(&first, SLOT), Admission::Kept(rows::answer_row(SLOT, SessionId(1), 1)));
    // Enough answered writes later the answer is gone, and the number is refused for good.
    for number in 2..80 {
        let next = stamp(1, number, number, None, 1000);
        sessions.record(&next, SLOT, answer(), HybridTime::from_ms(1000));
    }
    assert_eq!(sessions.admit(&first, SLOT), Admission::Ended);
}

#[test]
fn a_sessions_row_has_golden_bytes() {
    let mut sessions = Sessions::new(SessionLimits::default());
    let writes = sessions.record(&stamp(1, 3, 2, None, 1), SLOT, answer(), HybridTime::from_ms(1));
    let row = writes.iter().find(|write| write.row == rows::session_row(SessionId(1))).expect("a session's row");
    let mut expected = vec![1];
    expected.extend_from_slice(&2u64.to_le_bytes());
    expected.extend_from_slice(&HybridTime::from_ms(60_001).0.to_le_bytes());
    expected.extend_from_slice(&0u64.to_le_bytes());
    assert_eq!(row.value().map(|value| &value[..]), Some(&expected[..]));
}

#[test]
fn a_write_waits_for_its_previous_one() {
    let mut sessions = Sessions::new(SessionLimits::default());
    assert_eq!(sessions.admit(&stamp(1, 2, 1, Some(1), 1000), SLOT), Admission::ResendFrom(1));
    sessions.record(&stamp(1, 1, 1, None, 1000), SLOT, answer(), HybridTime::from_ms(1000));
    assert_eq!(sessions.admit(&stamp(1, 2, 1, Some(1), 1000), SLOT), Admission::Execute);
    assert_eq!(sessions.admit(&stamp(1, 4, 1, Some(3), 1000), SLOT), Admission::ResendFrom(3));
}

#[test]
fn what_was_sent_before_a_session_was_forgotten_never_runs_again() {
    let limits = SessionLimits { idle_ms: 1000, ..SessionLimits::default() };
    let mut sessions = Sessions::new(limits);
    let old = stamp(1, 1, 1, None, 5_000);
    sessions.record(&old, SLOT, answer(), HybridTime::from_ms(5_000));
    let later = HybridTime::from_ms(200_000);
    let ended = sessions.expire(later, 10);
    assert!(ended.contains(&RowWrite::drop(rows::answer_row(SLOT, SessionId(1), 1))));
    assert_eq!(sessions.admit(&old, SLOT), Admission::Ended);
    assert_eq!(sessions.admit(&stamp(9, 1, 1, None, 5_000), SLOT), Admission::Ended);
    assert_eq!(sessions.admit(&stamp(9, 1, 1, None, 190_000), SLOT), Admission::Execute);
}

#[test]
fn sessions_and_answers_are_bounded() {
    let limits = SessionLimits { max_sessions: 3, max_answers: 2, ..SessionLimits::default() };
    let mut sessions = Sessions::new(limits);
    for id in 1..10 {
        sessions.record(&stamp(id, 1, 1, None, id * 100_000), SLOT, answer(), HybridTime::from_ms(id * 100_000));
        assert!(sessions.len() <= 3);
    }
    sessions.record(&stamp(9, 2, 1, None, 900_001), SLOT, answer(), HybridTime::from_ms(900_001));
    assert_eq!(sessions.admit(&stamp(9, 3, 1, None, 900_002), SLOT), Admission::Full);
}

#[derive(Clone, Debug)]
enum Step {
    Send { session: u64, retry: bool },
    Pass(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..4, any::<bool>()).prop_map(|(session, retry)| Step::Send { session, retry }),
        2 => (1u64..400_000).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens, no number is executed twice, and rebuilding from the rows changes nothing.
    #[test]
    fn each_number_runs_once(steps in prop::collection::vec(step(), 1..200)) {
        let limits = SessionLimits { idle_ms: 60_000, max_sessions: 2, ..SessionLimits::default() };
        let mut sessions = Sessions::new(limits);
        let mut table: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let mut sent: BTreeMap<u64, Vec<SessionStamp>> = BTreeMap::new();
        let mut executed = BTreeSet::new();
        let mut now = HybridTime::from_ms(1_000_000);
        for step in steps {
            match step {
                Step::Pass(ms) => now = HybridTime::from_ms(now.ms() + ms),
                Step::Restart => {}
                Step::Send { session, retry } => {
                    let known = sent.entry(session).or_default();
                    let number = known.len() as u64 + 1;
                    let fresh = stamp(session, number, number.saturating_sub(3).max(1), None, now.ms());
                    let one = if retry && !known.is_empty() { known[(now.0 as usize) % known.len()].clone() } else { known.push(fresh.clone()); fresh };
                    now = now.tick(now.ms());
                    if sessions.admit(&one, SLOT) == Admission::Execute {
                        prop_assert!(executed.insert((one.session, one.number)), "{one:?} ran twice");
                        for write in sessions.record(&one, SLOT, answer(), now) {
                            match write.value() {
                                Some(value) => table.insert(write.row.clone(), value.clone()),
                                None => table.remove(&write.row),
                            };
                        }
                    }
                }
            }
            let floor = table.get(&rows::partition_row(rows::PartitionRow::SessionFloor));
            let floor = HybridTime(floor.and_then(|row| rows::decode_number(row)).unwrap_or(0));
            let open = table.iter().filter_map(|(row, value)| Some((rows::parse_session_row(row)?, value.clone())));
            let answers = table.iter().filter_map(|(row, value)| {
                let (slot, session, number) = rows::parse_answer_row(row)?;
                Some((session, number, slot, value.len()))
            });
            prop_assert_eq!(&Sessions::rebuild(limits, floor, open.collect::<Vec<_>>(), answers.collect::<Vec<_>>()), &sessions);
        }
    }
}
