//! Where to send: the cached placement, which peers seem to be down, and when to ask for a newer
//! placement.

use super::Peer;
use crate::clock::Instant;
use crate::node::PlacementTable;
use crate::types::{GridId, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The shortest time between two requests for the placement.
const REFRESH_PAUSE: Duration = Duration::from_millis(50);
/// The longest, when they fail.
const REFRESH_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a peer whose stream broke is asked only if there is no other; doubles up to the longest.
const DOWN_MIN: Duration = Duration::from_millis(100);
const DOWN_MAX: Duration = Duration::from_secs(2);
/// How long an answer of a later term counts for more than placements of earlier ones.
const HEARD: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
struct Range {
    first_slot: u16,
    leader: Option<Peer>,
    term: u64,
    /// A later term that an answer has told of, and until when placements of earlier ones are not believed.
    heard: Option<(u64, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    until: Instant,
    times: u32,
}

/// The cached placement and the peers' state.
#[derive(Debug)]
pub(in crate::client) struct Routes {
    grid: GridId,
    ranges: Vec<Range>,
    endpoints: Vec<Peer>,
    down: BTreeMap<Peer, Down>,
    turn: usize,
    wanted: bool,
    under_way: bool,
    not_before: Option<Instant>,
    failed: u32,
}

impl Routes {
    /// Routes by a first placement; the endpoints are always known peers.
    pub(in crate::client) fn new(endpoints: Vec<Peer>, table: PlacementTable) -> Self {
        let mut routes = Routes {
            grid: table.grid,
            ranges: Vec::new(),
            endpoints,
            down: BTreeMap::new(),
            turn: 0,
            wanted: false,
            under_way: false,
            not_before: None,
            failed: 0,
        };
        routes.merge(table, None);
        routes
    }

    /// First slots of the partitions, ascending.
    pub(in crate::client) fn boundaries(&self) -> Vec<u16> {
        self.ranges.iter().map(|range| range.first_slot).collect()
    }

    /// The endpoints and every leader, each once.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let leaders: BTreeSet<&Peer> = self.ranges.iter().filter_map(|range| range.leader.as_ref()).collect();
        let others = leaders.into_iter().filter(|leader| !self.endpoints.contains(leader));
        self.endpoints.iter().chain(others).cloned().collect()
    }

    fn range_of(&self, slot: Slot) -> Option<usize> {
        self.ranges.partition_point(|range| range.first_slot <= slot.0).checked_sub(1)
    }

    /// The leader of a slot's partition, if known.
    pub(super) fn leader(&self, slot: Slot) -> Option<&Peer> {
        self.range_of(slot).and_then(|at| self.ranges[at].leader.as_ref())
    }

    /// A peer has named the leader.
    pub(super) fn set_leader(&mut self, slot: Slot, leader: Peer) {
        if let Some(at) = self.range_of(slot) {
            self.ranges[at].leader = Some(leader);
        }
    }

    /// A peer has answered for the leader of this term, or is it, after the known one had failed to. In a later
    /// term than the known one whoever led before leads no more, though it may be reached: this peer is asked
    /// until a placement of that term comes. Not for ever: the answer may be of another partition than the
    /// slot's, where the peers know better than the client what a map's partition is.
    pub(super) fn answered(&mut self, slot: Slot, by: &Peer, term: u64, now: Instant) {
        let Some(range) = self.range_of(slot).map(|at| &mut self.ranges[at]) else { return };
        if term > range.term {
            range.leader = Some(by.clone());
            range.heard = Some((term, now + HEARD));
        }
    }

    /// The peer to ask about a slot: the leader if it is there and not to be avoided, else any
    /// other, by turns; peers that are down only if there is no other.
    pub(super) fn choose(&mut self, slot: Slot, avoid: Option<&Peer>, now: Instant) -> Option<Peer> {
        if let Some(leader) = self.leader(slot)
            && Some(leader) != avoid
            && !self.is_down(leader, now)
        {
            return Some(leader.clone());
        }
        self.any(avoid, now)
    }

    /// The first endpoint that is there; else any peer.
    pub(super) fn endpoint(&mut self, avoid: Option<&Peer>, now: Instant) -> Option<Peer> {
        let there = self.endpoints.iter().find(|peer| Some(*peer) != avoid && !self.is_down(peer, now));
        there.cloned().or_else(|| self.any(avoid, now))
    }

    fn any(&mut self, avoid: Option<&Peer>, now: Instant) -> Option<Peer> {
        let peers = self.peers();
        let up: Vec<&Peer> = peers.iter().filter(|peer| !self.is_down(peer, now)).collect();
        let best: Vec<&Peer> = up.iter().copied().filter(|peer| Some(*peer) != avoid).collect();
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn;
        let pick = |peers: &[&Peer]| (!peers.is_empty()).then(|| peers[turn % peers.len()].clone());
        pick(&best).or_else(|| pick(&up)).or_else(|| pick(&peers.iter().collect::<Vec<_>>()))
    }

    fn is_down(&self, peer: &Peer, now: Instant) -> bool {
        self.down.get(peer).is_some_and(|down| now < down.until)
    }

    /// A peer's stream broke.
    pub(super) fn mark_down(&mut self, peer: &Peer, now: Instant) {
        let times = self.down.get(peer).map_or(0, |down| down.times);
        let pause = (DOWN_MIN * (1 << times.min(8))).min(DOWN_MAX);
        self.down.insert(peer.clone(), Down { until: now + pause, times: times + 1 });
    }

    /// A peer has answered.
    pub(super) fn mark_up(&mut self, peer: &Peer) {
        if !self.down.is_empty() {
            self.down.remove(peer);
        }
    }

    /// A newer placement is wanted.
    pub(super) fn want_refresh(&mut self) {
        self.wanted = true;
    }

    /// When a placement is to be asked for.
    pub(super) fn refresh_at(&self) -> Option<Instant> {
        if self.wanted && !self.under_way { self.not_before } else { None }
    }

    /// The peer to ask for the placement, if it is wanted and time for it. Counts as asked.
    pub(super) fn due_refresh(&mut self, now: Instant) -> Option<Peer> {
        if !self.wanted || self.under_way || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let peer = self.any(None, now)?;
        self.under_way = true;
        self.wanted = false;
        Some(peer)
    }

    /// The answer to a request for the placement; returns the slots' ranges whose leader changed.
    pub(super) fn refreshed(&mut self, table: Option<PlacementTable>, now: Instant) -> Vec<(u16, u16)> {
        self.under_way = false;
        self.failed = if table.is_some() { 0 } else { self.failed.saturating_add(1) };
        let pause = (REFRESH_PAUSE * (1 << self.failed.min(8))).min(REFRESH_PAUSE_MAX);
        self.not_before = Some(now + pause);
        match table {
            Some(table) => self.merge(table, Some(now)),
            None => {
                self.wanted = true;
                Vec::new()
            }
        }
    }

    /// Takes over what is newer: per partition the higher term wins, since a peer may lag behind.
    fn merge(&mut self, table: PlacementTable, now: Option<Instant>) -> Vec<(u16, u16)> {
        let same_shape = self.grid == table.grid
            && self.ranges.len() == table.partitions.len()
            && self.ranges.iter().zip(&table.partitions).all(|(mine, theirs)| mine.first_slot == theirs.0);
        let fresh = |(first_slot, leader, term): (u16, String, u64)| Range {
            first_slot,
            leader: Some(leader).filter(|leader| !leader.is_empty()).map(Peer::from),
            term,
            heard: None,
        };
        let ranges: Vec<Range> = table.partitions.into_iter().map(fresh).collect();
        if !same_shape {
            self.grid = table.grid;
            self.ranges = ranges;
            return vec![(0, u16::MAX)];
        }
        let lasts: Vec<u16> = ranges.iter().skip(1).map(|range| range.first_slot - 1).chain([u16::MAX]).collect();
        let mut changed = Vec::new();
        for ((mine, theirs), last) in self.ranges.iter_mut().zip(ranges).zip(lasts) {
            let heard = mine.heard.filter(|(_, until)| now.is_some_and(|now| now < *until)).map_or(0, |(term, _)| term);
            let newer = theirs.term > mine.term || (theirs.term == mine.term && theirs.leader.is_some());
            let newer = newer && theirs.term >= heard;
            if newer && theirs.leader != mine.leader {
                changed.push((mine.first_slot, last));
            }
            if newer {
                *mine = theirs;
            }
        }
        changed
    }
}
