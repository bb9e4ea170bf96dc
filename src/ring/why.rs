//! Why a partition lives where it does, in sentences for people.

use super::place::{Field, RingNode};
use crate::types::{NodeId, PartitionId};

/// Sentences that say why `partition` is where `table` (the whole placement, leaders first) has it.
/// `name` turns a node into what people call it.
pub fn why(
    nodes: &[RingNode],
    replicas: usize,
    table: &[Vec<NodeId>],
    partition: PartitionId,
    name: impl Fn(NodeId) -> String,
) -> Vec<String> {
    let at = partition.0 as usize;
    let Some(row) = table.get(at) else { return Vec::new() };
    let field = Field::new(nodes, table.len() as u32, replicas);
    let mut said = Vec::new();
    let proposed: Vec<String> = ring_order(&field, at).take(field.copies).map(|node| name(field.ids[node])).collect();
    said.push(format!("the ring proposes {} for partition {partition}", proposed.join(", ")));
    for id in row {
        match field.index(*id) {
            None => said.push(format!("{} is not on the ring: its replica is to move", name(*id))),
            Some(node) if field.rank[at][node] >= field.copies => {
                said.push(instead(&field, table, at, node, &name));
            }
            Some(_) => {}
        }
    }
    if let Some(leader) = row.first() {
        said.push(format!("{} is the preferred leader: leaders are spread evenly over the nodes", name(*leader)));
    }
    if row.len() < replicas {
        said.push(format!("{} of {replicas} replicas: there are not enough nodes", row.len()));
    }
    said
}

fn ring_order(field: &Field, partition: usize) -> impl Iterator<Item = usize> {
    let mut order: Vec<usize> = (0..field.ids.len()).collect();
    order.sort_by_key(|node| field.rank[partition][*node]);
    order.into_iter()
}

/// Why a node that the ring does not propose holds the partition: what kept the better ones away.
fn instead(field: &Field, table: &[Vec<NodeId>], at: usize, node: usize, name: &impl Fn(NodeId) -> String) -> String {
    let place = format!("{} is number {} on the ring", name(field.ids[node]), field.rank[at][node] + 1);
    let row: Vec<usize> = table[at].iter().filter_map(|id| field.index(*id)).collect();
    let passed_over = |other: &usize| field.rank[at][*other] < field.rank[at][node] && !row.contains(other);
    let Some(other) = ring_order(field, at).find(passed_over) else { return format!("{place} and next in turn") };
    let other_name = name(field.ids[other]);
    let in_zone = row.iter().filter(|held| **held != node && field.zones[**held] == field.zones[other]).count();
    if in_zone >= field.zone_limit {
        return format!("{place}: {other_name} comes before it, but its zone holds a replica already");
    }
    let load = table.iter().filter(|row| row.contains(&field.ids[other])).count();
    if load >= field.bounds[other].fair() {
        return format!("{place}: {other_name} comes before it, but holds its share of {load} replicas already");
    }
    format!("{place}: {other_name} comes before it, but what is in place stays in place")
}
