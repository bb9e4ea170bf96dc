//! `count-entries`: how many entries a partition holds of a map, and their bytes. A partition
//! task: a broadcast gives the counts of all partitions.

use super::context::Handled;
use super::{Cursor, PartitionContext};
use serde::{Deserialize, Serialize};

/// The task's registered name.
pub const NAME: &str = "count-entries";

/// A payload, for those whose own is wrong.
pub(super) const EXAMPLE: &str = r#"{"map": "orders"}"#;

/// Entries that are looked at at once.
const PAGE: usize = 256;

/// What to count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The map.
    pub map: String,
}

/// A partition's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Entries.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Counts one partition's entries.
///
/// # Errors
/// `NoSuchMap`, `CorruptRow`.
pub fn handle(context: &mut PartitionContext<'_, '_>, input: Input) -> Handled<Output> {
    let (mut count, mut cursor) = (Output::default(), Cursor::default());
    while !cursor.ended() {
        for (key, value) in context.page(&input.map, &mut cursor, PAGE)? {
            count.entries += 1;
            count.bytes += (key.len() + value.data.len()) as u64;
        }
    }
    Ok(count)
}
