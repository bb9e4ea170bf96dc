//! Tasks that are cancelled, refused or answered, several at once on the same keys, so that they meet
//! in one turn: what a caller was told did not happen is never there, not even as part of what a later
//! task made of it; what was acknowledged is there once.

use super::clients::{check_error, connect, create_maps, decode_list, is_unknown, until_answered};
use super::peer::{KEEP, LISTS, REFUSE};
use super::{QUIET_FROM, Records};
use crate::checks::{Violation, once_each};
use crate::dice::Dice;
use crate::machine::Life;
use keystead::client::Client;
use keystead::clock::{Instant, sleep};
use keystead::error::{Code, Error};
use keystead::types::{TaskPayload, ValueCodec};
use std::collections::BTreeMap;
use std::time::Duration;

const KEYS: [&str; 2] = ["{u}0", "{u}1"];
/// Tasks that are sent at once, at most.
const AT_ONCE: u64 = 5;

/// What became of the marks of a key.
#[derive(Default)]
struct Marks {
    acknowledged: Vec<u64>,
    unknown: Vec<u64>,
}

impl Marks {
    fn check(&self, key: &str, found: &[u64]) -> Vec<Violation> {
        once_each(&format!("list {key}"), &self.acknowledged, &self.unknown, found)
    }
}

/// One task of a round.
#[derive(Clone, Copy)]
struct Sent {
    key: &'static str,
    mark: u64,
    how: u8,
    /// When it is cancelled after it was sent, if it is.
    cancel_ms: Option<u64>,
}

fn payload(mark: u64, how: u8) -> TaskPayload {
    let data = rmp_serde::to_vec(&(mark, how)).unwrap_or_default();
    TaskPayload { codec: ValueCodec::Msgpack, data: data.into() }
}

async fn send(client: &Client, sent: Sent) -> Result<(), Error> {
    let task = client.task_with_id("append", sent.key, payload(sent.mark, sent.how), sent.mark);
    let cancel = async {
        if let Some(after) = sent.cancel_ms {
            sleep(Duration::from_millis(after)).await;
            let report = client.cancel(sent.mark).await;
            crate::event!("u0", "cancelled {}: {report:?}", sent.mark);
        }
    };
    let (answer, ()) = futures::future::join(task, cancel).await;
    crate::event!("u0", "{} {} {}: {:?}", sent.key, sent.mark, sent.how, answer.as_ref().map_err(|error| error.code));
    answer.map(drop)
}

fn note(marks: &mut BTreeMap<&'static str, Marks>, sent: Sent, answer: Result<(), Error>, records: &Records) {
    let marks = marks.entry(sent.key).or_default();
    match answer {
        Ok(()) => marks.acknowledged.push(sent.mark),
        Err(error) if is_unknown(&error) && sent.how == KEEP => marks.unknown.push(sent.mark),
        Err(error) if is_unknown(&error) => {}
        Err(error) if error.code == Code::TaskCancelled && sent.cancel_ms.is_some() => {}
        Err(error) if error.code == Code::WrongCodec && sent.how == REFUSE => {}
        Err(error) => check_error(&error, records),
    }
}

/// Sends and cancels until everything is mended, and looks at what is there.
pub(super) async fn cancel(life: Life, seed: u64, endpoints: Vec<String>, records: Records) {
    let start = Instant::now();
    let client = connect(&life, &endpoints).await;
    create_maps(&client).await;
    let mut dice = Dice::new(seed, "cancels");
    let (mut marks, mut last) = (BTreeMap::new(), 77_u64 << 32);
    while start.elapsed() < QUIET_FROM {
        sleep(Duration::from_millis(dice.between(20, 250))).await;
        let round = (0..dice.between(1, AT_ONCE)).map(|_| {
            last += 1;
            let how = if dice.per_mille(250) { REFUSE } else { KEEP };
            let cancel_ms = dice.per_mille(400).then(|| dice.below(30));
            Sent { key: dice.pick::<&str>(&KEYS), mark: last, how, cancel_ms }
        });
        let round: Vec<Sent> = round.collect();
        let answers = futures::future::join_all(round.iter().map(|sent| send(&client, *sent))).await;
        for (sent, answer) in round.into_iter().zip(answers) {
            note(&mut marks, sent, answer, &records);
        }
    }
    for key in KEYS {
        let stored = until_answered(|| client.get(LISTS, key)).await;
        let found = stored.map(|stored| decode_list(&stored.value.data)).unwrap_or_default();
        crate::event!("u0", "{key} holds {found:?}");
        records.violations.borrow_mut().extend(marks.entry(key).or_default().check(key, &found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(found: &[u64]) -> String {
        let records = Records::default();
        let mut marks = BTreeMap::new();
        let sent = |mark, how, cancel_ms| Sent { key: KEYS[0], mark, how, cancel_ms };
        let error = |code| Err(Error::new(code, "told"));
        note(&mut marks, sent(1, KEEP, None), Ok(()), &records);
        note(&mut marks, sent(2, KEEP, Some(1)), error(Code::TaskCancelled), &records);
        note(&mut marks, sent(3, REFUSE, None), error(Code::WrongCodec), &records);
        note(&mut marks, sent(4, KEEP, Some(1)), error(Code::OutcomeUnknown), &records);
        note(&mut marks, sent(5, REFUSE, None), error(Code::OutcomeUnknown), &records);
        assert_eq!(*records.violations.borrow(), []);
        marks[KEYS[0]].check(KEYS[0], found).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_was_undone_is_never_there() {
        assert_eq!(says(&[1]), "");
        assert_eq!(says(&[1, 4]), "");
        assert!(says(&[1, 2]).contains("holds 2, which nobody sent"));
        assert!(says(&[3, 1]).contains("holds 3"));
        assert!(says(&[1, 5]).contains("holds 5"));
        assert!(says(&[4]).contains("lost 1"));
        assert!(says(&[1, 1]).contains("1 2 times"));
    }

    #[test]
    fn an_error_that_nothing_explains_is_named() {
        let (records, mut marks) = (Records::default(), BTreeMap::new());
        let sent = Sent { key: KEYS[0], mark: 1, how: KEEP, cancel_ms: None };
        note(&mut marks, sent, Err(Error::new(Code::TaskCancelled, "nobody did")), &records);
        assert_eq!(records.violations.borrow().len(), 1);
    }
}
