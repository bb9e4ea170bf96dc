//! Identifiers. Each is a type of its own so that a node is never taken for a replica.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One replica in one group: issued by the meta group, never reused. It is the Raft node id in
/// that group, which is why it is a bare integer.
pub type ReplicaId = u64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id!(
    /// A peer's identity: random, lives on its disk, never reused. Shown as 16 hex digits.
    NodeId, u64, "{:016x}"
);
id!(
    /// The grid's identity, minted once by the first founder. Shown as 32 hex digits.
    GridId, u128, "{:032x}"
);
id!(
    /// Grows by one at each start of a node on the same disk.
    Incarnation, u64, "{}"
);
id!(
    /// A contiguous range of slots; one Raft group.
    PartitionId, u32, "{}"
);
id!(
    /// A Raft group: 0 is the meta group, `p + 1` is partition `p`.
    GroupId, u32, "{}"
);
id!(
    /// A map, named by its descriptor in the meta group.
    MapId, u32, "{}"
);
id!(
    /// One unbroken life of a partition's executor under one leadership; drawn at random.
    RunId, u64, "{:016x}"
);
id!(
    /// A client's session; drawn at random.
    SessionId, u64, "{:016x}"
);

impl GroupId {
    /// The group that holds grid-wide facts.
    pub const META: GroupId = GroupId(0);

    /// The partition that this group replicates; `None` for the meta group.
    pub fn partition(self) -> Option<PartitionId> {
        self.0.checked_sub(1).map(PartitionId)
    }
}

impl PartitionId {
    /// The Raft group that replicates this partition.
    pub fn group(self) -> GroupId {
        // No grid has so many; what a peer says may name any, and none is the meta group's.
        GroupId(self.0.saturating_add(1))
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(NodeId)
    }
}

impl FromStr for GridId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(GridId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_partitions_map_onto_each_other() {
        assert_eq!(GroupId::META.partition(), None);
        assert_eq!(PartitionId(0).group(), GroupId(1));
        assert_eq!(GroupId(64).partition(), Some(PartitionId(63)));
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let node = NodeId(0x00ab_cdef_0123_4567);
        assert_eq!(node.to_string(), "00abcdef01234567");
        assert_eq!(node.to_string().parse(), Ok(node));
        let grid = GridId(7);
        assert_eq!(grid.to_string().parse(), Ok(grid));
    }
}
