//! Keys of meta rows. Text, so that the built-in map can be read by people.

use crate::types::{GroupId, MapId, NodeId, PartitionId};
use std::fmt;

/// Which row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetaKey {
    /// `grid`: the grid itself.
    Grid,
    /// `member/<node>`: a member.
    Member(NodeId),
    /// `placement/<partition>`, or `placement/meta`: who should hold a group.
    Placement(GroupId),
    /// `map/<name>`: a map.
    Map(String),
    /// `dropped/<id>`: a map that was dropped, whose entries are still being deleted.
    Dropped(MapId),
    /// `removed/<node>`: a node that was removed for good.
    Removed(NodeId),
    /// `replica-ids`: the issuer of replica ids.
    ReplicaIds,
    /// `map-ids`: the issuer of map ids.
    MapIds,
}

impl fmt::Display for MetaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaKey::Grid => f.write_str("grid"),
            MetaKey::Member(node) => write!(f, "member/{node}"),
            MetaKey::Placement(group) => match group.partition() {
                None => f.write_str("placement/meta"),
                Some(partition) => write!(f, "placement/{:05}", partition.0),
            },
            MetaKey::Map(name) => write!(f, "map/{name}"),
            MetaKey::Dropped(map) => write!(f, "dropped/{:010}", map.0),
            MetaKey::Removed(node) => write!(f, "removed/{node}"),
            MetaKey::ReplicaIds => f.write_str("replica-ids"),
            MetaKey::MapIds => f.write_str("map-ids"),
        }
    }
}

impl MetaKey {
    /// The key that prints like this; `None` for rows of a kind that this version does not know.
    pub fn parse(key: &str) -> Option<MetaKey> {
        let parsed = match key.split_once('/') {
            None => match key {
                "grid" => MetaKey::Grid,
                "replica-ids" => MetaKey::ReplicaIds,
                "map-ids" => MetaKey::MapIds,
                _ => return None,
            },
            Some(("member", node)) => MetaKey::Member(node.parse().ok()?),
            Some(("placement", "meta")) => MetaKey::Placement(GroupId::META),
            Some(("placement", partition)) => {
                MetaKey::Placement(PartitionId(partition.parse().ok().filter(|id| *id < u32::MAX)?).group())
            }
            Some(("dropped", map)) => MetaKey::Dropped(MapId(map.parse().ok()?)),
            Some(("removed", node)) => MetaKey::Removed(node.parse().ok()?),
            Some(("map", name)) => MetaKey::Map(name.to_owned()),
            Some(_) => return None,
        };
        // One spelling per row: two keys must never mean the same one.
        (parsed.to_string() == key).then_some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_pinned() {
        let table = [
            (MetaKey::Grid, "grid"),
            (MetaKey::Member(NodeId(0xAB)), "member/00000000000000ab"),
            (MetaKey::Placement(GroupId::META), "placement/meta"),
            (MetaKey::Placement(GroupId(8)), "placement/00007"),
            (MetaKey::Map("a/b".to_owned()), "map/a/b"),
            (MetaKey::Dropped(MapId(7)), "dropped/0000000007"),
            (MetaKey::Removed(NodeId(0xAB)), "removed/00000000000000ab"),
            (MetaKey::ReplicaIds, "replica-ids"),
            (MetaKey::MapIds, "map-ids"),
        ];
        for (key, text) in table {
            assert_eq!(key.to_string(), text);
            assert_eq!(MetaKey::parse(text), Some(key));
        }
    }

    #[test]
    fn other_spellings_and_kinds_are_unknown() {
        for text in ["", "grids", "member/ab", "member/zz", "placement/7", "placement/4294967295", "job/x", "map"] {
            assert_eq!(MetaKey::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn keys_read_back(node: u64, group in 0..u32::MAX, name in "[a-zA-Z0-9._:-]{1,20}") {
            for key in [MetaKey::Member(NodeId(node)), MetaKey::Placement(GroupId(group)), MetaKey::Map(name)] {
                prop_assert_eq!(MetaKey::parse(&key.to_string()), Some(key));
            }
        }
    }
}
