//! What the clients of a history do, through the real client: an [`Action`] becomes a call, and the call's
//! answer an [`Answer`]; and what an error says of a write. The simulated clients and those of real
//! processes ask alike.

use crate::history::{Action, Answer};
use keystead::client::{Client, Conditional, Removed};
use keystead::error::{Class, Code, Error, Result};
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

/// Whether a client that is answered a write with this code may be sure that it took no effect and never
/// will: the code's own meaning, or what the client promises of it. Every code is named, so that a new
/// one is thought about; of those that are no answer to a write nothing is known.
pub fn says_without_effect(code: Code) -> bool {
    match code {
        // Refused before anything was done with it.
        Code::InvalidRequest | Code::InvalidName | Code::WrongCodec | Code::NumberOverflow | Code::CrossSlot => true,
        Code::NoSuchMap | Code::NoSuchTask | Code::NoSuchKey | Code::NoSuchMember => true,
        Code::MapExists | Code::RowChanged | Code::ConditionFailed => true,
        Code::ClockAhead | Code::ForeignGrid | Code::ProtocolMismatch | Code::Unauthorized | Code::MemberRemoved => {
            true
        }
        // Nobody took it in. Where an earlier attempt may have reached a log, the client says
        // `OutcomeUnknown` instead.
        Code::NotLeader | Code::NoLeader | Code::PeerUnreachable | Code::NotReady | Code::ShuttingDown => true,
        Code::NoMajority | Code::TaskNotCarried | Code::ResendFrom => true,
        // The client's promise: the time was over, and nothing had been sent that could take effect.
        Code::DeadlineExceeded => true,
        // There was no room for it.
        Code::Overloaded | Code::SessionFull | Code::MapFull | Code::MemoryFull | Code::ReplicatedFull => true,
        Code::DiskFull => true,
        // A task whose writes were undone.
        Code::TaskFailed | Code::TaskPanicked | Code::TaskOverrun | Code::TaskOutsideSlot | Code::TooLate => true,
        Code::RemoteCallInTask | Code::TaskCancelled => true,
        // Said of what is unknown.
        Code::OutcomeUnknown | Code::SessionEnded => false,
        // Of an answer as well: what it answers may have been done.
        Code::TooLarge | Code::TaskCodec | Code::NewerSchema | Code::ValueMismatch => false,
        // Some of it was done.
        Code::PartitionsFailed | Code::JobGaveUp => false,
        // Damage and bugs come at any moment of a write.
        Code::DiskFailed | Code::CorruptLog | Code::CorruptRow | Code::UnknownFormat | Code::Internal => false,
        // No answers to a write.
        Code::InvalidConfig | Code::PublicAddress | Code::AddressInUse | Code::NoSuchJob | Code::DataDirBusy => false,
        Code::DataDirUnwritable | Code::FoundingMismatch | Code::Compacted | Code::InvalidToken => false,
        Code::TooManyWatches | Code::NoLocalCopy => false,
    }
}

/// Whether peers that die, stand still, or have no room excuse this answer; of any other the question
/// is why it was given.
pub fn is_excused(code: Code) -> bool {
    let class = code.facts().0;
    matches!(class, Class::OutcomeUnknown | Class::Unavailable | Class::DeadlineExceeded | Class::Exhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_leaves_a_write_open_counts_as_without_effect() {
        for code in Code::ALL.iter().copied() {
            let open = matches!(code.facts().0, Class::OutcomeUnknown | Class::DataLoss | Class::Internal);
            assert!(!(open && says_without_effect(code)), "{code}");
        }
        assert!(!says_without_effect(Code::TaskCodec), "the task may have run");
        for code in [Code::NoLeader, Code::DiskFull, Code::DeadlineExceeded, Code::MapFull, Code::TaskFailed] {
            assert!(says_without_effect(code), "{code}");
        }
    }

    #[test]
    fn a_bug_is_never_excused() {
        assert!(is_excused(Code::NoMajority) && is_excused(Code::OutcomeUnknown) && is_excused(Code::DiskFull));
        assert!(!is_excused(Code::Internal) && !is_excused(Code::NoSuchMap) && !is_excused(Code::CorruptRow));
    }
}
