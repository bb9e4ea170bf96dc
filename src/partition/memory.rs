//! A node's account of the RAM that its partitions' state takes, and the rules that follow from a
//! limit. In: what each replica holds and how much of that no checkpoint has yet. Out: when values
//! are to leave RAM, when to checkpoint, when to slow down, when to refuse. Pure numbers and a
//! wake-up: it evicts nothing itself (see `node::memory_keeper`).
//!
//! What counts: keys, values and their overheads, rows that changed, indexes, and whatever else
//! reports here. What does not: the process itself, connections, the log's cache, the backend's.

use super::replica::ReplicaState;
use crate::storage::backend::ReplicaKey;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How an entry's applying waits for room at most: then it goes on, so that a disk that does not
/// take checkpoints slows a peer down and never stops its log.
pub(super) const STALL_AT_MOST: Duration = Duration::from_secs(2);

/// Values leave RAM above this share of the limit: the rest is for what comes faster than it goes.
const EVICT_ABOVE: (u64, u64) = (8, 16);
/// ... until no more than this share is used.
const EVICT_TO: (u64, u64) = (7, 16);
/// Writes are refused above this share when nothing is left that could leave RAM.
const REFUSE_ABOVE: (u64, u64) = (15, 16);
/// Checkpoints are made early when rows that changed take more than this share.
const CHECKPOINT_ABOVE: (u64, u64) = (3, 32);
/// Applying waits for checkpoints when rows that changed take more than this share.
const STALL_ABOVE: (u64, u64) = (5, 32);
/// Rows that are loaded at a start keep their values up to this share.
const LOAD_TO: (u64, u64) = (7, 16);

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct MemoryStats {
    /// Values that left RAM.
    pub evicted: AtomicU64,
    /// Values read from the backend.
    pub cold_reads: AtomicU64,
    /// Of these, those that were read where a thread should not have waited.
    pub cold_reads_inline: AtomicU64,
    /// Entries whose applying waited for room.
    pub stalls: AtomicU64,
    /// Writes that were refused.
    pub refused: AtomicU64,
}

/// The limit of a node's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes that the state may take; `None`: as many as there are.
    pub bytes: Option<u64>,
    /// Bytes above which values leave RAM; `None`: half of the limit. Less only makes
    /// them leave sooner, down to none that stay: for tests.
    pub evict_above: Option<u64>,
}

impl From<Option<u64>> for MemoryLimit {
    fn from(bytes: Option<u64>) -> Self {
        MemoryLimit { bytes, evict_above: None }
    }
}

/// A node's account of the RAM that its partitions' state takes.
#[derive(Debug)]
pub struct Memory {
    limit: Option<u64>,
    evict_above: Option<u64>,
    used: AtomicU64,
    dirty: AtomicU64,
    /// Nothing is left to evict, and still too much is used.
    exhausted: AtomicBool,
    wanted: Notify,
    /// Changes whenever there may be room again.
    room: watch::Sender<u64>,
    replicas: Mutex<BTreeMap<ReplicaKey, Weak<ReplicaState>>>,
    /// Counts.
    pub stats: MemoryStats,
}

impl Memory {
    /// An account with a limit in bytes, or none.
    pub fn new(limit: impl Into<MemoryLimit>) -> Arc<Self> {
        let MemoryLimit { bytes: limit, evict_above } = limit.into();
        Arc::new(Memory {
            limit,
            evict_above,
            used: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            exhausted: AtomicBool::new(false),
            wanted: Notify::new(),
            room: watch::Sender::new(0),
            replicas: Mutex::default(),
            stats: MemoryStats::default(),
        })
    }

    /// The limit, if there is one.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Bytes used.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Bytes of rows that changed since their replica's last checkpoint.
    pub fn dirty(&self) -> u64 {
        self.dirty.load(Relaxed)
    }

    fn share(&self, (part, of): (u64, u64)) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit / of * part)
    }

    /// Something that counts has grown or shrunk, from so many bytes to so many.
    pub fn account(&self, before: usize, now: usize) {
        adjust(&self.used, before, now);
        if now > before && self.used() > self.evict_above() {
            self.wanted.notify_one();
        }
    }

    fn evict_above(&self) -> u64 {
        let share = self.share(EVICT_ABOVE);
        self.evict_above.map_or(share, |above| above.min(share))
    }

    pub(super) fn account_dirty(&self, before: usize, now: usize) {
        adjust(&self.dirty, before, now);
        if now > before && self.wants_checkpoints() {
            self.wanted.notify_one();
        }
    }

    /// Bytes that should leave RAM.
    pub fn excess(&self) -> u64 {
        match self.used() > self.evict_above() {
            true => self.used() - self.share(EVICT_TO).min(self.evict_above()),
            false => 0,
        }
    }

    /// Whether rows that changed take so much that checkpoints are due.
    pub fn wants_checkpoints(&self) -> bool {
        self.dirty() > self.share(CHECKPOINT_ABOVE)
    }

    /// Whether what grows the state must be slowed down.
    pub fn is_stalled(&self) -> bool {
        let over = self.used() > self.limit.unwrap_or(u64::MAX) && !self.exhausted.load(Relaxed);
        over || self.dirty() > self.share(STALL_ABOVE)
    }

    /// Whether the limit is reached and nothing is left to evict: writes are refused; reads,
    /// deletions and expiry go on. What a map's own limit evicts is decided above.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Relaxed) && self.used() > self.share(REFUSE_ABOVE)
    }

    /// Whether values of rows that come from a checkpoint may stay in RAM, `more` bytes counted.
    pub(super) fn has_room_for(&self, more: usize) -> bool {
        self.used().saturating_add(more as u64) < self.share(LOAD_TO)
    }

    /// The most bytes of cold values that one turn or read loads at once.
    pub(super) fn load_bytes(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| (limit / 256).clamp(64 << 10, 8 << 20) as usize)
    }

    /// The keeper found nothing more to evict, or something again.
    pub fn set_exhausted(&self, exhausted: bool) {
        self.exhausted.store(exhausted, Relaxed);
        self.made_room();
    }

    /// Tells those that wait that there may be room.
    pub fn made_room(&self) {
        self.room.send_modify(|changes| *changes += 1);
    }

    /// Waits until there is room, or until enough is enough.
    pub(super) async fn wait_for_room(&self) {
        self.stats.stalls.fetch_add(1, Relaxed);
        let mut room = self.room.subscribe();
        let wait = async {
            while self.is_stalled() {
                self.wanted.notify_one();
                if room.changed().await.is_err() {
                    return;
                }
            }
        };
        // However it ends, the entry is applied.
        let _ = crate::clock::timeout(STALL_AT_MOST, wait).await;
    }

    /// Waits until more is used, or changed, than should be.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    fn registry(&self) -> MutexGuard<'_, BTreeMap<ReplicaKey, Weak<ReplicaState>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, key: ReplicaKey, state: &Arc<ReplicaState>) {
        self.registry().insert(key, Arc::downgrade(state));
    }

    /// The replicas that count here, in order of their keys.
    pub fn replicas(&self) -> Vec<Arc<ReplicaState>> {
        let mut all = self.registry();
        all.retain(|_, state| state.strong_count() > 0);
        all.values().filter_map(Weak::upgrade).collect()
    }
}

fn adjust(counter: &AtomicU64, before: usize, now: usize) {
    if now >= before {
        counter.fetch_add((now - before) as u64, Relaxed);
    } else {
        counter.fetch_sub((before - now) as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_nothing_is_ever_asked_for() {
        let memory = Memory::new(None);
        memory.account(0, 1 << 40);
        memory.account_dirty(0, 1 << 40);
        assert_eq!((memory.excess(), memory.wants_checkpoints(), memory.is_stalled()), (0, false, false));
        assert!(!memory.is_exhausted() && memory.has_room_for(usize::MAX / 2));
    }

    #[test]
    fn each_bound_is_a_share_of_the_limit() {
        let memory = Memory::new(Some(1600));
        memory.account(0, 800);
        assert_eq!(memory.excess(), 0);
        memory.account(0, 1);
        assert_eq!(memory.excess(), 101, "down to 700");
        memory.account_dirty(0, 150);
        assert!(!memory.wants_checkpoints());
        memory.account_dirty(150, 151);
        assert!(memory.wants_checkpoints() && !memory.is_stalled());
        memory.account_dirty(151, 250);
        assert!(!memory.is_stalled());
        memory.account_dirty(250, 251);
        assert!(memory.is_stalled());
        memory.account_dirty(251, 0);
        memory.account(801, 1601);
        assert!(memory.is_stalled(), "over the limit");
        memory.set_exhausted(true);
        assert!(!memory.is_stalled() && memory.is_exhausted(), "waiting would not help");
        memory.account(1601, 1500);
        assert!(!memory.is_exhausted());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_room_ends_with_room_or_after_a_while() {
        let memory = Memory::new(Some(1600));
        memory.account_dirty(0, 1000);
        let begun = crate::clock::Instant::now();
        memory.wait_for_room().await;
        assert_eq!(begun.elapsed(), STALL_AT_MOST);
        // That wait has asked already: what follows is the next one's.
        memory.wanted().await;
        let (waits, begun) = (memory.clone(), crate::clock::Instant::now());
        let waiting = crate::clock::spawn(async move { waits.wait_for_room().await });
        memory.wanted().await;
        memory.account_dirty(1000, 0);
        memory.made_room();
        waiting.await.expect("ended");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
