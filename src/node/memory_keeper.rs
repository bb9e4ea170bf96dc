//! Keeps the node's state within its memory limit: values of clean rows leave RAM, oldest use
//! first (a clock with second chances, over all replicas in turn); rows that changed are
//! checkpointed early, so that they become clean. In: the account of memory. Out: sweeps, and
//! checkpoints beside them, one of each at a time. It runs only where there is a limit, and never
//! decides about writes: those that wait or are refused ask the account.

use crate::clock;
use crate::error::Code;
use crate::partition::{Hand, Memory, ReplicaState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Rows that one step of a sweep visits: for so long a replica's lock is held.
const STEP_ROWS: usize = 512;
/// How often it looks when nobody wakes it.
const PERIOD: Duration = Duration::from_millis(500);
/// Between two wake-ups, at least: what wakes it may be over at once.
const PAUSE: Duration = Duration::from_millis(5);
/// After a checkpoint that wrote little though too much is used: what cannot leave RAM is more than
/// should be, and without a rest a checkpoint of a few rows would follow the other.
const GATHER: Duration = Duration::from_millis(100);
/// This part of the limit is little.
const LITTLE: u64 = 256;
/// After a checkpoint that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the node's state within its memory limit.
pub struct MemoryKeeper {
    memory: Arc<Memory>,
    sweeper: Sweeper,
}

/// Where the sweeps stand.
#[derive(Default)]
struct Sweeper {
    /// The replica at which the next sweep begins, and where in it.
    at: usize,
    hand: Hand,
}

impl MemoryKeeper {
    /// A keeper for an account.
    pub fn new(memory: Arc<Memory>) -> Self {
        MemoryKeeper { memory, sweeper: Sweeper::default() }
    }

    /// Works until it is dropped.
    pub async fn work(mut self) {
        loop {
            if self.memory.excess() == 0 && !self.memory.wants_checkpoints() {
                // Either way it looks.
                let _ = clock::timeout(PERIOD, self.memory.wanted()).await;
            }
            // Side by side: a checkpoint waits for the disk, and a sweep finds something to take for as
            // long as others load values; neither may keep the other waiting.
            let written = AtomicBool::new(false);
            let writing = async {
                let bytes = checkpoint(&self.memory).await;
                written.store(bytes > 0, Relaxed);
                bytes
            };
            let (swept, bytes) = futures::join!(self.sweeper.evict(&self.memory, &written), writing);
            let stuck = self.memory.excess() > 0 && !swept && bytes == 0;
            self.memory.set_exhausted(stuck);
            let rest = rest(&self.memory, stuck, swept, bytes);
            if !rest.is_zero() {
                clock::sleep(rest).await;
            }
        }
    }
}

/// How long to wait before the next look, after a sweep that freed something or not and a checkpoint of
/// so many bytes or none.
fn rest(memory: &Memory, stuck: bool, swept: bool, bytes: usize) -> Duration {
    let little = (bytes as u64) < memory.limit().unwrap_or(0) / LITTLE;
    let in_need = memory.wants_checkpoints() || memory.is_stalled();
    match bytes {
        _ if stuck => GATHER,
        0 => PAUSE,
        _ if little && !in_need && !swept => GATHER,
        _ => Duration::ZERO,
    }
}

impl Sweeper {
    /// Sweeps until little enough is used or the next checkpoint can be made, for two rounds at most:
    /// what the first one marked, the second takes. Whether any value left.
    async fn evict(&mut self, memory: &Memory, written: &AtomicBool) -> bool {
        let replicas = memory.replicas();
        let (mut freed_any, mut swept) = (false, 0);
        // Where changed rows take too much, the next checkpoint is not kept waiting. Elsewhere the sweep
        // goes on: a step per checkpoint would fall behind those who load values.
        let next_waits = || written.load(Relaxed) && memory.wants_checkpoints();
        let rounds = |swept: usize| if next_waits() { swept == 0 } else { swept <= 2 * replicas.len() };
        while memory.excess() > 0 && rounds(swept) && !replicas.is_empty() {
            self.at %= replicas.len();
            let (hand, freed) = replicas[self.at].sweep(std::mem::take(&mut self.hand), STEP_ROWS);
            if freed > 0 {
                freed_any = true;
                memory.made_room();
            }
            if hand.is_at_the_start() {
                self.at += 1;
                swept += 1;
            }
            self.hand = hand;
            tokio::task::yield_now().await;
        }
        freed_any
    }
}

/// Checkpoints the replica with most to write, if that is due; how many bytes of it.
async fn checkpoint(memory: &Memory) -> usize {
    if !memory.wants_checkpoints() && memory.excess() == 0 {
        return 0;
    }
    let replicas = memory.replicas();
    let largest = replicas.iter().map(|state| (state.evictable_bytes(), state)).max_by_key(|(bytes, _)| *bytes);
    match largest {
        Some((bytes, state)) if bytes > 0 && write(memory, state).await => bytes,
        _ => 0,
    }
}

async fn write(memory: &Memory, state: &Arc<ReplicaState>) -> bool {
    let done = state.checkpoint_for_memory().await;
    memory.made_room();
    match done {
        Ok(()) => true,
        // It has stopped meanwhile, and gives its memory back by itself.
        Err(error) if error.code == Code::ShuttingDown => false,
        Err(error) => {
            tracing::warn!(%error, "a checkpoint that memory asks for failed; it is tried again");
            clock::sleep(RETRY).await;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemThreads;
    use crate::partition::entry::{Batch, Marker, PartitionEntry, RowWrite};
    use crate::partition::{ReplicaMachine, rows};
    use crate::raft::{Committed, LogId, Machine};
    use crate::storage::backend::{ReplicaKey, SledBackend, SledConfig};
    use crate::types::{GroupId, MapId, RunId, Slot};
    use bytes::Bytes;
    use futures::FutureExt;

    fn apply(machine: &ReplicaMachine, index: u64, entry: PartitionEntry) {
        let payload = entry.encode();
        machine.apply(LogId::new_term_index(1, index), Committed::Payload(&payload)).expect("applies");
    }

    #[test]
    fn what_cannot_leave_ram_does_not_keep_the_keeper_busy() {
        let memory = Memory::new(Some(64 << 20));
        memory.account(0, 50 << 20);
        assert!(memory.excess() > 0);
        assert_eq!(rest(&memory, false, false, 10_000), GATHER, "a few rows");
        assert_eq!(rest(&memory, false, true, 10_000), Duration::ZERO, "values leave: others load them");
        assert_eq!(rest(&memory, false, false, 1 << 20), Duration::ZERO, "it gets somewhere");
        assert_eq!(rest(&memory, false, false, 0), PAUSE);
        assert_eq!(rest(&memory, true, false, 0), GATHER);
        memory.account(50 << 20, 65 << 20);
        assert_eq!(rest(&memory, false, false, 10_000), Duration::ZERO, "others wait for room");
    }

    #[tokio::test]
    async fn a_sweep_ends_though_readers_bring_values_back_as_fast_as_they_leave() {
        let dir = tempfile::tempdir().expect("dir");
        let backend = Arc::new(SledBackend::open(dir.path(), SledConfig::default()).expect("opens"));
        let memory = Memory::new(Some(1 << 20));
        let key = ReplicaKey { group: GroupId(1), replica: 1 };
        let state = ReplicaState::load(key, backend, Arc::new(SystemThreads), memory.clone()).expect("loads");
        let machine = ReplicaMachine(state.clone());
        let row = rows::map_row(Slot(3), MapId(1), b"key");
        apply(&machine, 1, PartitionEntry::Marker(Marker { term: 1, run: RunId(7) }));
        let writes = vec![RowWrite::put(row.clone(), Bytes::from_static(b"value"))];
        apply(&machine, 2, PartitionEntry::Batch(Batch { term: 1, run: RunId(7), number: 1, writes }));
        machine.checkpoint().await.expect("written");
        // More than can ever leave, so that the sweep never has enough.
        memory.account(0, 2 << 20);
        let (mut sweeper, written) = (Sweeper::default(), AtomicBool::new(false));
        let mut reads = 0;
        {
            let mut sweep = Box::pin(sweeper.evict(&memory, &written));
            while sweep.as_mut().now_or_never().is_none() {
                if state.cold_rows() > 0 {
                    state.get(&row).expect("readable").expect("there");
                    reads += 1;
                    assert!(reads < 10, "the sweep goes on for ever");
                }
                tokio::task::yield_now().await;
            }
        }
        assert!(reads > 0, "the value left at least once");
        written.store(true, Relaxed);
        let steps = |sweeper: &mut Sweeper| {
            let mut sweep = Box::pin(sweeper.evict(&memory, &written));
            std::iter::from_fn(|| sweep.as_mut().now_or_never().is_none().then_some(())).count()
        };
        assert_eq!(steps(&mut sweeper), 3, "a checkpoint that nobody waits for does not end it");
        let large = vec![RowWrite::put(row, vec![7; 300_000].into())];
        apply(&machine, 3, PartitionEntry::Batch(Batch { term: 1, run: RunId(7), number: 2, writes: large }));
        assert!(memory.wants_checkpoints());
        assert_eq!(steps(&mut sweeper), 1, "it makes room for the next checkpoint");
    }
}
