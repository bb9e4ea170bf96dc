//! The consistent-hash circle: virtual nodes in order, and each partition's walk over distinct nodes.
//!
//! The crate `hashring` orders the virtual nodes and nothing else: its own replica walk does not
//! know physical nodes, and its default hasher is not specified to be stable.

use crate::types::{NodeId, PartitionId};
use hashring::HashRing;
use std::hash::{BuildHasher, Hash, Hasher};
use xxhash_rust::xxh3::Xxh3;

/// Virtual nodes per unit of weight.
pub const VIRTUAL_NODES: u32 = 128;
/// Units of weight that still add virtual nodes; heavier nodes are served by the bound on load.
const WEIGHT_UNITS_MAX: u32 = 64;

/// xxh3 with seed 0 everywhere.
#[derive(Clone, Copy)]
struct Stable;

impl BuildHasher for Stable {
    type Hasher = Xxh3;

    fn build_hasher(&self) -> Xxh3 {
        Xxh3::new()
    }
}

/// A node's point on the circle. Hashed as `n` | node (8, LE) | number (4, LE).
#[derive(Clone, Copy, Debug)]
struct Point {
    node: usize,
    id: NodeId,
    number: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [b'n'; 13];
        bytes[1..9].copy_from_slice(&self.id.0.to_le_bytes());
        bytes[9..].copy_from_slice(&self.number.to_le_bytes());
        state.write(&bytes);
    }
}

/// A partition's position. Hashed as `p` | partition (4, LE).
struct Position(PartitionId);

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [b'p'; 5];
        bytes[1..].copy_from_slice(&self.0.0.to_le_bytes());
        state.write(&bytes);
    }
}

/// The circle: (hash, index of the node) in ascending order.
pub(super) struct Circle {
    points: Vec<(u64, usize)>,
    nodes: usize,
}

impl Circle {
    /// A circle of nodes with their weights. Equal hashes keep the nodes' order, so callers sort by id.
    pub(super) fn new(nodes: &[(NodeId, u32)]) -> Self {
        let mut ring = HashRing::with_hasher(Stable);
        let numbers = |weight: u32| 0..VIRTUAL_NODES * weight.min(WEIGHT_UNITS_MAX);
        let of_node = |(node, &(id, weight)): (usize, &(NodeId, u32))| {
            numbers(weight).map(move |number| Point { node, id, number })
        };
        ring.batch_add(nodes.iter().enumerate().flat_map(of_node).collect());
        // The crate iterates only over rings of its default hasher; asking for more replicas than there
        // are points gives the whole circle, from some position on. It is turned to its lowest hash.
        let circle: Vec<Point> = ring.get_with_replicas(&Position(PartitionId(0)), usize::MAX).unwrap_or_default();
        let mut points: Vec<(u64, usize)> =
            circle.into_iter().map(|point| (Stable.hash_one(point), point.node)).collect();
        let lowest = points.windows(2).position(|pair| pair[1].0 < pair[0].0).map_or(0, |last| last + 1);
        points.rotate_left(lowest);
        Circle { points, nodes: nodes.len() }
    }

    /// The distinct nodes in the order in which a walk from the partition's position meets them.
    pub(super) fn walk(&self, partition: PartitionId) -> Vec<usize> {
        let position = Stable.hash_one(Position(partition));
        let start = self.points.partition_point(|(hash, _)| *hash < position);
        let mut met = vec![false; self.nodes];
        let mut order = Vec::with_capacity(self.nodes);
        for (_, node) in self.points[start..].iter().chain(&self.points[..start]) {
            if !std::mem::replace(&mut met[*node], true) {
                order.push(*node);
                if order.len() == self.nodes {
                    break;
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_fixed_for_good() {
        // xxh3-64 of the documented bytes: if one of these changes, every grid's placement moves.
        let point = Point { node: 9, id: NodeId(0x0102_0304_0506_0708), number: 7 };
        assert_eq!(Stable.hash_one(point), xxhash_rust::xxh3::xxh3_64(b"n\x08\x07\x06\x05\x04\x03\x02\x01\x07\0\0\0"));
        assert_eq!(Stable.hash_one(Position(PartitionId(5))), xxhash_rust::xxh3::xxh3_64(b"p\x05\0\0\0"));
        assert_eq!(Stable.hash_one(Position(PartitionId(5))), 4_929_241_345_324_560_499);
    }

    #[test]
    fn a_walk_meets_every_node_once() {
        let circle = Circle::new(&[(NodeId(1), 1), (NodeId(2), 3), (NodeId(3), 1)]);
        assert_eq!(circle.points.len(), 5 * VIRTUAL_NODES as usize);
        assert!(circle.points.is_sorted_by_key(|(hash, _)| *hash));
        for partition in 0..100 {
            let mut order = circle.walk(PartitionId(partition));
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
    }
}
