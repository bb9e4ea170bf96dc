//! The feed: the last changes of a replica's map entries, so that whoever follows a map can go on
//! where it stopped. In: batches that took effect, in order. Out: changes behind a revision, or
//! the floor below which nothing is kept any more.
//!
//! It is built alike on every replica, leader or not, and lives in RAM alone: after a restart it
//! begins with what the log's replay gives, after an installed snapshot with what follows that. It
//! is bounded in bytes, per partition and for all partitions of the node together; the oldest
//! batches go first. A reader holds no place in it: who is too slow finds that it is compacted.

use super::entry::{Batch, Change};
use super::memory::Memory;
use super::rows::{self, PartitionRow};
use crate::types::{HybridTime, RemovalCause};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;

/// Bounds of the history that a node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedLimits {
    /// Bytes per partition.
    pub per_partition: usize,
    /// Bytes of all partitions that the node holds.
    pub per_node: usize,
}

/// What a block costs besides its bytes.
const BLOCK_OVERHEAD: usize = 96;

/// One read looks at no more than about so many bytes of history, whatever the filter lets
/// through: the lock is not held, but the thread is.
const READ_BYTES: usize = 4 << 20;

/// One change, as a reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedChange {
    /// The partition's revision of the change.
    pub revision: u64,
    /// The partition's time, Unix milliseconds.
    pub time_ms: u64,
    /// The entry's row.
    pub row: Bytes,
    /// The stored value, or why the entry went.
    pub change: std::result::Result<Bytes, RemovalCause>,
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPage {
    /// The changes that were asked for, in order.
    pub changes: Vec<FeedChange>,
    /// All changes up to this revision have been looked at.
    pub upto: u64,
    /// The newest revision there is.
    pub head: u64,
}

/// The history no longer has what was asked for: nothing at or below this revision is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted(pub u64);

/// The changes of one batch: per change revision (8) | row length (4) | row | 0, 1 or 2 for a
/// removal's cause, or 255 | value length (4) | value. In RAM only.
#[derive(Clone)]
struct Block {
    last: u64,
    time_ms: u64,
    changes: Bytes,
}

impl Block {
    fn cost(&self) -> usize {
        BLOCK_OVERHEAD + self.changes.len()
    }
}

#[derive(Default)]
struct History {
    blocks: VecDeque<Block>,
    floor: u64,
    head: u64,
    /// Nothing has been added since the rows came from a checkpoint or a snapshot. They may be
    /// newer than where the log's replay begins, so the floor may turn out to lie lower.
    fresh: bool,
}

/// One replica's feed.
pub struct Feed {
    pool: Arc<FeedPool>,
    history: Mutex<History>,
    bytes: AtomicUsize,
    head: watch::Sender<u64>,
}

/// The feeds of a node, which share a bound.
pub struct FeedPool {
    limits: FeedLimits,
    /// The node's account of RAM: history counts, too.
    memory: Arc<Memory>,
    bytes: AtomicUsize,
    feeds: Mutex<Vec<Weak<Feed>>>,
}

impl FeedPool {
    /// No feeds yet.
    pub fn new(limits: FeedLimits, memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(FeedPool { limits, memory, bytes: AtomicUsize::new(0), feeds: Mutex::default() })
    }

    /// A new replica's feed.
    pub fn feed(self: &Arc<Self>) -> Arc<Feed> {
        let feed = Arc::new(Feed {
            pool: self.clone(),
            history: Mutex::default(),
            bytes: AtomicUsize::new(0),
            head: watch::Sender::new(0),
        });
        let mut feeds = self.feeds();
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(&feed));
        feed
    }

    /// Bytes that all feeds hold.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn feeds(&self) -> MutexGuard<'_, Vec<Weak<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from the largest feeds until the bound is met. The caller holds no feed's lock.
    fn trim(&self) {
        while self.bytes() > self.limits.per_node {
            let feeds: Vec<Arc<Feed>> = self.feeds().iter().filter_map(Weak::upgrade).collect();
            let largest = feeds.iter().max_by_key(|feed| feed.bytes.load(Ordering::Relaxed));
            if !largest.is_some_and(|feed| feed.drop_oldest()) {
                return;
            }
        }
    }
}

impl Feed {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self, more: usize, less: usize) {
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes.fetch_sub(less, Ordering::Relaxed);
        self.pool.bytes.fetch_add(more, Ordering::Relaxed);
        self.pool.bytes.fetch_sub(less, Ordering::Relaxed);
        self.pool.memory.account(less, more);
    }

    /// Begins anew with rows that came from a checkpoint or a snapshot, in which the partition's
    /// newest revision is this.
    pub fn reset(&self, revision: u64) {
        let mut history = self.history();
        self.account(0, history.blocks.iter().map(Block::cost).sum());
        let head = history.head.max(revision);
        *history = History { blocks: VecDeque::new(), floor: revision, head, fresh: true };
        drop(history);
        self.head.send_replace(head);
    }

    /// Takes in a batch that took effect. Called while the state is locked: whoever knows the new
    /// head finds the rows of it.
    pub fn append(&self, batch: &Batch) {
        let Some(block) = block_of(batch) else { return };
        let mut history = self.history();
        if let Some((first, block)) = block.changes {
            if std::mem::take(&mut history.fresh) {
                history.floor = history.floor.min(first.saturating_sub(1));
            }
            self.account(block.cost(), 0);
            history.blocks.push_back(block);
            while self.bytes.load(Ordering::Relaxed) > self.pool.limits.per_partition {
                if !self.drop_from(&mut history) {
                    break;
                }
            }
        }
        history.head = history.head.max(block.head);
        let head = history.head;
        drop(history);
        self.head.send_if_modified(|now| std::mem::replace(now, head) != head);
        self.pool.trim();
    }

    fn drop_from(&self, history: &mut History) -> bool {
        let Some(oldest) = history.blocks.pop_front() else { return false };
        self.account(0, oldest.cost());
        history.floor = history.floor.max(oldest.last);
        true
    }

    fn drop_oldest(&self) -> bool {
        self.drop_from(&mut self.history())
    }

    /// The newest revision, and every change of it.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The changes behind `after` whose rows the filter wants, until about `max_bytes` of them. A
    /// revision's changes always come together.
    ///
    /// # Errors
    /// [`Compacted`].
    pub fn read(
        &self,
        after: u64,
        max_bytes: usize,
        mut wants: impl FnMut(&[u8]) -> bool,
    ) -> std::result::Result<FeedPage, Compacted> {
        let (blocks, head, all) = self.blocks_behind(after)?;
        let mut page = FeedPage { changes: Vec::new(), upto: after, head };
        let mut bytes = 0;
        for block in blocks {
            let mut input = block.changes.clone();
            while let Some((revision, row, change)) = take_change(&mut input) {
                if revision <= after {
                    continue;
                }
                if bytes >= max_bytes && revision > page.upto {
                    return Ok(page);
                }
                page.upto = revision;
                if wants(&row) {
                    bytes += row.len() + change.as_ref().map_or(0, Bytes::len) + 32;
                    page.changes.push(FeedChange { revision, time_ms: block.time_ms, row, change });
                }
            }
            page.upto = page.upto.max(block.last);
        }
        if all {
            page.upto = page.upto.max(head);
        }
        Ok(page)
    }

    /// The blocks that hold what lies behind a revision, about [`READ_BYTES`] of them, the newest
    /// revision, and whether these are all.
    fn blocks_behind(&self, after: u64) -> std::result::Result<(Vec<Block>, u64, bool), Compacted> {
        let history = self.history();
        if after < history.floor {
            return Err(Compacted(history.floor));
        }
        let first = history.blocks.partition_point(|block| block.last <= after);
        let mut bytes = 0;
        let few = history.blocks.range(first..).take_while(|block| {
            let room = bytes < READ_BYTES;
            bytes += block.changes.len();
            room
        });
        let few: Vec<Block> = few.cloned().collect();
        let all = first + few.len() == history.blocks.len();
        Ok((few, history.head, all))
    }

    /// (floor, newest revision, bytes)
    pub fn extent(&self) -> (u64, u64, usize) {
        let history = self.history();
        (history.floor, history.head, self.bytes.load(Ordering::Relaxed))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.pool.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.pool.memory.account(bytes, 0);
    }
}

/// What a batch adds: its first revision and block, if it changes entries, and the newest revision.
struct Added {
    changes: Option<(u64, Block)>,
    head: u64,
}

fn block_of(batch: &Batch) -> Option<Added> {
    let number = |which| {
        let row = rows::partition_row(which);
        let value = batch.writes.iter().rev().find(|write| write.row == row)?.value()?.clone();
        rows::decode_number(&value)
    };
    let head = number(PartitionRow::Revision)?;
    let time_ms = HybridTime(number(PartitionRow::Time).unwrap_or(0)).ms();
    let entries = || batch.writes.iter().filter(|write| rows::is_map_row(&write.row));
    let size: usize =
        entries().map(|write| 8 + 4 + write.row.len() + 1 + write.value().map_or(0, |value| 4 + value.len())).sum();
    if size == 0 {
        return Some(Added { changes: None, head });
    }
    let mut out = BytesMut::with_capacity(size);
    let (mut first, mut last) = (None, 0);
    for write in entries() {
        let revision = match &write.change {
            Change::Put(value) => crate::types::StoredValue::decode(value).map_or(head, |stored| stored.revision),
            Change::Remove { revision, .. } => *revision,
            // An entry that went before removals had revisions.
            Change::Drop => head,
        };
        out.put_u64_le(revision);
        out.put_u32_le(write.row.len() as u32);
        out.put_slice(&write.row);
        match &write.change {
            Change::Put(value) => {
                out.put_u8(255);
                out.put_u32_le(value.len() as u32);
                out.put_slice(value);
            }
            Change::Remove { cause, .. } => out.put_u8(*cause as u8),
            Change::Drop => out.put_u8(RemovalCause::Deleted as u8),
        }
        first = first.or(Some(revision));
        last = last.max(revision);
    }
    Some(Added { changes: first.map(|first| (first, Block { last, time_ms, changes: out.freeze() })), head })
}

type Taken = (u64, Bytes, std::result::Result<Bytes, RemovalCause>);

fn take_change(input: &mut Bytes) -> Option<Taken> {
    let revision = input.try_get_u64_le().ok()?;
    let length = input.try_get_u32_le().ok()? as usize;
    let row = (length <= input.len()).then(|| input.split_to(length))?;
    let change = match input.try_get_u8().ok()? {
        255 => {
            let length = input.try_get_u32_le().ok()? as usize;
            Ok((length <= input.len()).then(|| input.split_to(length))?)
        }
        cause => Err(RemovalCause::from_number(cause)?),
    };
    Some((revision, row, change))
}
