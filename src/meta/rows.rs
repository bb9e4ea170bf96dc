//! The kinds of meta rows.

mod grid;
mod members;

use super::codec::{Extra, Row, placed};
use crate::types::{GroupId, MapDescriptor, NodeId, ReplicaId};
pub use grid::{GridFounder, GridRow};
pub use members::{MemberIntent, MemberRow, RemovedRow, TaskMark};
use serde::{Deserialize, Serialize};

/// Who should hold a group. It is intent: the group's committed membership is the fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRow {
    /// The group: a partition's, or the meta group.
    pub group: GroupId,
    /// Grows by one at each change of this row.
    pub version: u64,
    /// The voters, the preferred leader first.
    #[serde(with = "placed")]
    pub replicas: Vec<(ReplicaId, NodeId)>,
    /// Replicas that follow without a vote: a move's newcomers; of the meta group every other member.
    #[serde(with = "placed", default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// While a partition moves: the voters that the learners replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<ReplicaId>,
    /// While a partition moves: the replica that is to be the preferred leader afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<ReplicaId>,
    /// While a partition moves: its leader may have begun to change the voters. From then on the
    /// newcomers may be voters, so that they are not given up any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub switching: bool,
    /// Whether the group has been initialized: it is never initialized again.
    pub formed: bool,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

impl PlacementRow {
    /// Whether a partition's replicas are being replaced.
    pub fn is_moving(&self) -> bool {
        self.group != GroupId::META && !(self.learners.is_empty() && self.leaving.is_empty())
    }

    /// The voters that are wanted in the end, the preferred leader first. The meta group's learners
    /// stay learners; a partition's are on their way in.
    pub fn target(&self) -> Vec<(ReplicaId, NodeId)> {
        let staying = self.replicas.iter().filter(|(id, _)| !self.leaving.contains(id));
        let coming = self.learners.iter().filter(|_| self.group != GroupId::META);
        let mut target: Vec<_> = staying.chain(coming).copied().collect();
        // A stable sort: the others keep their order.
        target.sort_by_key(|(id, _)| self.lead.is_some() && Some(*id) != self.lead);
        target
    }

    /// Every replica that may exist: voters, newcomers, and those on their way out.
    pub fn all(&self) -> impl Iterator<Item = (ReplicaId, NodeId)> {
        self.replicas.iter().chain(&self.learners).copied()
    }
}

/// A map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRow {
    /// What it is.
    #[serde(flatten)]
    pub descriptor: MapDescriptor,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A map that was dropped a short while ago, or whose entries are still being deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRow {
    /// The name that it had.
    pub name: String,
    /// What it was: the answer to who asks for the drop again. Notes of older peers lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<MapDescriptor>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The issuer of replica ids. An id is issued by raising `next`, and never again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaIdsRow {
    /// The next id to issue.
    pub next: ReplicaId,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The issuer of map ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapIdsRow {
    /// The next id to issue.
    pub next: u32,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Row for PlacementRow {}
impl Row for MapRow {}
impl Row for DroppedRow {}
impl Row for ReplicaIdsRow {}
impl Row for MapIdsRow {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Eviction, GridId, Incarnation, KeyCodec, MapId, MapOptions, ValueCodec};
    use proptest::prelude::*;
    use std::fmt::Debug;

    fn golden<R: Row + PartialEq + Debug>(row: &R, json: &str) {
        let bytes = row.encode().expect("encodes");
        assert_eq!((bytes[0], std::str::from_utf8(&bytes[1..]).expect("text")), (1, json));
        assert_eq!(&R::decode(&bytes).expect("decodes"), row);
    }

    #[test]
    fn rows_have_golden_bytes() {
        let extra = Extra::new();
        let founders = vec![GridFounder { node: NodeId(1), address: "a:1".to_owned() }];
        golden(
            &GridRow {
                grid: GridId(u128::MAX - 1),
                founders,
                partitions: 64,
                replicas: 3,
                created_ms: 9,
                active_version: 1,
                extra: extra.clone(),
            },
            concat!(
                r#"{"grid":"fffffffffffffffffffffffffffffffe","founders":[{"node":"0000000000000001","address":"a:1"}],"#,
                r#""partitions":64,"replicas":3,"created_ms":9,"active_version":1}"#
            ),
        );
        golden(
            &MemberRow {
                node: NodeId(0xAB),
                name: "n1".to_owned(),
                address: "a:1".to_owned(),
                zone: Some("z".to_owned()),
                weight: 1,
                incarnation: Incarnation(4),
                since: 9,
                intent: MemberIntent::Active,
                tasks: Vec::new(),
                extra: extra.clone(),
            },
            r#"{"node":"00000000000000ab","name":"n1","address":"a:1","zone":"z","weight":1,"incarnation":4,"since":9}"#,
        );
        let mut placement = PlacementRow {
            group: GroupId(8),
            version: 2,
            replicas: vec![(3, NodeId(1)), (9, NodeId(2))],
            learners: Vec::new(),
            leaving: Vec::new(),
            lead: None,
            switching: false,
            formed: true,
            extra: extra.clone(),
        };
        golden(
            &placement,
            r#"{"group":8,"version":2,"replicas":[[3,"0000000000000001"],[9,"0000000000000002"]],"formed":true}"#,
        );
        placement.learners.push((10, NodeId(3)));
        placement.replicas.clear();
        golden(
            &placement,
            r#"{"group":8,"version":2,"replicas":[],"learners":[[10,"0000000000000003"]],"formed":true}"#,
        );
        placement.leaving.push(3);
        placement.lead = Some(10);
        golden(
            &placement,
            concat!(
                r#"{"group":8,"version":2,"replicas":[],"learners":[[10,"0000000000000003"]],"leaving":[3],"lead":10,"#,
                r#""formed":true}"#
            ),
        );
        placement.switching = true;
        golden(
            &placement,
            concat!(
                r#"{"group":8,"version":2,"replicas":[],"learners":[[10,"0000000000000003"]],"leaving":[3],"lead":10,"#,
                r#""switching":true,"formed":true}"#
            ),
        );
        golden(
            &RemovedRow { node: NodeId(0xAB), name: "n1".to_owned(), extra: extra.clone() },
            r#"{"node":"00000000000000ab","name":"n1"}"#,
        );
        let task = TaskMark { name: "transfer".to_owned(), version: 1, fingerprint: 7 };
        let draining = MemberRow {
            node: NodeId(1),
            name: "n".to_owned(),
            address: "a:1".to_owned(),
            zone: None,
            weight: 1,
            incarnation: Incarnation(1),
            since: 2,
            intent: MemberIntent::Draining,
            tasks: vec![task],
            extra: extra.clone(),
        };
        golden(
            &draining,
            concat!(
                r#"{"node":"0000000000000001","name":"n","address":"a:1","weight":1,"incarnation":1,"since":2,"#,
                r#""intent":"draining","tasks":[{"name":"transfer","version":1,"fingerprint":7}]}"#
            ),
        );
        let descriptor = MapDescriptor {
            id: MapId(7),
            name: "orders".to_owned(),
            key_codec: KeyCodec::Utf8,
            value_codec: ValueCodec::Msgpack,
            schema: 2,
            options: MapOptions::default(),
        };
        golden(
            &MapRow { descriptor: descriptor.clone(), extra: extra.clone() },
            r#"{"id":7,"name":"orders","key_codec":"utf8","value_codec":"msgpack","schema":2}"#,
        );
        let options = MapOptions { ttl_ms: 5, max_entries: 6, max_bytes: 7, eviction: Eviction::Lfu, replicated: true };
        golden(
            &MapRow { descriptor: MapDescriptor { options, ..descriptor.clone() }, extra: extra.clone() },
            concat!(
                r#"{"id":7,"name":"orders","key_codec":"utf8","value_codec":"msgpack","schema":2,"#,
                r#""options":{"ttl_ms":5,"max_entries":6,"max_bytes":7,"eviction":"lfu","replicated":true}}"#
            ),
        );
        golden(&DroppedRow { name: "orders".to_owned(), map: None, extra: extra.clone() }, r#"{"name":"orders"}"#);
        golden(
            &DroppedRow { name: "orders".to_owned(), map: Some(descriptor.clone()), extra: extra.clone() },
            concat!(
                r#"{"name":"orders","map":{"id":7,"name":"orders","key_codec":"utf8","value_codec":"msgpack","#,
                r#""schema":2}}"#
            ),
        );
        golden(&ReplicaIdsRow { next: 5, extra: extra.clone() }, r#"{"next":5}"#);
        golden(&MapIdsRow { next: 6, extra }, r#"{"next":6}"#);
    }

    #[test]
    fn unknown_versions_and_damage_are_refused() {
        let good = ReplicaIdsRow { next: 5, extra: Extra::new() }.encode().expect("encodes");
        let other_version = [&[2], &good[1..]].concat();
        for bad in [&b""[..], &good[..good.len() - 1], &other_version, b"\x01{\"nxt\":5}"] {
            assert!(ReplicaIdsRow::decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let json = concat!(
            "\u{1}",
            r#"{"id":7,"name":"m","key_codec":"utf8","value_codec":"json","schema":0,"colour":5,"tiers":[{"x":1}]}"#
        );
        let mut row = MapRow::decode(json.as_bytes()).expect("decodes");
        row.descriptor.schema = 1;
        let rewritten = row.encode().expect("encodes");
        let text = std::str::from_utf8(&rewritten).expect("text");
        for part in [r#""colour":5"#, r#""tiers":[{"x":1}]"#, r#""schema":1"#] {
            assert!(text.contains(part), "{text}");
        }
    }

    fn any_extra() -> impl Strategy<Value = Extra> {
        prop::collection::btree_map("x_[a-z]{1,5}", any::<u64>(), 0..3)
            .prop_map(|extra| extra.into_iter().map(|(key, value)| (key, value.into())).collect())
    }

    fn any_placed() -> impl Strategy<Value = Vec<(ReplicaId, NodeId)>> {
        prop::collection::vec((any::<u64>(), any::<u64>().prop_map(NodeId)), 0..4)
    }

    proptest! {
        #[test]
        fn members_round_trip(
            node: u64, name: String, address: String, zone: Option<String>, weight: u32, incarnation: u64, since: u64,
            extra in any_extra(),
        ) {
            let (node, incarnation) = (NodeId(node), Incarnation(incarnation));
            let (intent, tasks) = (MemberIntent::Removing, Vec::new());
            let row = MemberRow { node, name, address, zone, weight, incarnation, since, intent, tasks, extra };
            prop_assert_eq!(MemberRow::decode(&row.encode().expect("encodes")).expect("decodes"), row);
        }

        #[test]
        fn placements_round_trip(
            group: u32, version: u64, replicas in any_placed(), learners in any_placed(), leaving: Vec<u64>, formed: bool,
            extra in any_extra(),
        ) {
            let (lead, group, switching) = (leaving.first().copied(), GroupId(group), !formed);
            let row = PlacementRow { group, version, replicas, learners, leaving, lead, switching, formed, extra };
            prop_assert_eq!(PlacementRow::decode(&row.encode().expect("encodes")).expect("decodes"), row);
        }

        #[test]
        fn grids_and_maps_round_trip(
            grid: u128, node: u64, text: String, number: u32, created_ms: u64, codec in 0u8..5, extra in any_extra(),
        ) {
            let row = GridRow {
                grid: GridId(grid),
                founders: vec![GridFounder { node: NodeId(node), address: text.clone() }],
                partitions: number,
                replicas: 3,
                created_ms,
                active_version: number,
                extra: extra.clone(),
            };
            prop_assert_eq!(GridRow::decode(&row.encode().expect("encodes")).expect("decodes"), row);
            let value_codec = ValueCodec::from_number(codec).expect("a known codec");
            let options = MapOptions { ttl_ms: created_ms, replicated: number % 2 == 0, ..MapOptions::default() };
            let key_codec = KeyCodec::I64;
            let descriptor =
                MapDescriptor { id: MapId(number), name: text, key_codec, value_codec, schema: number, options };
            let row = MapRow { descriptor, extra: extra.clone() };
            prop_assert_eq!(MapRow::decode(&row.encode().expect("encodes")).expect("decodes"), row);
            let row = ReplicaIdsRow { next: created_ms, extra };
            prop_assert_eq!(ReplicaIdsRow::decode(&row.encode().expect("encodes")).expect("decodes"), row);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
            let _ = PlacementRow::decode(&bytes);
            let _ = MemberRow::decode(&[&[1], &bytes[..]].concat());
        }
    }
}
