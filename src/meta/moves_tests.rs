//! The movement planner against a small stand-in for the meta group's map: nodes come, go and die,
//! moves end in any order, and the placement becomes the target.

use super::super::members::{intend, meta_voters, removed};
use super::super::testing::{Rows, member};
use super::super::{formed, member_change};
use super::*;
use crate::error::Code;
use proptest::prelude::*;

const LIMITS: MoveLimits = MoveLimits { per_grid: 8, per_node: 4 };

/// A grid whose partitions are formed.
fn grid(founders: u64, partitions: u32, replicas: usize) -> Rows {
    let mut rows = Rows::founded_with(founders, partitions, replicas);
    for partition in 0..partitions {
        let change = formed(&rows.view(), PartitionId(partition).group()).expect("a group").expect("not yet");
        rows.write_all(&[change]);
    }
    rows
}

fn join(rows: &mut Rows, id: u64, zone: Option<&str>) {
    let row = MemberRow { zone: zone.map(str::to_owned), name: format!("m{id}"), ..member(id) };
    let change = member_change(&rows.view(), &row).expect("encodes");
    rows.write_all(&change);
}

fn all_alive(rows: &Rows) -> Standing {
    Standing { alive: rows.view().members.keys().copied().collect(), ..Standing::default() }
}

/// Checks what must hold at every moment, of every row.
fn check(view: &MetaView, standing: &Standing, limits: &MoveLimits) {
    let moving: Vec<&PlacementRow> = view.placement.values().map(|p| &p.row).filter(|row| row.is_moving()).collect();
    assert!(moving.len() <= limits.per_grid, "{} moves at once", moving.len());
    for row in view.placement.values().map(|placed| &placed.row) {
        let nodes: Vec<NodeId> = row.all().map(|(_, node)| node).collect();
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len(), "two replicas on one node: {row:?}");
        let living = |replicas: &[(ReplicaId, NodeId)]| {
            let stays = |node: NodeId| view.member(node).is_some_and(|row| row.intent != MemberIntent::Removing);
            replicas.iter().filter(|(_, node)| standing.alive.contains(node) && stays(*node)).count()
        };
        assert!(living(&row.target()) >= living(&row.replicas), "fewer live voters: {row:?}");
        assert!(!row.target().is_empty());
    }
}

/// Plans and ends moves until nothing is left to do; gives how many moves began.
fn settle(rows: &mut Rows, standing: &Standing, limits: &MoveLimits) -> usize {
    let mut begun = 0;
    for round in 0.. {
        assert!(round < 1000, "the plan never comes to an end");
        let plan = plan_moves(&rows.view(), standing, limits).expect("a plan");
        begun += plan.begun.len();
        rows.write_all(&plan.changes);
        check(&rows.view(), standing, limits);
        let view = rows.view();
        let moving: Vec<GroupId> = view.placement.values().filter(|p| p.row.is_moving()).map(|p| p.row.group).collect();
        if moving.is_empty() && plan.changes.is_empty() {
            return begun;
        }
        // Only every other one ends before the next plan.
        for group in moving.iter().step_by(2) {
            end(rows, *group);
        }
    }
    begun
}

fn end(rows: &mut Rows, group: GroupId) {
    let view = rows.view();
    let target = view.placement_of(group).expect("a row").target().into_iter().map(|(id, _)| id).collect();
    let change = moved(&view, group, &target).expect("encodes").expect("moves");
    rows.write_all(&[change]);
}

fn counts(view: &MetaView, of: impl Fn(&PlacementRow) -> Vec<NodeId>) -> BTreeMap<NodeId, usize> {
    let mut counts: BTreeMap<NodeId, usize> = view.members.keys().map(|node| (*node, 0)).collect();
    for row in view.placement.values().map(|p| &p.row).filter(|row| row.group != GroupId::META) {
        of(row).into_iter().for_each(|node| *counts.entry(node).or_default() += 1);
    }
    counts
}

fn held(view: &MetaView) -> BTreeMap<NodeId, usize> {
    counts(view, |row| row.replicas.iter().map(|(_, node)| *node).collect())
}

fn led(view: &MetaView) -> BTreeMap<NodeId, usize> {
    counts(view, |row| row.replicas.first().map(|(_, node)| *node).into_iter().collect())
}

#[test]
fn nothing_moves_where_nothing_changed() {
    let rows = grid(3, 16, 3);
    assert_eq!(plan_moves(&rows.view(), &all_alive(&rows), &LIMITS), Ok(MovePlan::default()));
}

#[test]
fn a_joiner_gets_its_share_of_replicas_and_leaderships_and_no_more_moves() {
    let mut rows = grid(3, 64, 3);
    join(&mut rows, 44, None);
    let standing = all_alive(&rows);
    let moves = settle(&mut rows, &standing, &LIMITS);
    let view = rows.view();
    assert!((43..=53).contains(&held(&view)[&NodeId(44)]), "{:?}", held(&view));
    assert!((14..=18).contains(&led(&view)[&NodeId(44)]), "{:?}", led(&view));
    assert!(moves <= 53, "{moves} moves");
}

#[test]
fn a_grid_of_one_grows_to_two_and_to_three_copies() {
    let mut rows = grid(1, 8, 3);
    for (id, copies) in [(22, 2), (33, 3), (44, 3)] {
        join(&mut rows, id, None);
        let standing = all_alive(&rows);
        settle(&mut rows, &standing, &LIMITS);
        assert!(rows.view().table().iter().all(|row| row.len() == copies), "{:?}", rows.view().table());
    }
}

#[test]
fn a_node_that_is_gone_is_replaced_where_there_is_another_and_stays_where_there_is_none() {
    let mut rows = grid(3, 16, 3);
    let mut standing = all_alive(&rows);
    standing.alive.remove(&NodeId(22));
    assert_eq!(settle(&mut rows, &standing, &LIMITS), 0, "it may come back");
    standing.gone.insert(NodeId(22));
    assert_eq!(settle(&mut rows, &standing, &LIMITS), 0, "there is no other");
    join(&mut rows, 44, None);
    standing.alive.insert(NodeId(44));
    assert_eq!(settle(&mut rows, &standing, &LIMITS), 16);
    assert_eq!(held(&rows.view())[&NodeId(22)], 0);
}

#[test]
fn what_a_dead_node_held_moves_first() {
    let mut rows = grid(3, 64, 3);
    join(&mut rows, 44, None);
    let mut standing = all_alive(&rows);
    standing.alive.remove(&NodeId(22));
    let plan = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
    assert_eq!(plan.begun.len(), LIMITS.per_node);
    assert!(plan.begun.iter().all(|begun| begun.leaving[0].1 == NodeId(22)), "{:?}", plan.begun);
    assert!(plan.waiting > 0);
}

#[test]
fn nobody_moves_to_a_node_that_is_away() {
    let mut rows = grid(3, 16, 3);
    join(&mut rows, 44, None);
    let mut standing = all_alive(&rows);
    standing.alive.remove(&NodeId(44));
    assert_eq!(settle(&mut rows, &standing, &LIMITS), 0);
}

#[test]
fn a_move_whose_newcomer_is_lost_is_given_up_and_planned_anew() {
    let mut rows = grid(3, 16, 3);
    join(&mut rows, 44, None);
    let mut standing = all_alive(&rows);
    let plan = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
    rows.write_all(&plan.changes);
    standing.alive.remove(&NodeId(44));
    standing.stuck = plan.begun.iter().map(|begun| begun.group).collect();
    let given_up = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
    assert_eq!(given_up.abandoned.len(), plan.begun.len());
    rows.write_all(&given_up.changes);
    assert!(!rows.view().placement.values().any(|placed| placed.row.is_moving()));
    let newcomer = plan.begun[0].coming[0].0;
    assert!(rows.view().is_given_up(plan.begun[0].group, newcomer));
    assert!(!rows.view().is_given_up(plan.begun[0].group, 1_000_000), "an id that this view has not heard of");
    standing = all_alive(&rows);
    assert!(settle(&mut rows, &standing, &LIMITS) > 0);
}

#[test]
fn a_newcomer_that_may_be_a_voter_already_is_not_given_up() {
    let mut rows = grid(3, 16, 3);
    join(&mut rows, 44, None);
    let mut standing = all_alive(&rows);
    let plan = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
    rows.write_all(&plan.changes);
    let group = plan.begun[0].group;
    // Two views of the same row: one of the writes comes first, and the other is refused.
    standing.alive.remove(&NodeId(44));
    standing.stuck = BTreeSet::from([group]);
    let giving_up = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan").changes;
    let mark = switching(&rows.view(), group, true).expect("encodes").expect("it moves");
    rows.write_all(std::slice::from_ref(&mark));
    assert!(giving_up.iter().any(|change| rows.write(change).is_err()));

    assert_eq!(switching(&rows.view(), group, true), Ok(None), "it is written already");
    // A leader that is one no more wants to take its mark back; the next one has marked the row once more.
    let late = switching(&rows.view(), group, false).expect("encodes").expect("it is marked");
    let again = switching_still(&rows.view(), group).expect("encodes").expect("it is marked");
    rows.write_all(&[again]);
    assert!(rows.write(&late).is_err() && rows.view().placement_of(group).expect("a row").switching);
    assert_eq!(plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan").abandoned, []);
    standing.gone = BTreeSet::from([NodeId(44)]);
    let others = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan").abandoned;
    assert!(!others.is_empty() && !others.contains(&group), "its node gone or not: {others:?}");
    assert!(!rows.view().is_given_up(group, plan.begun[0].coming[0].0));

    let unmark = switching(&rows.view(), group, false).expect("encodes").expect("it is marked");
    rows.write_all(&[unmark]);
    let given_up = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
    assert!(given_up.abandoned.contains(&group));
    rows.write_all(&given_up.changes);
    assert_eq!(switching(&rows.view(), group, true), Ok(None), "nothing moves");
    assert_eq!(switching_still(&rows.view(), group), Ok(None), "nothing is marked");
    assert!(rows.write(&mark).is_err(), "a leader that has not heard of it changes nothing");
}

#[test]
fn the_mark_goes_with_the_move() {
    let mut rows = grid(3, 4, 3);
    join(&mut rows, 44, None);
    let standing = all_alive(&rows);
    let plan = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
    rows.write_all(&plan.changes);
    let group = plan.begun[0].group;
    rows.write_all(&[switching(&rows.view(), group, true).expect("encodes").expect("it moves")]);
    end(&mut rows, group);
    assert!(!rows.view().placement_of(group).expect("a row").switching);
}

#[test]
fn a_removed_member_holds_nothing_and_leaves_a_note() {
    let mut rows = grid(4, 16, 3);
    let standing = all_alive(&rows);
    let before = rows.view();
    let (node, changes) = intend(&rows.view(), "n4", MemberIntent::Removing).expect("a member");
    rows.write_all(&changes);
    let voters = rows.view().replicas(GroupId::META).iter().map(|(_, node)| *node).collect();
    assert_eq!(removed(&rows.view(), &voters), Ok(Vec::new()), "it holds replicas");
    settle(&mut rows, &standing, &LIMITS);
    let mut voters: BTreeSet<NodeId> = voters;
    assert_eq!(removed(&rows.view(), &voters), Ok(Vec::new()), "it votes");
    let mut changed = rows.view().placement_of(GroupId::META).expect("a row").clone();
    changed.replicas.retain(|(_, at)| *at != node);
    let revision = rows.view().placement[&GroupId::META].revision;
    rows.write_all(&[RowChange::of(&MetaKey::Placement(GroupId::META), Some(revision), &changed).expect("encodes")]);
    voters.remove(&node);
    let changes = removed(&rows.view(), &voters).expect("a plan");
    rows.write_all(&changes);
    let view = rows.view();
    assert!(!view.members.contains_key(&node) && view.removed.contains_key(&node));
    assert!(view.held_by(node).next().is_none());
    assert_eq!(member_change(&view, &member(node.0)).map_err(|error| error.code), Err(Code::MemberRemoved));

    // A copy of the facts that knows neither that it came nor that it went cannot bring it back.
    let mut old = before;
    old.members.remove(&node);
    let back = member_change(&old, &member(node.0)).expect("encodes");
    assert!(back.iter().any(|change| rows.clone().write(change).is_err()), "{back:?}");

    // Whoever missed the answer asks again, by name or id; nobody else is meant by it.
    for who in ["n4", &node.to_string()] {
        assert_eq!(intend(&view, who, MemberIntent::Removing), Ok((node, Vec::new())), "{who}");
        let kept = intend(&view, who, MemberIntent::Draining).map_err(|error| error.code);
        assert_eq!(kept, Err(Code::NoSuchMember), "{who}");
    }
    assert_eq!(intend(&view, "n9", MemberIntent::Removing).map_err(|error| error.code), Err(Code::NoSuchMember));
    let later = MemberRow { name: "n4".to_owned(), ..member(99) };
    rows.write_all(&member_change(&rows.view(), &later).expect("encodes"));
    let (meant, changes) = intend(&rows.view(), "n4", MemberIntent::Removing).expect("a member");
    assert_eq!((meant, changes.len()), (NodeId(99), 1), "the member of the name, not the one before it");
}

#[test]
fn three_copies_become_two_when_a_third_of_the_grid_is_removed_and_drained_ones_wait() {
    let mut rows = grid(3, 8, 3);
    let standing = all_alive(&rows);
    let (_, changes) = intend(&rows.view(), "n2", MemberIntent::Draining).expect("a member");
    rows.write_all(&changes);
    settle(&mut rows, &standing, &LIMITS);
    assert!(rows.view().table().iter().all(|row| row.len() == 3), "a drain takes no copy without another");
    assert_eq!(led(&rows.view())[&NodeId(22)], 0);
    let (_, changes) = intend(&rows.view(), "n2", MemberIntent::Removing).expect("a member");
    rows.write_all(&changes);
    settle(&mut rows, &standing, &LIMITS);
    assert!(rows.view().table().iter().all(|row| row.len() == 2));
}

#[test]
fn a_removal_that_was_to_leave_a_copy_on_a_peer_that_is_lost_is_planned_anew() {
    let mut rows = grid(3, 8, 3);
    let mut standing = all_alive(&rows);
    let removing = |rows: &mut Rows, name| {
        let (node, changes) = intend(&rows.view(), name, MemberIntent::Removing).expect("a member");
        rows.write_all(&changes);
        node
    };
    removing(&mut rows, "n2");
    rows.write_all(&plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan").changes);
    let row = |rows: &Rows, group| rows.view().placement_of(group).expect("a row").clone();
    let moving: Vec<GroupId> = rows
        .view()
        .placement
        .values()
        .map(|placed| &placed.row)
        .filter(|row| row.is_moving())
        .map(|row| row.group)
        .collect();
    let (group, marked) = (moving[0], moving[1]);
    assert_eq!(row(&rows, group).target().len(), 2);

    // As long as there is nobody else, the copy that is away is waited for.
    standing.alive.remove(&NodeId(11));
    standing.gone.insert(NodeId(11));
    assert_eq!(plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan").abandoned, []);

    join(&mut rows, 44, None);
    standing.alive.insert(NodeId(44));
    rows.write_all(&[switching(&rows.view(), marked, true).expect("encodes").expect("it moves")]);
    let plan = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
    assert!(plan.abandoned.contains(&group) && !plan.abandoned.contains(&marked), "{:?}", plan.abandoned);
    rows.write_all(&plan.changes);
    end(&mut rows, marked);
    settle(&mut rows, &standing, &LIMITS);
    let nodes = |rows: &Rows| -> BTreeSet<BTreeSet<NodeId>> {
        let table = rows.view().table();
        table.iter().map(|row| row.iter().copied().collect()).collect()
    };
    // The copy that is away may come back, and is kept where another did not take its place.
    let (two, three) = (BTreeSet::from([NodeId(33), NodeId(44)]), BTreeSet::from([11, 33, 44].map(NodeId)));
    assert_eq!(nodes(&rows), BTreeSet::from([two.clone(), three]));
    removing(&mut rows, "n1");
    settle(&mut rows, &standing, &LIMITS);
    assert_eq!(nodes(&rows), BTreeSet::from([two]));
}

#[test]
fn a_living_peer_that_is_removed_keeps_its_copies_while_one_that_may_take_them_is_away_for_a_moment() {
    let mut rows = grid(3, 8, 3);
    join(&mut rows, 44, None);
    let mut standing = all_alive(&rows);
    let newcomer = NodeId(44);
    standing.alive.remove(&newcomer);
    let (removed, changes) = intend(&rows.view(), "n2", MemberIntent::Removing).expect("a member");
    rows.write_all(&changes);
    assert_eq!(plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan").begun, [], "all three copies stay");
    assert_eq!(meta_voters(&rows.view(), &standing, &BTreeSet::from([1, 2, 3])), Ok(None), "so do the voters");

    let mut back = standing.clone();
    back.alive.insert(newcomer);
    let plan = plan_moves(&rows.view(), &back, &LIMITS).expect("a plan");
    assert!(!plan.begun.is_empty() && plan.begun.iter().all(|begun| begun.coming.len() == 1), "{plan:?}");
    for lost in [&removed, &newcomer] {
        // A dead peer's copy is none, and who is away for long is not waited for.
        let mut standing = standing.clone();
        standing.alive.remove(lost);
        standing.gone.extend((lost == &newcomer).then_some(newcomer));
        let plan = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
        assert!(!plan.begun.is_empty() && plan.begun.iter().all(|begun| begun.coming.is_empty()), "{plan:?}");
    }
}

#[test]
fn only_peers_that_carry_the_tasks_are_to_lead() {
    use super::super::rows::TaskMark;
    let mut rows = grid(3, 16, 3);
    let task = TaskMark { name: "t".to_owned(), version: 1, fingerprint: 1 };
    let carries = |rows: &mut Rows, id: u64| {
        let row = rows.view().member(NodeId(id)).expect("a member").clone();
        let row = MemberRow { tasks: vec![task.clone()], incarnation: crate::types::Incarnation(2), ..row };
        let change = member_change(&rows.view(), &row).expect("encodes");
        rows.write_all(&change);
    };
    carries(&mut rows, 11);
    carries(&mut rows, 22);
    let standing = all_alive(&rows);
    assert_eq!(settle(&mut rows, &standing, &LIMITS), 0, "no data moves");
    let led = led(&rows.view());
    assert_eq!((led[&NodeId(11)], led[&NodeId(22)], led[&NodeId(33)]), (8, 8, 0));
}

#[test]
fn what_only_a_dead_peer_carried_keeps_nobody_from_leading() {
    use super::super::rows::TaskMark;
    let mut rows = grid(4, 16, 3);
    let mark = |name: &str| TaskMark { name: name.to_owned(), version: 1, fingerprint: 1 };
    for (id, tasks) in [(11, vec![mark("a"), mark("b")]), (22, vec![mark("a")]), (33, vec![mark("a")])] {
        let row = rows.view().member(NodeId(id)).expect("a member").clone();
        let row = MemberRow { tasks, incarnation: crate::types::Incarnation(2), ..row };
        let change = member_change(&rows.view(), &row).expect("encodes");
        rows.write_all(&change);
    }
    let view = rows.view();
    let may_lead = |id, dead: Option<u64>| {
        let member = view.member(NodeId(id)).expect("a member");
        view.may_lead(member, |node| dead.is_none_or(|dead| node != NodeId(dead)))
    };
    assert_eq!((may_lead(11, None), may_lead(22, None), may_lead(44, None)), (true, false, false));
    assert_eq!((may_lead(22, Some(11)), may_lead(44, Some(11))), (true, false));
    // Given up for good, its partitions are led by those that carry the rest.
    let mut standing = all_alive(&rows);
    standing.alive.remove(&NodeId(11));
    standing.gone.insert(NodeId(11));
    settle(&mut rows, &standing, &LIMITS);
    let led = led(&rows.view());
    assert_eq!((led[&NodeId(22)], led[&NodeId(33)]), (8, 8), "{led:?}");
}

#[derive(Clone, Debug)]
enum Event {
    Join(u8),
    Die(usize),
    Return(usize),
    Gone(usize),
    Remove(usize),
    Drain(usize),
    End(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        (0u8..4).prop_map(Event::Join),
        (0usize..8).prop_map(Event::Die),
        (0usize..8).prop_map(Event::Return),
        (0usize..8).prop_map(Event::Gone),
        (0usize..8).prop_map(Event::Remove),
        (0usize..8).prop_map(Event::Drain),
        (0usize..32).prop_map(Event::End),
        (0usize..32).prop_map(Event::End),
    ];
    prop::collection::vec(one, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happens on the way, in the end every partition has its copies, on living nodes
    /// that stay, each zone at most its part, and nothing moves any more.
    #[test]
    fn the_placement_becomes_the_target_whatever_happens_on_the_way(founders in 1u64..=3, events in events()) {
        let mut rows = grid(founders, 12, 3);
        let mut standing = all_alive(&rows);
        for (at, event) in events.into_iter().enumerate() {
            let members: Vec<NodeId> = rows.view().members.keys().copied().collect();
            let pick = |index: usize| members[index % members.len()];
            match event {
                Event::Join(zone) => {
                    let id = 1000 + at as u64;
                    join(&mut rows, id, (zone > 0).then_some(["", "a", "b", "c"][zone as usize]));
                    standing.alive.insert(NodeId(id));
                }
                Event::Die(index) => drop(standing.alive.remove(&pick(index))),
                Event::Return(index) => {
                    standing.gone.remove(&pick(index));
                    standing.alive.insert(pick(index));
                }
                Event::Gone(index) => {
                    standing.alive.remove(&pick(index));
                    standing.gone.insert(pick(index));
                }
                Event::Remove(index) | Event::Drain(index) => {
                    let intent =
                        if matches!(event, Event::Remove(_)) { MemberIntent::Removing } else { MemberIntent::Draining };
                    if let Ok((_, changes)) = intend(&rows.view(), &pick(index).to_string(), intent) {
                        rows.write_all(&changes);
                    }
                }
                Event::End(index) => {
                    let view = rows.view();
                    let moving: Vec<_> = view.placement.values().filter(|p| p.row.is_moving()).collect();
                    if !moving.is_empty() {
                        end(&mut rows, moving[index % moving.len()].row.group);
                    }
                }
            }
            standing.stuck = rows.view().placement.values().filter(|placed| {
                placed.row.learners.iter().any(|(_, node)| !standing.alive.contains(node))
            }).map(|placed| placed.row.group).collect();
            let plan = plan_moves(&rows.view(), &standing, &LIMITS).expect("a plan");
            rows.write_all(&plan.changes);
        }
        // Peace: whoever is away is back.
        standing = all_alive(&rows);
        settle(&mut rows, &standing, &LIMITS);
        let view = rows.view();
        let active: BTreeSet<NodeId> = view.members.values().filter(|m| m.row.intent == MemberIntent::Active).map(|m| m.row.node).collect();
        let settled = plan_moves(&view, &standing, &LIMITS).expect("a plan");
        prop_assert_eq!(settled, MovePlan::default());
        for row in view.table() {
            prop_assert!(row.len() >= 3.min(active.len()));
            let on_active = row.iter().filter(|node| active.contains(node)).count();
            prop_assert_eq!(on_active, 3.min(active.len()));
            prop_assert!(row.iter().all(|node| view.member(*node).is_some_and(|m| m.intent != MemberIntent::Removing)));
        }
    }
}
