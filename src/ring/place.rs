//! The target placement: the ring proposes, a bound on load corrects, zones are kept apart, leaders
//! are spread evenly, and what is in place stays in place where the bounds allow.

use super::balance::{Moves, balance};
use super::bounds::{Bounds, fair_shares, share_millionths};
use super::circle::Circle;
use crate::types::{NodeId, PartitionId};
use std::collections::BTreeMap;

/// A node that may hold data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingNode {
    /// The node.
    pub node: NodeId,
    /// Its share relative to the others'; 0 holds nothing.
    pub weight: u32,
    /// What fails together with it; a node without one is a zone of its own.
    pub zone: Option<String>,
    /// Whether it may lead. Where no node of a partition may, one of them is named all the same.
    pub leads: bool,
}

/// Who should hold each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Per partition the nodes, the preferred leader first.
    pub replicas: Vec<Vec<NodeId>>,
    /// Partitions that have fewer replicas than wanted, for want of nodes.
    pub under_replicated: usize,
}

/// The target placement. `present` is the placement as it is, per partition, the leader first; partitions
/// that it does not name are new. With fewer nodes than replicas, each partition gets as many as there are.
///
/// Where zones and the bound on load contradict each other (a zone too small for its part), zones win:
/// losing two copies at once is worse than a busy node.
pub fn place(nodes: &[RingNode], partitions: u32, replicas: usize, present: &[Vec<NodeId>]) -> Placement {
    let field = Field::new(nodes, partitions, replicas);
    let mut table = Table::kept(&field, present);
    table.fill();
    table.carry();
    table.spread();
    let leaders = Leaders::chosen(&field, &table, present);
    let under_replicated = if field.copies < replicas { partitions as usize } else { 0 };
    let row = |partition: usize| {
        let mut held = table.held[partition].clone();
        held.sort_by_key(|node| (Some(*node) != leaders[partition], field.rank[partition][*node]));
        held.into_iter().map(|node| field.ids[node]).collect()
    };
    Placement { replicas: (0..partitions as usize).map(row).collect(), under_replicated }
}

/// The facts, indexed: nodes with weight, by id.
pub(super) struct Field {
    pub(super) ids: Vec<NodeId>,
    weights: Vec<u64>,
    /// Per node whether it may lead.
    leads: Vec<bool>,
    /// Per node the index of its zone.
    pub(super) zones: Vec<usize>,
    /// Replicas that a partition gets: as wanted, or as many as there are nodes.
    pub(super) copies: usize,
    /// Replicas of one partition that a zone may hold: 1 where there are enough zones.
    pub(super) zone_limit: usize,
    /// Per partition the nodes in the order of the ring's walk.
    walk: Vec<Vec<usize>>,
    /// Per partition and node the place in that walk.
    pub(super) rank: Vec<Vec<usize>>,
    /// Per node the bounds on its replicas.
    pub(super) bounds: Vec<Bounds>,
}

impl Field {
    pub(super) fn new(nodes: &[RingNode], partitions: u32, replicas: usize) -> Self {
        let by_id: BTreeMap<NodeId, &RingNode> =
            nodes.iter().filter(|node| node.weight > 0).map(|node| (node.node, node)).collect();
        let weighted: Vec<(NodeId, u32)> = by_id.values().map(|node| (node.node, node.weight)).collect();
        let zones = zone_indices(by_id.values().copied());
        let copies = replicas.min(weighted.len());
        let zone_limit = zone_limit(&zones, copies);
        let circle = Circle::new(&weighted);
        let walk: Vec<Vec<usize>> = (0..partitions).map(|partition| circle.walk(PartitionId(partition))).collect();
        let weights: Vec<u64> = weighted.iter().map(|(_, weight)| u64::from(*weight)).collect();
        Field {
            bounds: replica_bounds(&weights, &zones, zone_limit, partitions as usize, copies),
            ids: weighted.into_iter().map(|(id, _)| id).collect(),
            leads: by_id.values().map(|node| node.leads).collect(),
            rank: walk.iter().map(|order| inverse(order)).collect(),
            weights,
            zones,
            copies,
            zone_limit,
            walk,
        }
    }

    pub(super) fn index(&self, id: NodeId) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }
}

fn inverse(order: &[usize]) -> Vec<usize> {
    let mut rank = vec![0; order.len()];
    for (place, node) in order.iter().enumerate() {
        rank[*node] = place;
    }
    rank
}

/// Numbers the zones in the order of their first node; a node without a zone gets a number of its own.
fn zone_indices<'a>(nodes: impl Iterator<Item = &'a RingNode>) -> Vec<usize> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut next = 0;
    let mut fresh = || {
        next += 1;
        next - 1
    };
    nodes
        .map(|node| match &node.zone {
            Some(zone) => *known.entry(zone.as_str()).or_insert_with(&mut fresh),
            None => fresh(),
        })
        .collect()
}

/// The lowest number of replicas per zone with which all copies find a place.
fn zone_limit(zones: &[usize], copies: usize) -> usize {
    let sizes = zone_sizes(zones);
    (1..=copies).find(|limit| sizes.iter().map(|size| size.min(limit)).sum::<usize>() >= copies).unwrap_or(1)
}

fn zone_sizes(zones: &[usize]) -> Vec<usize> {
    let mut sizes = vec![0; zones.iter().max().map_or(0, |last| last + 1)];
    zones.iter().for_each(|zone| sizes[*zone] += 1);
    sizes
}

/// Divides all replicas among the zones, then each zone's among its nodes; both by weight, and never
/// more than one replica of a partition to a node or `zone_limit` to a zone.
fn replica_bounds(
    weights: &[u64],
    zones: &[usize],
    zone_limit: usize,
    partitions: usize,
    copies: usize,
) -> Vec<Bounds> {
    let sizes = zone_sizes(zones);
    let members = |zone: usize| (0..zones.len()).filter(move |node| zones[*node] == zone);
    let of_zone =
        |zone: usize| (members(zone).map(|node| weights[node]).sum(), partitions * sizes[zone].min(zone_limit));
    let zone_items: Vec<(u64, usize)> = (0..sizes.len()).map(of_zone).collect();
    let mut bounds = vec![Bounds::of(0, 0); zones.len()];
    for (zone, share) in fair_shares(partitions * copies, &zone_items).into_iter().enumerate() {
        let nodes: Vec<usize> = members(zone).collect();
        let items: Vec<(u64, usize)> = nodes.iter().map(|node| (weights[*node], partitions)).collect();
        for (node, share) in nodes.into_iter().zip(share_millionths(share, &items)) {
            bounds[node] = Bounds::of(share, partitions);
        }
    }
    bounds
}

/// Who holds what, while it is being worked out.
struct Table<'a> {
    field: &'a Field,
    held: Vec<Vec<usize>>,
    loads: Vec<usize>,
}

impl<'a> Table<'a> {
    /// What is in place and may stay, whatever the load.
    fn kept(field: &'a Field, present: &[Vec<NodeId>]) -> Self {
        let partitions = field.walk.len();
        let mut table = Table { field, held: vec![Vec::new(); partitions], loads: vec![0; field.ids.len()] };
        for (partition, nodes) in present.iter().take(partitions).enumerate() {
            for node in nodes.iter().filter_map(|id| field.index(*id)) {
                if table.held[partition].len() < field.copies && table.may_join(partition, node, None) {
                    table.add(partition, node);
                }
            }
        }
        table
    }

    fn add(&mut self, partition: usize, node: usize) {
        self.held[partition].push(node);
        self.loads[node] += 1;
    }

    /// Whether a node may take a replica, with `leaving` gone: it holds none yet and its zone has room.
    fn may_join(&self, partition: usize, node: usize, leaving: Option<usize>) -> bool {
        let staying = || self.held[partition].iter().filter(|other| Some(**other) != leaving);
        let in_zone = staying().filter(|other| self.field.zones[**other] == self.field.zones[node]).count();
        !self.held[partition].contains(&node) && in_zone < self.field.zone_limit
    }

    /// Gives each partition its missing replicas: the ring's next node that is below its bound, else the
    /// one with the lowest load for its share.
    fn fill(&mut self) {
        let field = self.field;
        for partition in 0..self.held.len() {
            while self.held[partition].len() < field.copies {
                let allowed = || field.walk[partition].iter().copied().filter(|n| self.may_join(partition, *n, None));
                let relative = |node: &usize| (self.loads[*node] as u128 * 1_000_000_000) / field.bounds[*node].share;
                let below = allowed().find(|node| self.loads[*node] < field.bounds[*node].most);
                let Some(node) = below.or_else(|| allowed().min_by_key(relative)) else { break };
                self.add(partition, node);
            }
        }
    }

    /// Gives each partition a node that may lead, where there is one and zones allow it, in the place of
    /// the one that has the most. This outweighs the bounds on load: a partition that nobody may lead
    /// keeps its tasks waiting.
    fn carry(&mut self) {
        let field = self.field;
        let relative = |loads: &[usize], node: usize| (loads[node] as u128 * 1_000_000_000) / field.bounds[node].share;
        for partition in 0..self.held.len() {
            if self.held[partition].iter().any(|node| field.leads[*node]) {
                continue;
            }
            let mut leaving = self.held[partition].clone();
            leaving.sort_by_key(|node| std::cmp::Reverse((relative(&self.loads, *node), field.rank[partition][*node])));
            let mut coming = field.walk[partition].clone();
            coming.retain(|node| field.leads[*node]);
            coming.sort_by_key(|node| relative(&self.loads, *node));
            let pairs = leaving.iter().flat_map(|from| coming.iter().map(move |to| (*from, *to)));
            let may = |(from, to): &(usize, usize)| self.may_join(partition, *to, Some(*from));
            if let Some((from, to)) = pairs.into_iter().find(may) {
                self.apply(partition, from, to);
                self.loads[from] -= 1;
                self.loads[to] += 1;
            }
        }
    }

    /// Whether a move would leave a partition without a node that may lead.
    fn strands(&self, partition: usize, from: usize, to: usize) -> bool {
        let leads = &self.field.leads;
        let others = || self.held[partition].iter().any(|node| *node != from && leads[*node]);
        leads[from] && !leads[to] && !others()
    }

    /// Brings the loads within their bounds.
    fn spread(&mut self) {
        let mut loads = self.loads.clone();
        let budget = 2 * self.held.len() * self.field.copies;
        let field = self.field;
        balance(self, &mut loads, &field.bounds, budget);
        self.loads = loads;
    }
}

impl Moves for Table<'_> {
    /// The partition for which the ring likes the new node best, and the old one least.
    fn best(&self, from: usize, to: usize) -> Option<usize> {
        let may = |partition: &usize| {
            self.held[*partition].contains(&from)
                && self.may_join(*partition, to, Some(from))
                && !self.strands(*partition, from, to)
        };
        let rank = |partition: usize, node: usize| self.field.rank[partition][node];
        let liking = |partition: &usize| (rank(*partition, to), usize::MAX - rank(*partition, from));
        (0..self.held.len()).filter(may).min_by_key(liking)
    }

    fn apply(&mut self, partition: usize, from: usize, to: usize) {
        self.held[partition].retain(|node| *node != from);
        self.held[partition].push(to);
    }
}

/// Who leads what.
struct Leaders<'a> {
    field: &'a Field,
    held: &'a [Vec<usize>],
    leader: Vec<Option<usize>>,
}

impl<'a> Leaders<'a> {
    /// A leader that is in place stays; else the first on the ring that leads less than its share.
    fn chosen(field: &'a Field, table: &'a Table<'_>, present: &[Vec<NodeId>]) -> Vec<Option<usize>> {
        let held = &table.held;
        let weights = field.weights.iter().zip(&field.leads).map(|(weight, leads)| if *leads { *weight } else { 0 });
        let items: Vec<(u64, usize)> = weights.zip(table.loads.iter().copied()).collect();
        let total = held.iter().filter(|nodes| !nodes.is_empty()).count();
        let shares = fair_shares(total, &items);
        let bounds: Vec<Bounds> = shares.iter().zip(&table.loads).map(|(s, load)| Bounds::of(*s, *load)).collect();
        let mut loads = vec![0; field.ids.len()];
        let in_place = |partition: usize| {
            let leader = field.index(*present.get(partition)?.first()?)?;
            (field.leads[leader] && held[partition].contains(&leader)).then_some(leader)
        };
        let mut leader: Vec<Option<usize>> = (0..held.len()).map(in_place).collect();
        leader.iter().flatten().for_each(|node| loads[*node] += 1);
        for partition in 0..held.len() {
            if leader[partition].is_none() {
                let mut ranked = held[partition].clone();
                ranked.sort_by_key(|node| (!field.leads[*node], field.rank[partition][*node]));
                let below = ranked.iter().find(|node| field.leads[**node] && loads[**node] < bounds[**node].fair());
                leader[partition] = below.or(ranked.first()).copied();
                leader[partition].iter().for_each(|node| loads[*node] += 1);
            }
        }
        let mut leaders = Leaders { field, held, leader };
        balance(&mut leaders, &mut loads, &bounds, 2 * held.len());
        leaders.leader
    }
}

impl Moves for Leaders<'_> {
    fn best(&self, from: usize, to: usize) -> Option<usize> {
        let may = |partition: &usize| self.leader[*partition] == Some(from) && self.held[*partition].contains(&to);
        if !self.field.leads[to] {
            return None;
        }
        (0..self.held.len()).filter(may).min_by_key(|partition| self.field.rank[*partition][to])
    }

    fn apply(&mut self, partition: usize, _from: usize, to: usize) {
        self.leader[partition] = Some(to);
    }
}
