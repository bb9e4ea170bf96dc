//! Which answers prove a leadership, what travels together, and the bytes.

use super::*;
use proptest::prelude::*;
use tokio::sync::Semaphore;

const G: GroupId = GroupId(7);

/// Replica `n` lives on node `n`.
struct Nodes {
    votes: BTreeMap<(GroupId, ReplicaId), Vote>,
    dead: BTreeSet<NodeId>,
    frames: Mutex<Vec<(NodeId, usize)>>,
    gate: Semaphore,
    /// Only these wait at the gate, if any are named.
    slow: BTreeSet<NodeId>,
}

fn vote(term: u64, voted_for: ReplicaId, committed: bool) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for }, committed }
}

fn nodes(votes: &[(ReplicaId, Vote)], dead: &[u64]) -> Arc<Nodes> {
    Arc::new(Nodes {
        votes: votes.iter().map(|(replica, vote)| ((G, *replica), *vote)).collect(),
        dead: dead.iter().map(|node| NodeId(*node)).collect(),
        frames: Mutex::default(),
        gate: Semaphore::new(1000),
        slow: BTreeSet::new(),
    })
}

#[async_trait::async_trait]
impl RaftTransport for Nodes {
    async fn call(&self, to: NodeId, _: Lane, _: GroupId, asked: u8, bytes: Bytes, _: Duration) -> Result<Bytes> {
        assert_eq!(asked, kind::CONFIRM);
        lock(&self.frames).push((to, (bytes.len() - 1) / QUESTION));
        if self.dead.contains(&to) {
            return Err(Error::new(Code::PeerUnreachable, "dead"));
        }
        if self.slow.is_empty() || self.slow.contains(&to) {
            self.gate.acquire().await.expect("open").forget();
        }
        answer_questions(bytes, |group, replica| {
            self.votes.get(&(group, replica)).filter(|_| NodeId(replica) == to).copied()
        })
    }
}

fn standing(configs: &[&[ReplicaId]]) -> Standing {
    let configs: Vec<BTreeSet<ReplicaId>> = configs.iter().map(|voters| voters.iter().copied().collect()).collect();
    let nodes = configs.iter().flatten().map(|replica| (*replica, NodeId(*replica))).collect();
    Standing { term: 5, configs, nodes }
}

/// What replica 1, leader of term 5, hears.
async fn asked(nodes: Arc<Nodes>, configs: &[&[ReplicaId]], own: Option<Vote>) -> Result<u64> {
    Confirmer::new(nodes).prove(G, 1, standing(configs), own).await
}

const MINE: fn() -> Vote = || vote(5, 1, true);

#[tokio::test]
async fn a_majority_of_saved_votes_proves_it_and_less_does_not() {
    let three: &[&[ReplicaId]] = &[&[1, 2, 3]];
    assert_eq!(asked(nodes(&[(2, MINE())], &[3]), three, Some(MINE())).await.ok(), Some(5));
    assert!(asked(nodes(&[], &[2, 3]), three, Some(MINE())).await.is_err(), "alone");
    assert!(asked(nodes(&[(2, MINE())], &[3]), three, None).await.is_err(), "its own vote is not saved");
    assert_eq!(asked(nodes(&[(2, MINE()), (3, MINE())], &[]), three, None).await.ok(), Some(5), "without its own");
    assert_eq!(asked(nodes(&[], &[]), &[&[1]], Some(MINE())).await.ok(), Some(5), "the only voter");
    for other in [vote(6, 3, false), vote(6, 3, true), vote(5, 1, false), vote(5, 2, true), vote(4, 1, true)] {
        let said = asked(nodes(&[(2, other)], &[3]), three, Some(MINE())).await;
        assert!(said.is_err(), "{other:?}");
    }
}

#[tokio::test]
async fn a_joint_membership_needs_both_majorities() {
    let joint: &[&[ReplicaId]] = &[&[1, 2, 3], &[3, 4, 5]];
    let all = [(2, MINE()), (3, MINE()), (4, MINE()), (5, MINE())];
    assert_eq!(asked(nodes(&all, &[2, 4]), joint, Some(MINE())).await.ok(), Some(5));
    assert!(asked(nodes(&all, &[4, 5]), joint, Some(MINE())).await.is_err(), "one of 3, 4, 5");
    assert!(asked(nodes(&all, &[2, 3]), joint, Some(MINE())).await.is_err(), "one of 1, 2, 3");
}

#[tokio::test]
async fn what_is_asked_meanwhile_travels_together_afterwards() {
    let nodes = nodes(&[(2, MINE())], &[]);
    nodes.gate.forget_permits(1000);
    let confirmer = Arc::new(Confirmer::new(nodes.clone()));
    let ask = || {
        let confirmer = confirmer.clone();
        clock::spawn(async move { confirmer.prove(G, 1, standing(&[&[1, 2]]), Some(MINE())).await })
    };
    let first = ask();
    while lock(&nodes.frames).is_empty() {
        tokio::task::yield_now().await;
    }
    let later: Vec<_> = (0..20).map(|_| ask()).collect();
    while lock(&confirmer.pairs).get(&NodeId(2)).map_or(0, |pair| pair.waiting.len()) < 20 {
        tokio::task::yield_now().await;
    }
    nodes.gate.add_permits(2);
    for proof in std::iter::once(first).chain(later) {
        assert_eq!(proof.await.expect("runs").ok(), Some(5));
    }
    assert_eq!(*lock(&nodes.frames), [(NodeId(2), 1), (NodeId(2), 20)], "no question joins a frame under way");
    while !lock(&confirmer.pairs).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_others_have_decided_is_not_asked_of_a_slow_node() {
    let slow = Nodes { slow: [NodeId(3)].into(), ..Arc::into_inner(nodes(&[(2, MINE())], &[])).expect("the only one") };
    slow.gate.forget_permits(1000);
    let nodes = Arc::new(slow);
    let confirmer = Confirmer::new(nodes.clone());
    let three: &[&[ReplicaId]] = &[&[1, 2, 3]];
    for _ in 0..MAX_QUESTIONS + 10 {
        assert_eq!(confirmer.prove(G, 1, standing(three), Some(MINE())).await.ok(), Some(5));
    }
    let waiting = lock(&confirmer.pairs).get(&NodeId(3)).map_or(0, |pair| pair.waiting.len());
    assert!(waiting <= MAX_QUESTIONS, "{waiting} questions wait");
    nodes.gate.add_permits(1000);
    while !lock(&confirmer.pairs).is_empty() {
        tokio::task::yield_now().await;
    }
    let asked: Vec<_> = lock(&nodes.frames).iter().filter(|(node, _)| *node == NodeId(3)).copied().collect();
    assert_eq!(asked, [(NodeId(3), 1)], "the one that was on its way");
}

#[test]
fn golden_bytes() {
    let question = Question { group: GroupId(3), replica: 4, term: 5, leader: 6 };
    let mut golden = vec![1, 3, 0, 0, 0];
    golden.extend([4u64, 5, 6].iter().flat_map(|number| number.to_le_bytes()));
    assert_eq!(encode_questions([question].iter()), golden);
    assert_eq!(decode_questions(golden.clone().into()).expect("decodes"), [question]);
    let saved = vote(5, 6, true);
    assert_eq!(answer_questions(golden.clone().into(), |_, _| Some(saved)).expect("answers"), [1, 1].as_slice());
    assert_eq!(answer_questions(golden.clone().into(), |_, _| None).expect("answers"), [1, 0].as_slice());
    assert_eq!(decode_answers(&[1, 1, 0], 2).expect("decodes"), [true, false]);
    for damaged in [&[][..], &[2, 1], &[1], &[1, 2], &[1, 1, 1]] {
        assert!(decode_answers(damaged, 1).is_err());
    }
    golden.pop();
    assert!(decode_questions(golden.into()).is_err());
}

proptest! {
    #[test]
    fn questions_read_back(numbers in proptest::collection::vec(any::<(u32, u64, u64, u64)>(), 0..50)) {
        let questions: Vec<Question> = numbers
            .iter()
            .map(|(group, replica, term, leader)| Question {
                group: GroupId(*group),
                replica: *replica,
                term: *term,
                leader: *leader,
            })
            .collect();
        prop_assert_eq!(decode_questions(encode_questions(questions.iter())).expect("decodes"), questions);
    }
}
