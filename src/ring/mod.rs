//! Where data should live, as pure functions: slot ranges of partitions, and the target placement.
//!
//! In: the nodes that may hold data, with weight and zone, the number of partitions and replicas,
//! and the placement as it is. Out: per partition the nodes that should hold it, the preferred
//! leader first. Every node and every version of this program computes the same placement from the
//! same facts: hashes are fixed (xxh3 over little-endian bytes), arithmetic is on integers, and the
//! order in which nodes are given does not matter.
//!
//! Nothing here knows who is alive, moves data, reads a clock or draws a number.

mod balance;
mod bounds;
mod circle;
mod place;
mod slots;
#[cfg(test)]
mod tests;
mod why;

pub use bounds::LOAD_BOUND_PERCENT;
pub use circle::VIRTUAL_NODES;
pub use place::{Placement, RingNode, place};
pub use slots::{partition_of, slot_range};
pub use why::why;
