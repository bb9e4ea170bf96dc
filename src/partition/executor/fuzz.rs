//! Fuzz target: kept answers.

use super::answers::{decode, encode};
use crate::error::{Code, Error};
use crate::fuzzing::Fuzz;
use crate::types::{Cursor, MapId, ReplyBody, Slot, StoredValue, Value};

#[test]
fn kept_answer() {
    let stored = StoredValue::new(4, Value::utf8("text"));
    let next = Some(Cursor { map: MapId(1), slot: Slot(2), after: Some("k".into()) });
    let answers = [
        Ok(ReplyBody::Written { revision: 9, previous: Some(stored.clone()) }),
        Ok(ReplyBody::ConditionFailed(Some(stored.clone()))),
        Ok(ReplyBody::Page { entries: vec![("k".into(), stored)], next }),
        Ok(ReplyBody::Number { value: -1, revision: 3 }),
        Err(Error::new(Code::MapFull, "full").at("here").remedy("make room")),
    ];
    Fuzz::new("kept_answer", answers.map(|answer| encode(&answer).expect("encodes"))).run(|input| {
        match decode(input) {
            Ok(answer) => {
                let again = encode(&answer).expect("encodes");
                assert_eq!(decode(&again), Ok(answer.clone()));
                format!("{:?}", answer.map(|body| std::mem::discriminant(&body)).map_err(|error| error.code))
            }
            Err(error) => {
                assert!(matches!(error.code, Code::UnknownFormat | Code::CorruptRow), "{error}");
                error.what
            }
        }
    });
}
