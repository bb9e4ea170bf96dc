//! What kind of grid a seed makes.

use crate::dice::Dice;
use crate::simulation::Simulation;
use keystead::partition::MemoryLimit;

const PORT: u16 = 7401;
/// Copies of a partition where there are enough peers.
pub(super) const COPIES: usize = 3;

/// A grid's size and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Peers.
    pub(super) peers: usize,
    /// Clients at work.
    pub(super) clients: u32,
    /// Partitions.
    pub(super) partitions: u32,
    /// Whether state is kept by the model of sled.
    pub(super) sled: bool,
    /// The RAM that a peer's state may take; where there is a limit, values leave RAM as soon as
    /// they may.
    pub(super) memory: MemoryLimit,
    /// Bytes of a snapshot that is received in RAM: beyond them it waits in a file.
    pub(super) held_snapshot_bytes: usize,
    /// Bytes of log after which a group is checkpointed: few, so that it happens.
    pub(super) checkpoint_bytes: u64,
    /// Entries behind which a replica gets a snapshot.
    pub(super) max_lag_entries: u64,
    /// Bytes of a log segment.
    pub(super) segment_bytes: u64,
    /// Bytes of history of changes per partition: often few, so that watches find it passed.
    pub(super) feed_bytes: usize,
    /// Peers that found the grid; the others join it.
    pub(super) founders: usize,
    /// When each peer starts for the first time, in milliseconds; 0 for founders.
    pub(super) starts_ms: Vec<u64>,
    /// Peers that are removed, and when.
    pub(super) removals: Vec<(usize, u64)>,
    /// The copies of a peer that is away for so long are made anew elsewhere.
    pub(super) replace_after_ms: u64,
    /// They are drained instead: they stay, and are to hold nothing.
    pub(super) drains: bool,
    /// A peer that carries none of the workload's tasks and jobs, only its scatter.
    pub(super) plain: Option<usize>,
    /// Nothing breaks before this time, in milliseconds: some grids are founded under faults.
    pub(super) calm_ms: u64,
    /// So many of 1000 operations on registers are on one key.
    pub(super) hot_per_mille: u32,
    /// Watchers wait at most so long between two messages.
    pub(super) slow_ms: u64,
    /// The largest value that the peers take; of some grids it is written.
    pub(super) value_bytes: usize,
    /// Whether entries at the limit are written.
    pub(super) big: bool,
}

impl Shape {
    /// Draws a shape.
    pub(super) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "shape");
        let peers = match dice.below(10) {
            0 => 1,
            1 => 2,
            2 => 4,
            3 => 5,
            _ => 3,
        };
        let sled = dice.per_mille(500);
        let mut shape = Shape {
            peers,
            clients: dice.between(2, 4) as u32,
            partitions: dice.between(1, 4) as u32,
            sled,
            checkpoint_bytes: dice.between(2, 64) << 10,
            max_lag_entries: dice.between(5, 200),
            segment_bytes: dice.between(32, 256) << 10,
            feed_bytes: if dice.per_mille(500) { 1 << 20 } else { dice.between(500, 20_000) as usize },
            memory: match sled && dice.per_mille(600) {
                true => MemoryLimit { bytes: Some(4 << 20), evict_above: Some(dice.between(0, 16) << 10) },
                false => MemoryLimit::default(),
            },
            held_snapshot_bytes: dice.between(0, 16 << 10) as usize,
            founders: peers.min(3),
            starts_ms: Vec::new(),
            removals: Vec::new(),
            replace_after_ms: 1500,
            drains: false,
            plain: None,
            calm_ms: 2500,
            hot_per_mille: 0,
            slow_ms: 0,
            value_bytes: 512 << 10,
            big: false,
        };
        shape.draw_movement(seed);
        shape.draw_parts(seed);
        shape.draw_load(seed);
        shape
    }

    /// Who joins later, and who is removed.
    fn draw_movement(&mut self, seed: u64) {
        let mut dice = Dice::new(seed, "movement");
        if dice.per_mille(250) {
            self.founders = 1 + dice.index(self.founders);
        }
        let mut start = |at: usize| if at < self.founders { 0 } else { dice.between(0, 6000) };
        self.starts_ms = (0..self.peers).map(&mut start).collect();
        if self.peers >= 3 && dice.per_mille(400) {
            self.removals.push((dice.index(self.peers), dice.between(5000, 11_000)));
            if self.peers >= 4 && dice.per_mille(500) {
                let another = (self.removals[0].0 + 1 + dice.index(self.peers - 1)) % self.peers;
                self.removals.push((another, dice.between(3000, 11_000)));
            }
        }
    }

    /// Which parts peers play: with one of them plain, others that stay carry the tasks.
    fn draw_parts(&mut self, seed: u64) {
        let mut dice = Dice::new(seed, "parts");
        self.drains = dice.per_mille(350);
        if self.drains {
            // Two that are drained may leave too few for the copies, and are then not emptied.
            self.removals.truncate(1);
        }
        if self.peers >= 3 && dice.per_mille(200) {
            self.plain = Some(dice.index(self.peers));
        }
        if self.founders == 1 && self.plain == Some(0) {
            // Until others join, a task that nobody carries is rightly refused for good.
            self.plain = None;
        }
    }

    /// What clients do to the grid, and when the faults begin.
    fn draw_load(&mut self, seed: u64) {
        let mut dice = Dice::new(seed, "load");
        if dice.per_mille(250) {
            self.calm_ms = dice.between(0, 600);
        }
        if dice.per_mille(300) {
            self.hot_per_mille = dice.between(500, 950) as u32;
        }
        if dice.per_mille(400) {
            self.slow_ms = dice.between(50, 1500);
        }
        self.big = dice.per_mille(200);
        self.value_bytes = if dice.per_mille(300) { 512 << 10 } else { 16 << 10 };
    }

    /// Takes back what only harsh runs have.
    pub(super) fn make_plain(&mut self) {
        self.removals.truncate(1);
        (self.calm_ms, self.hot_per_mille, self.slow_ms) = (2500, 0, 0);
        (self.value_bytes, self.big) = (512 << 10, false);
    }

    /// The peers that are removed or drained, as `removals` has them.
    pub(super) fn leaving(&self) -> Vec<String> {
        self.removals.iter().map(|(at, _)| format!("n{}", at + 1)).collect()
    }

    /// The peers that are drained.
    pub(super) fn drained(&self) -> Vec<String> {
        if self.drains { self.leaving() } else { Vec::new() }
    }

    /// The peers that are removed.
    pub(super) fn removed(&self) -> Vec<String> {
        if self.drains { Vec::new() } else { self.leaving() }
    }

    /// Peers that are surely there when others are removed: founders, or all where nobody comes later.
    pub(super) fn sure_to_stay(&self) -> usize {
        let there = if self.starts_ms.iter().all(|start_ms| *start_ms == 0) { self.peers } else { self.founders };
        there.saturating_sub(self.removed().len())
    }

    /// The peers' host names.
    pub(super) fn names(&self) -> Vec<String> {
        (1..=self.peers).map(|number| format!("n{number}")).collect()
    }
}

/// Where a peer listens. Gossip resolves no names, so that it is an address.
pub(super) fn address(simulation: &Simulation, name: &str) -> String {
    format!("{}:{PORT}", simulation.address(name))
}
