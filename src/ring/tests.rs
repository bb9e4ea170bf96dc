//! Properties of the placement, and one placement pinned for good.

use super::*;
use crate::types::{NodeId, PartitionId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn node(id: u64) -> RingNode {
    // Spread like real ids, which are random.
    RingNode { node: NodeId(id.wrapping_mul(0x9E37_79B9_7F4A_7C15)), weight: 1, zone: None, leads: true }
}

fn plain(count: u64) -> Vec<RingNode> {
    (1..=count).map(node).collect()
}

fn zoned(zones: &[u64]) -> Vec<RingNode> {
    let mut nodes = plain(zones.iter().sum());
    let names = zones.iter().enumerate().flat_map(|(zone, size)| (0..*size).map(move |_| format!("z{zone}")));
    nodes.iter_mut().zip(names).for_each(|(node, name)| node.zone = Some(name));
    nodes
}

fn loads(nodes: &[RingNode], rows: &[Vec<NodeId>]) -> BTreeMap<NodeId, usize> {
    let count = |id: NodeId| rows.iter().filter(|row| row.contains(&id)).count();
    nodes.iter().map(|node| (node.node, count(node.node))).collect()
}

fn leaders(nodes: &[RingNode], rows: &[Vec<NodeId>]) -> BTreeMap<NodeId, usize> {
    let count = |id: NodeId| rows.iter().filter(|row| row.first() == Some(&id)).count();
    nodes.iter().map(|node| (node.node, count(node.node))).collect()
}

/// Replicas that are in `after` and were not in `before`: each is one copy over the network.
fn moved(before: &[Vec<NodeId>], after: &[Vec<NodeId>]) -> usize {
    before.iter().zip(after).map(|(old, new)| new.iter().filter(|id| !old.contains(id)).count()).sum()
}

fn within(loads: &BTreeMap<NodeId, usize>, mean: f64) {
    let (most, least) = ((mean * 1.10).ceil() as usize, (mean * 0.90).floor() as usize);
    assert!(loads.values().all(|load| (least..=most).contains(load)), "{loads:?} not within {least}..={most}");
}

#[test]
fn one_placement_is_pinned() {
    let placement = place(&plain(5), 8, 3, &[]);
    let number = |id: &NodeId| (1..=5).find(|n| node(*n).node == *id).expect("one of the five");
    let rows: Vec<Vec<u64>> = placement.replicas.iter().map(|row| row.iter().map(number).collect()).collect();
    let pinned = [[3, 1, 5], [3, 1, 2], [2, 5, 1], [4, 3, 2], [1, 4, 5], [2, 1, 3], [5, 4, 3], [4, 5, 3]];
    assert_eq!(rows, pinned, "a grid that upgrades would move its data");
}

#[test]
fn loads_are_bounded() {
    for (partitions, count) in [(64, 3), (64, 10), (256, 3), (256, 10), (256, 20), (1024, 20), (64, 50)] {
        let nodes = plain(count);
        let rows = place(&nodes, partitions, 3, &[]).replicas;
        within(&loads(&nodes, &rows), f64::from(partitions) * 3.0 / count as f64);
        within(&leaders(&nodes, &rows), f64::from(partitions) / count as f64);
    }
}

#[test]
fn a_join_moves_no_more_than_the_newcomers_share() {
    for (partitions, count) in [(64, 3), (64, 10), (256, 3), (256, 10), (256, 20), (1024, 20)] {
        let before = place(&plain(count), partitions, 3, &[]).replicas;
        let nodes = plain(count + 1);
        let after = place(&nodes, partitions, 3, &before).replicas;
        let share = f64::from(partitions) * 3.0 / (count + 1) as f64;
        let moves = moved(&before, &after) as f64;
        assert!(moves <= share * 1.15 + 1.0, "{partitions} on {count}: {moves} moves, share {share}");
        within(&loads(&nodes, &after), share);
        within(&leaders(&nodes, &after), share / 3.0);
    }
}

#[test]
fn a_leave_moves_little_more_than_what_is_lost() {
    for (partitions, count) in [(64, 4), (64, 10), (256, 4), (256, 10), (256, 20), (1024, 20)] {
        let nodes = plain(count);
        let before = place(&nodes, partitions, 3, &[]).replicas;
        let lost = loads(&nodes, &before)[&nodes[0].node];
        let after = place(&nodes[1..], partitions, 3, &before).replicas;
        let moves = moved(&before, &after);
        assert!(moves >= lost && moves as f64 <= lost as f64 * 1.10 + 1.0, "{moves} moves for {lost} lost");
    }
}

#[test]
fn weights_count_and_zero_holds_nothing() {
    let mut nodes = plain(6);
    nodes[0].weight = 2;
    nodes[1].weight = 0;
    let rows = place(&nodes, 256, 3, &[]).replicas;
    let loads = loads(&nodes, &rows);
    assert_eq!(loads[&nodes[1].node], 0);
    // A weight of 2 among 6: a third of 768, which is one replica of every partition at most.
    assert!((230..=256).contains(&loads[&nodes[0].node]), "{loads:?}");
    nodes[0].weight = 0;
    assert_eq!(moved(&rows, &place(&nodes, 256, 3, &rows).replicas), loads[&nodes[0].node]);
}

#[test]
fn fewer_nodes_than_replicas() {
    let two = place(&plain(2), 16, 3, &[]);
    assert!(two.replicas.iter().all(|row| row.len() == 2));
    assert_eq!(two.under_replicated, 16);
    let none = place(&[], 4, 3, &[]);
    assert_eq!((none.replicas, none.under_replicated), (vec![Vec::new(); 4], 4));
    assert_eq!(place(&plain(3), 16, 3, &two.replicas).under_replicated, 0);
}

#[test]
fn a_small_zone_still_gets_its_replica() {
    let nodes = zoned(&[1, 4, 4]);
    let rows = place(&nodes, 64, 3, &[]).replicas;
    assert!(rows.iter().all(|row| row.contains(&nodes[0].node)));
    within(&loads(&nodes[1..], &rows), 16.0);
}

#[test]
fn zones_that_are_mended_move_only_what_must() {
    let unzoned = place(&plain(6), 64, 3, &[]).replicas;
    let nodes = zoned(&[2, 2, 2]);
    let shared = unzoned.iter().filter(|row| zones_of(&nodes, row).len() < 3).count();
    let mended = place(&nodes, 64, 3, &unzoned).replicas;
    assert!(shared > 0 && mended.iter().all(|row| zones_of(&nodes, row).len() == 3));
    assert!(moved(&unzoned, &mended) <= shared + 20);
}

fn zones_of(nodes: &[RingNode], row: &[NodeId]) -> BTreeSet<String> {
    nodes.iter().filter(|node| row.contains(&node.node)).filter_map(|node| node.zone.clone()).collect()
}

#[test]
fn reasons_are_given() {
    let nodes = zoned(&[2, 2, 2]);
    let table = place(&nodes, 64, 3, &[]).replicas;
    let all: Vec<String> =
        (0..64).flat_map(|partition| why(&nodes, 3, &table, PartitionId(partition), |id| id.to_string())).collect();
    for part in ["the ring proposes", "zone holds a replica", "preferred leader"] {
        assert!(all.iter().any(|sentence| sentence.contains(part)), "nothing says {part:?}");
    }
    let bounded = place(&plain(10), 64, 3, &[]).replicas;
    let said = |partition| why(&plain(10), 3, &bounded, PartitionId(partition), |id| id.to_string());
    assert!((0..64).flat_map(said).any(|sentence| sentence.contains("its share of")));
    assert!(why(&nodes, 3, &table, PartitionId(64), |id| id.to_string()).is_empty());
}

fn any_nodes() -> impl Strategy<Value = Vec<RingNode>> {
    let zone = prop::option::of((0u8..4).prop_map(|zone| format!("z{zone}")));
    prop::collection::btree_map(1u64..1000, (0u32..4, zone), 0..12)
        .prop_map(|nodes| nodes.into_iter().map(|(id, (weight, zone))| RingNode { weight, zone, ..node(id) }).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_full_distinct_and_of_weighted_nodes(nodes in any_nodes(), old in any_nodes(), replicas in 1usize..5) {
        let present = place(&old, 32, 3, &[]).replicas;
        let eligible: BTreeSet<NodeId> = nodes.iter().filter(|n| n.weight > 0).map(|n| n.node).collect();
        let placement = place(&nodes, 32, replicas, &present);
        for row in &placement.replicas {
            prop_assert_eq!(row.len(), replicas.min(eligible.len()));
            prop_assert_eq!(row.iter().collect::<BTreeSet<_>>().len(), row.len());
            prop_assert!(row.iter().all(|id| eligible.contains(id)));
        }
        prop_assert_eq!(placement.under_replicated, if eligible.len() < replicas { 32 } else { 0 });
    }

    #[test]
    fn the_order_of_the_nodes_does_not_matter(nodes in any_nodes(), turn in 0usize..12) {
        let mut turned = nodes.clone();
        turned.rotate_left(turn % nodes.len().max(1));
        turned.reverse();
        prop_assert_eq!(place(&nodes, 32, 3, &[]), place(&turned, 32, 3, &[]));
    }

    #[test]
    fn what_is_in_place_stays_when_nothing_changes(nodes in any_nodes()) {
        let once = place(&nodes, 32, 3, &[]);
        prop_assert_eq!(&place(&nodes, 32, 3, &once.replicas), &once);
    }

    #[test]
    fn zones_are_kept_apart_where_there_are_enough(sizes in prop::collection::vec(1u64..4, 1..6), replicas in 1usize..4) {
        let nodes = zoned(&sizes);
        let present = place(&plain(4), 32, 2, &[]).replicas;
        for row in place(&nodes, 32, replicas, &present).replicas {
            prop_assert_eq!(zones_of(&nodes, &row).len(), replicas.min(sizes.len()));
        }
    }
}

proptest! {
    /// From any placement, in any order of joins: where a node may lead, each partition has one that
    /// may, and asking again changes nothing.
    #[test]
    fn each_partition_has_a_node_that_may_lead(count in 3u64..12, capable in 1u64..4, partitions in 1u32..40, start in 3u64..12) {
        let may_lead = |mut nodes: Vec<RingNode>| {
            nodes.iter_mut().enumerate().for_each(|(at, node)| node.leads = (at as u64) < capable);
            nodes
        };
        let before = place(&may_lead(plain(start.min(count))), partitions, 3, &[]).replicas;
        let nodes = may_lead(plain(count));
        let rows = place(&nodes, partitions, 3, &before).replicas;
        let leads = |id: &NodeId| nodes.iter().any(|node| node.node == *id && node.leads);
        for row in &rows {
            prop_assert_eq!((row.len(), row.iter().collect::<BTreeSet<_>>().len()), (3, 3));
            prop_assert!(leads(&row[0]), "{:?}", row);
        }
        let again = place(&nodes, partitions, 3, &rows).replicas;
        prop_assert_eq!(moved(&rows, &again), 0);
        let all_lead = place(&plain(count), partitions, 3, &before).replicas;
        if capable >= count {
            prop_assert_eq!(rows, all_lead);
        }
    }
}
