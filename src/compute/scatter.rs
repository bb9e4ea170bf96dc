//! Scatter-gather: a step on every partition, combined on each peer, reduced at the peer that was
//! asked. The steps run beside the partitions' turns, on threads of their own: they may take long,
//! and they only read. A step that was lost with its peer is run again on the next leader.

use super::context::{Entries, Handled};
use super::registry::Given;
use super::{Cursor, payload};
use crate::error::{Code, Error, Result};
use crate::partition::SlotView;
use crate::types::{KeyCodec, PartitionId, Slot, TaskPayload, Value, ValueCodec};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// User code in three steps. `Part` is what travels between them; it should stay small.
pub trait Scatter: Send + Sync + 'static {
    /// What the caller gives.
    type Input: DeserializeOwned;
    /// What one partition, or several together, give.
    type Part: Serialize + DeserializeOwned;
    /// What the caller gets.
    type Output: Serialize;

    /// Reads one partition.
    ///
    /// # Errors
    /// Its own, and those of reading.
    fn map(&self, partition: &mut PartitionScan<'_>, input: &Self::Input) -> Handled<Self::Part>;

    /// Puts two parts together. Parts come in any order and any grouping.
    fn combine(&self, input: &Self::Input, into: &mut Self::Part, other: Self::Part);

    /// Makes the answer; `None` when no partition gave a part. What it writes is written before
    /// the answer leaves, perhaps more than once.
    ///
    /// # Errors
    /// Its own.
    fn reduce(&self, input: &Self::Input, all: Option<Self::Part>, into: &mut Vec<ResultMap>) -> Handled<Self::Output>;
}

/// Entries that a reduction writes to a map, which is created if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultMap {
    /// The map.
    pub map: String,
    /// Its keys' codec, should it be created.
    pub key_codec: KeyCodec,
    /// Its values' codec.
    pub value_codec: ValueCodec,
    /// What is written.
    pub entries: Entries,
}

/// An answer with what goes to maps before it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduced {
    /// The answer.
    pub answer: TaskPayload,
    /// What is written.
    pub writes: Vec<ResultMap>,
}

/// Asked between pages whether to go on.
pub type GoOn<'a> = &'a (dyn Fn() -> Result<()> + Send + Sync);

/// One partition's entries, read beside its turns: each entry as it is when its page is read, and
/// no older than the scatter's begin. Not a snapshot: what is written meanwhile may be seen or not.
pub struct PartitionScan<'a> {
    view: &'a dyn SlotView,
    partition: PartitionId,
    slots: (Slot, Slot),
    go_on: GoOn<'a>,
    reads: u64,
}

/// Entries that [`PartitionScan::each`] holds at once.
const PAGE: usize = 256;

impl<'a> PartitionScan<'a> {
    /// Reads `view`, which holds these slots.
    pub fn new(view: &'a dyn SlotView, partition: PartitionId, slots: (Slot, Slot), go_on: GoOn<'a>) -> Self {
        PartitionScan { view, partition, slots, go_on, reads: 0 }
    }

    /// Which partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Its first and last slot.
    pub fn slots(&self) -> (Slot, Slot) {
        self.slots
    }

    /// Entries read so far.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// The next entries of a map, at most `limit` and about 256 KiB, by slot and key.
    ///
    /// # Errors
    /// `NoSuchMap`, `CorruptRow`; `TaskCancelled` and others when it is not to go on.
    pub fn page(&mut self, map: &str, cursor: &mut Cursor, limit: usize) -> Result<Entries> {
        if cursor.ended {
            return Ok(Entries::new());
        }
        (self.go_on)()?;
        let page = self.view.page(self.slots, map, cursor.after.as_ref(), limit.max(1))?;
        self.reads += page.entries.len() as u64;
        let end = page.entries.last().map(|(place, _)| place.clone()).filter(|_| page.more);
        cursor.advance(end);
        Ok(page.entries.into_iter().map(|((_, key), stored)| (key, stored.value)).collect())
    }

    /// Visits every entry of a map, holding a bounded part of them at a time.
    ///
    /// # Errors
    /// As [`PartitionScan::page`]; the visitor's.
    pub fn each(&mut self, map: &str, mut visit: impl FnMut(&[u8], &Value) -> Handled<()>) -> Handled<()> {
        let mut cursor = Cursor::default();
        while !cursor.ended() {
            for (key, value) in self.page(map, &mut cursor, PAGE)? {
                visit(&key, &value)?;
            }
        }
        Ok(())
    }
}

/// A [`Scatter`] with its types hidden.
pub(super) trait AnyScatter: Send + Sync {
    fn map(&self, scan: &mut PartitionScan<'_>, given: &Given<'_>) -> Handled<Bytes>;
    fn combine(&self, given: &Given<'_>, parts: Vec<Bytes>) -> Handled<Bytes>;
    fn reduce(&self, given: &Given<'_>, all: Option<Bytes>) -> Handled<Reduced>;
}

/// Parts travel as MessagePack with field names.
fn encode_part<P: Serialize>(part: &P) -> Result<Bytes> {
    let encoded = rmp_serde::to_vec_named(part);
    encoded.map(Bytes::from).map_err(|error| Error::new(Code::TaskCodec, format!("a part cannot be encoded: {error}")))
}

fn decode_part<P: DeserializeOwned>(bytes: &[u8]) -> Result<P> {
    let decoded = crate::types::msgpack::from_slice(bytes);
    decoded.map_err(|error| Error::new(Code::TaskCodec, format!("another peer's part cannot be read: {error}")))
}

impl<S: Scatter> AnyScatter for S {
    fn map(&self, scan: &mut PartitionScan<'_>, given: &Given<'_>) -> Handled<Bytes> {
        Ok(encode_part(&Scatter::map(self, scan, &given.decode()?)?)?)
    }

    fn combine(&self, given: &Given<'_>, parts: Vec<Bytes>) -> Handled<Bytes> {
        let input = given.decode()?;
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return Err(Error::internal("no parts to combine").into()) };
        if parts.len() == 0 {
            return Ok(first);
        }
        let mut all = decode_part(&first)?;
        for part in parts {
            Scatter::combine(self, &input, &mut all, decode_part(&part)?);
        }
        Ok(encode_part(&all)?)
    }

    fn reduce(&self, given: &Given<'_>, all: Option<Bytes>) -> Handled<Reduced> {
        let all = all.map(|all| decode_part(&all)).transpose()?;
        let mut writes = Vec::new();
        let output = Scatter::reduce(self, &given.decode()?, all, &mut writes)?;
        Ok(Reduced { answer: payload::encode(given.payload.codec, &output)?, writes })
    }
}
