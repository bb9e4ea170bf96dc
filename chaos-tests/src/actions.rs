//! What the clients of a history do, through the real client: an [`Action`] becomes a call, and the call's
//! answer an [`Answer`]. The simulated clients and those of real processes ask alike.

use crate::history::{Action, Answer};
use keystead::client::{Client, Conditional, Removed};
use keystead::error::{Error, Result};
use keystead::types::{AckLevel, Condition, StoredValue, Value};

/// The number that is stored.
///
/// # Errors
/// `Internal`, when it has another length.
pub fn number(stored: Option<StoredValue>) -> Result<Option<i64>> {
    let decode = |stored: StoredValue| {
        let bytes = stored.value.data.as_ref().try_into();
        bytes.map(i64::from_le_bytes).map_err(|_| Error::internal("a number of another length"))
    };
    stored.map(decode).transpose()
}

/// Performs an action on a key of a map of numbers; gives the answer and the level that it names.
///
/// # Errors
/// The client's.
pub async fn perform(client: &Client, map: &str, key: &str, action: Action) -> Result<(Answer, Option<AckLevel>)> {
    let conditional = |outcome: Conditional| match outcome {
        Conditional::Written(written) => Ok((Answer::Written, Some(written.served.ack))),
        Conditional::Refused { present, served } => Ok((Answer::Refused(number(present)?), Some(served.ack))),
    };
    match action {
        Action::Get => Ok((Answer::Value(number(client.get(map, key).await?)?), None)),
        Action::Put(new) => {
            let written = client.put(map, key, Value::i64(new)).await?;
            Ok((Answer::Written, Some(written.served.ack)))
        }
        Action::Replace(new) => conditional(client.replace(map, key, Value::i64(new)).await?),
        Action::GetAndPut(new) => {
            let replaced = client.get_and_put(map, key, Value::i64(new)).await?;
            Ok((Answer::Replaced(number(replaced.previous)?), Some(replaced.written.served.ack)))
        }
        Action::RemoveIf(expected) => match client.remove_if(map, key, Condition::Value(Value::i64(expected))).await? {
            Removed::Deleted(deleted) => Ok((Answer::Deleted(deleted.existed), Some(deleted.served.ack))),
            Removed::Refused { present, served } => Ok((Answer::Refused(number(present)?), Some(served.ack))),
        },
        Action::PutIfAbsent(new) => conditional(client.put_if_absent(map, key, Value::i64(new)).await?),
        Action::CompareAndSet { expected, new } => {
            let expected = Value::i64(expected.unwrap_or_default());
            conditional(client.compare_and_set(map, key, expected, Value::i64(new)).await?)
        }
        Action::Delete => {
            let deleted = client.delete(map, key).await?;
            Ok((Answer::Deleted(deleted.existed), Some(deleted.served.ack)))
        }
        Action::Increment(delta) => {
            let number = client.increment(map, key, delta).await?;
            Ok((Answer::Number(number.value), Some(number.served.ack)))
        }
    }
}
