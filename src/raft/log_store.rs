//! openraft's log storage over the node's shared log. In: entries, votes, marks of one replica,
//! from its Raft core; out: the same, to the core and to replication. Encodes and decodes; the
//! order and durability of writes are the shared log's.

use super::log_codec::{
    decode_entry, decode_entry_id, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
};
use super::types::{Entry, LogId, TypeConfig, Vote};
use super::witness::{Deed, LogPlace, Watched, voters_of};
use crate::error::{Code, Error};
use crate::failpoint;
use crate::storage::log::GroupLog;
use bytes::Bytes;
use futures::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, entry::RaftEntry};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

/// One read for replication takes at most so many bytes of entries, or a single entry.
const READ_BYTES: usize = 1 << 20;

/// The log of one replica, as openraft wants it. A cheap clone; clones are readers.
#[derive(Clone)]
pub struct LogStore {
    log: GroupLog,
    watched: Watched,
}

impl LogStore {
    /// The store over a replica's log.
    pub fn new(log: GroupLog) -> Self {
        LogStore { log, watched: Watched::default() }
    }

    /// The same under the eyes of a witness.
    pub(super) fn watched(self, watched: Watched) -> Self {
        LogStore { watched, ..self }
    }

    /// The replica's log.
    pub fn log(&self) -> &GroupLog {
        &self.log
    }

    /// The vote as saved; `None` without one, or when it cannot be read.
    pub fn saved_vote(&self) -> Option<Vote> {
        decode_vote(&self.log.vote()?).ok()
    }

    async fn entries(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let found = self.log.read(start..end, max_bytes).await.map_err(to_io)?;
        found.iter().map(|(_, bytes)| decode_entry(bytes)).collect()
    }
}

/// The log's errors as openraft takes them; a full disk keeps its kind.
fn to_io(error: Error) -> io::Error {
    let kind = match error.code {
        Code::DiskFull => io::ErrorKind::StorageFull,
        Code::CorruptLog => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.entries(start, end, usize::MAX).await
    }

    /// What is to be applied. Entries that were not written for want of room are gone again, though
    /// openraft counts them as appended until it hears of that: they are an error here, not an end.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let mut items = match self.entries(start, end, usize::MAX).await {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        if (items.len() as u64) < end.saturating_sub(start) && self.log.refused() {
            items.push(Err(to_io(Error::new(Code::DiskFull, "entries to be applied were not written"))));
        }
        stream::iter(items)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, READ_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.vote().map(|bytes| decode_vote(&bytes)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let extent = self.log.extent();
        let last_purged_log_id = extent.purged.map(|(_, id)| decode_log_id(&id)).transpose()?;
        let mut last_log_id = last_purged_log_id;
        if !extent.entries.is_empty() {
            let end = extent.entries.end;
            let last = self.log.read(end - 1..end, READ_BYTES).await.map_err(to_io)?;
            if let Some((_, bytes)) = last.first() {
                last_log_id = Some(decode_entry_id(bytes)?);
            }
        }
        self.watched.told(|| Deed::Starts {
            last: last_log_id.as_ref().map(LogPlace::from),
            vote: self.saved_vote().as_ref().map(Into::into),
        });
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        failpoint::reach("vote-before-save");
        self.log.save_vote(encode_vote(vote)).await.map_err(to_io)?;
        failpoint::reach("vote-after-save");
        self.watched.told(|| Deed::Votes(vote.into()));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log.save_committed(committed.map_or_else(Bytes::new, |id| encode_log_id(&id)));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let mark = self.log.committed().filter(|bytes| !bytes.is_empty());
        let Some(mark) = mark.map(|bytes| decode_log_id(&bytes)).transpose()? else { return Ok(None) };
        // Where the disk was full, the mark may name an entry that was never written: what stands at
        // its place, or below, may then be another's. The leader will say what is committed.
        let extent = self.log.extent();
        if mark.index() < extent.entries.start {
            return Ok(Some(mark));
        }
        let there = self.log.read(mark.index()..mark.index() + 1, READ_BYTES).await.map_err(to_io)?;
        let same = there.first().map(|(_, bytes)| decode_entry_id(bytes)).transpose()? == Some(mark);
        Ok(same.then_some(mark))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encode = |entry: Entry| {
            let bytes = encode_entry(&entry)?;
            let at = LogPlace::from(&entry.log_id);
            self.watched.told(|| Deed::Appends { at, bytes: &bytes, voters: voters_of(&entry) });
            Ok((entry.index(), bytes))
        };
        let entries = entries.into_iter().map(encode).collect::<io::Result<Vec<_>>>()?;
        failpoint::reach("append-before-queue");
        let bounds = entries.first().zip(entries.last()).map(|((first, _), (last, _))| (*first, *last));
        let watched = self.watched.clone();
        let done = move |result: io::Result<()>| {
            failpoint::reach("append-before-callback");
            if let Some((first, last)) = bounds.filter(|_| watched.listens()) {
                watched.told(|| if result.is_ok() { Deed::Durable(last) } else { Deed::TakesBack(first) });
            }
            callback.io_completed(result);
        };
        self.log.append(entries, done).await.map_err(to_io)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        failpoint::reach("truncate-before-queue");
        let after = last_log_id.map(|id| id.index());
        self.watched.told(|| Deed::Truncates(after));
        self.log.truncate_after(after).await.map_err(to_io)?;
        failpoint::reach("truncate-after-queue");
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        failpoint::reach("purge-before-queue");
        self.log.purge(log_id.index(), encode_log_id(&log_id)).await.map_err(to_io)?;
        self.watched.told(|| Deed::Purges((&log_id).into()));
        failpoint::reach("purge-after-queue");
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_store_tests.rs"]
mod tests;
