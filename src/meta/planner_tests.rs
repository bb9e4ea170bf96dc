//! The planner against a small stand-in for the meta group's map.

use super::super::rows::TaskMark;
use super::super::testing::{Rows, member};
use super::*;
use crate::types::{Eviction, KeyCodec, SLOTS, Slot, ValueCodec};

#[test]
fn founding_numbers_the_meta_group_first_and_every_replica_once() {
    let view = Rows::founded(3).view();
    let meta: Vec<ReplicaId> = view.replicas(GroupId::META).iter().map(|(replica, _)| *replica).collect();
    assert_eq!(meta, [1, 2, 3]);
    assert_eq!(view.replicas(GroupId::META)[0].1, NodeId(11));
    assert_eq!(view.replicas(GroupId(1)).iter().map(|(replica, _)| *replica).collect::<Vec<_>>(), [4, 5, 6]);
    let all: BTreeSet<ReplicaId> = view.placement.values().flat_map(|p| &p.row.replicas).map(|(id, _)| *id).collect();
    assert_eq!(all, (1..28).collect());
    assert_eq!(view.replica_ids.as_ref().map(|ids| ids.row.next), Some(28));
    assert!(view.placement.values().all(|p| p.row.formed == (p.row.group == GroupId::META)));
    assert_eq!(view.table(), ring::place(&view.ring_nodes(), 8, 3, &[]).replicas);
}

#[test]
fn a_grid_of_one_has_one_replica_each() {
    let view = Rows::founded(1).view();
    assert_eq!(view.placement.len(), 9);
    assert!(view.placement.values().all(|placed| placed.row.replicas.len() == 1));
    assert_eq!(view.grid.as_ref().map(|grid| grid.row.replicas), Some(3));
}

#[test]
fn a_view_looks_things_up() {
    let mut rows = Rows::founded(3);
    let mut view = rows.view();
    assert_eq!((view.version, view.partitions()), (rows.revision, 8));
    assert_eq!(view.partition_of(Slot(0)), Some(PartitionId(0)));
    assert_eq!(view.partition_of(Slot(SLOTS - 1)), Some(PartitionId(7)));
    assert_eq!(view.address(NodeId(22)), Some("h2:7000"));
    assert_eq!(view.held_by(NodeId(22)).count(), 9);
    assert_eq!(MetaView::default().partition_of(Slot(0)), None);
    rows.rows.insert("job/later".to_owned(), (99, Bytes::from_static(b"\x09?")));
    assert_eq!(rows.view().version, 99);
    view.set("member/0000000000000016", 100, None).expect("a deletion");
    assert_eq!((view.member(NodeId(22)), view.version), (None, 100));
    let before = view.clone();
    let error = view.set("grid", 101, Some(b"\x01{")).expect_err("damaged");
    assert!(error.code == Code::CorruptRow && error.place.contains("grid"));
    assert_eq!(view, before);
}

#[test]
fn a_lost_replica_is_replaced_once_under_a_new_id() {
    let mut rows = Rows::founded(3);
    for (group, lost) in [(GroupId(1), 5), (GroupId::META, 2)] {
        let view = rows.view();
        let node = view.replicas(group)[1].1;
        let plan = replacement(&view, group, lost).expect("a grid").expect("wanted");
        assert_eq!(plan.node, node);
        let again = replacement(&view, group, lost).expect("a grid").expect("wanted");
        rows.write_all(&plan.changes);
        assert!(again.changes.iter().any(|change| rows.write(change).is_err()), "two replacements took effect");
        let view = rows.view();
        assert_eq!(view.replicas(group)[1], (plan.new, node));
        assert_eq!(view.placement_of(group).map(|row| row.version), Some(2));
        assert!(view.replica_ids.as_ref().is_some_and(|ids| ids.row.next > plan.new));
        assert_eq!(replacement(&view, group, lost), Ok(None));
    }
    assert_eq!(replacement(&rows.view(), GroupId(99), 1), Ok(None));
}

#[test]
fn each_member_follows_the_meta_group() {
    let mut rows = Rows::founded(3);
    let voters: BTreeMap<ReplicaId, NodeId> = rows.view().replicas(GroupId::META).iter().copied().collect();
    assert_eq!(missing_learners(&rows.view(), &voters), Ok(Learners::default()));
    let joined = member_change(&rows.view(), &member(5)).expect("encodes");
    rows.write_all(&joined);
    let first = missing_learners(&rows.view(), &voters).expect("a grid");
    assert!(first.add.is_empty() && first.changes.len() == 2);
    rows.write_all(&first.changes);
    let second = missing_learners(&rows.view(), &voters).expect("a grid");
    assert_eq!(second, Learners { add: vec![(28, NodeId(5))], ..Learners::default() });
    let mut membership = voters;
    membership.extend([(28, NodeId(5)), (90, NodeId(6))]);
    let third = missing_learners(&rows.view(), &membership).expect("a grid");
    assert_eq!(third, Learners { remove: vec![90], ..Learners::default() });
    let plan = replacement(&rows.view(), GroupId::META, 28).expect("a grid").expect("a learner is wanted too");
    assert_eq!(plan.node, NodeId(5));
}

#[test]
fn a_member_is_written_when_it_changes_and_never_back() {
    let mut rows = Rows::founded(1);
    let mut change = |row: &MemberRow| {
        let change = member_change(&rows.view(), row).expect("encodes");
        change.iter().for_each(|change| rows.write(change).expect("unchanged"));
        (!change.is_empty(), rows.view().member(row.node).cloned().expect("a member"))
    };
    assert_eq!(change(&member(5)), (true, member(5)));
    assert!(!change(&member(5)).0);
    let later = MemberRow { incarnation: Incarnation(2), address: "b:1".to_owned(), since: 70, ..member(5) };
    assert_eq!(change(&later), (true, MemberRow { since: 20, ..later.clone() }));
    assert!(!change(&member(5)).0);
}

#[test]
fn a_member_that_joins_once_more_keeps_its_tasks() {
    let mut rows = Rows::founded(1);
    let task = TaskMark { name: "total".to_owned(), version: 2, fingerprint: 3 };
    let carries = MemberRow { tasks: vec![task], ..member(5) };
    rows.write_all(&member_change(&rows.view(), &carries).expect("encodes"));
    let again = MemberRow { incarnation: Incarnation(2), ..member(5) };
    rows.write_all(&joined(&rows.view(), &again).expect("encodes"));
    assert_eq!(rows.view().member(NodeId(5)), Some(&MemberRow { incarnation: Incarnation(2), ..carries }));
    rows.write_all(&member_change(&rows.view(), &again).expect("encodes"));
    assert_eq!(rows.view().member(NodeId(5)), Some(&again));
}

#[test]
fn a_group_is_formed_once() {
    let mut rows = Rows::founded(3);
    let change = formed(&rows.view(), GroupId(3)).expect("a group").expect("not yet");
    rows.write_all(&[change]);
    assert_eq!(formed(&rows.view(), GroupId(3)), Ok(None));
    assert_eq!(formed(&rows.view(), GroupId::META), Ok(None));
    assert_eq!(formed(&rows.view(), GroupId(99)).map_err(|error| error.code), Err(Code::NotReady));
}

#[test]
fn a_map_is_created_once_and_not_changed() {
    let mut rows = Rows::founded(1);
    let spec = |name: &str, schema| MapSpec::new(name, KeyCodec::Utf8, ValueCodec::Json).schema(schema);
    let create = |view: &MetaView, name, schema| new_map(view, &spec(name, schema));
    let view = rows.view();
    let first = create(&view, "orders", 1).expect("new");
    let rival = create(&view, "users", 1).expect("new");
    rows.write_all(&first.changes);
    assert!(rows.write(&rival.changes[0]).is_err(), "one id for two maps");
    assert_eq!(create(&rows.view(), "orders", 1).expect("there"), NewMap { changes: Vec::new(), ..first.clone() });
    assert_eq!(create(&rows.view(), "orders", 2).map_err(|error| error.code), Err(Code::MapExists));
    assert_eq!(create(&rows.view(), "users", 1).expect("new").descriptor.id, MapId(2));
    assert_eq!(rows.view().map_by_id(MapId(1)), Some(&first.descriptor));
    assert_eq!(create(&MetaView::default(), "x", 1).map_err(|error| error.code), Err(Code::NotReady));
}

#[test]
fn a_maps_options_are_part_of_what_it_is() {
    let mut rows = Rows::founded(1);
    let plain = MapSpec::new("cache", KeyCodec::Utf8, ValueCodec::Json);
    let limited = plain.clone().options(MapOptions::default().max_entries(9).eviction(Eviction::Lru));
    let made = new_map(&rows.view(), &limited).expect("new");
    rows.write_all(&made.changes);
    assert_eq!(rows.view().map("cache"), Some(&made.descriptor));
    assert_eq!(made.descriptor.options.max_entries, 9);
    assert_eq!(new_map(&rows.view(), &plain).expect("any options").descriptor, made.descriptor);
    let other = new_map(&rows.view(), &plain.clone().options(MapOptions::default())).expect_err("other options");
    assert_eq!(other.code, Code::MapExists);
    assert!(other.what.contains("max_entries 9, eviction lru") && other.what.contains("no options"), "{other}");
    let senseless =
        MapSpec::new("x", KeyCodec::Utf8, ValueCodec::Json).options(MapOptions::default().eviction(Eviction::Lru));
    assert_eq!(new_map(&rows.view(), &senseless).map_err(|error| error.code), Err(Code::InvalidRequest));
}
