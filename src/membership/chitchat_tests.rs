//! Gossips on loopback, each on a port of its own choice.

use super::*;
use crate::clock::timeout;
use crate::types::GridId;

fn peer(id: u64, incarnation: u64) -> PeerGossip {
    PeerGossip {
        node: NodeId(id),
        incarnation: Incarnation(incarnation),
        name: format!("n{id}"),
        address: format!("127.0.0.1:{id}"),
        zone: (id == 2).then(|| "z".to_owned()),
        grid: None,
        placement_version: 0,
    }
}

fn quick() -> ChitchatMembership {
    let options = ChitchatOptions { interval: Duration::from_millis(50), ..ChitchatOptions::default() };
    ChitchatMembership::new(Arc::new(UdpTransport), options)
}

async fn start(me: PeerGossip, seeds: &[String]) -> Arc<ChitchatGossip> {
    let address = "127.0.0.1:0".to_owned();
    let config = GossipConfig { me, listen: address.clone(), advertise: address, seeds: seeds.to_vec() };
    quick().launch(config).await.expect("gossips")
}

async fn three() -> [Arc<ChitchatGossip>; 3] {
    let first = start(peer(1, 1), &[]).await;
    // By name, as seeds often are.
    let seeds = [format!("localhost:{}", first.advertised().port())];
    [first, start(peer(2, 1), &seeds).await, start(peer(3, 1), &seeds).await]
}

async fn until(gossip: &ChitchatGossip, holds: impl Fn(&LivePeers) -> bool) -> Arc<LivePeers> {
    let mut live = gossip.live();
    let found = timeout(Duration::from_secs(20), live.wait_for(|peers| holds(peers))).await;
    found.expect("in time").expect("gossip runs").clone()
}

#[tokio::test]
async fn peers_see_each_other_and_notice_one_that_falls_silent() {
    let [first, second, third] = three().await;
    let all: LivePeers = [1, 2, 3].map(|id| (NodeId(id), peer(id, 1))).into();
    for gossip in [&first, &second, &third] {
        until(gossip, |peers| *peers == all).await;
    }
    drop(third);
    for gossip in [&first, &second] {
        let left = until(gossip, |peers| peers.len() == 2).await;
        assert!(!left.contains_key(&NodeId(3)));
    }
}

#[tokio::test]
async fn peers_whose_seeds_are_gone_find_each_other_when_one_is_told_where_to_look() {
    let (first, second) = (start(peer(1, 1), &[]).await, start(peer(2, 1), &[]).await);
    let both: LivePeers = [1, 2].map(|id| (NodeId(id), peer(id, 1))).into();
    first.seek("no such address").await;
    first.seek(&second.advertised().to_string()).await;
    for gossip in [&first, &second] {
        until(gossip, |peers| *peers == both).await;
    }
}

#[tokio::test]
async fn announcements_spread_and_are_seen_at_home_at_once() {
    let [first, second, third] = three().await;
    for gossip in [&first, &second, &third] {
        until(gossip, |peers| peers.len() == 3).await;
    }
    second.announce(Some(GridId(7)), 5).await;
    for gossip in [&second, &first, &third] {
        let told = |peers: &LivePeers| peers.get(&NodeId(2)).map(|peer| (peer.grid, peer.placement_version));
        until(gossip, |peers| told(peers) == Some((Some(GridId(7)), 5))).await;
    }
    second.announce(None, 6).await;
    let told = |peers: &LivePeers| peers.get(&NodeId(2)).map(|peer| (peer.grid, peer.placement_version));
    until(&third, |peers| told(peers) == Some((None, 6))).await;
}

#[tokio::test]
async fn who_leaves_is_gone_before_its_silence_tells() {
    let options = ChitchatOptions { phi: 1e9, interval: Duration::from_millis(50), ..ChitchatOptions::default() };
    let patient = ChitchatMembership::new(Arc::new(UdpTransport), options);
    let address = "127.0.0.1:0".to_owned();
    let config = |me, seeds| GossipConfig { me, listen: address.clone(), advertise: address.clone(), seeds };
    let first = patient.launch(config(peer(1, 1), Vec::new())).await.expect("gossips");
    let seeds = vec![first.advertised().to_string()];
    let second = patient.launch(config(peer(2, 1), seeds)).await.expect("gossips");
    until(&first, |peers| peers.len() == 2).await;
    second.leave().await;
    until(&first, |peers| peers.len() == 1).await;
}

#[tokio::test]
async fn a_peer_that_comes_back_is_seen_in_its_new_life() {
    let first = start(peer(1, 1), &[]).await;
    let seeds = [first.advertised().to_string()];
    let old = start(peer(2, 4), &seeds).await;
    until(&first, |peers| peers.contains_key(&NodeId(2))).await;
    // Both lives are alive for gossip, for a while: the higher counts.
    let new = start(peer(2, 5), &seeds).await;
    until(&first, |peers| peers.get(&NodeId(2)).map(|peer| peer.incarnation) == Some(Incarnation(5))).await;
    assert_eq!(new.live().borrow()[&NodeId(2)].incarnation, Incarnation(5));
    drop(old);
}

#[tokio::test]
async fn a_grid_of_one_is_alive_from_the_start() {
    let only = start(peer(1, 3), &[]).await;
    assert_eq!(**only.live().borrow(), LivePeers::from([(NodeId(1), peer(1, 3))]));
    assert_ne!(only.advertised().port(), 0);
}

#[tokio::test]
async fn an_address_in_use_is_refused() {
    let only = start(peer(1, 1), &[]).await;
    let taken = only.advertised().to_string();
    let config = GossipConfig { me: peer(2, 1), listen: taken.clone(), advertise: taken.clone(), seeds: Vec::new() };
    let error = quick().start(config).await.err().expect("refused");
    assert!(error.code == Code::AddressInUse && error.place.contains(&taken), "{error}");
}

#[test]
fn what_is_gossiped_is_pinned() {
    let mut me = peer(2, 1);
    me.grid = Some(GridId(7));
    me.placement_version = 5;
    let entries = entries_of(&me);
    let entries: Vec<(&str, &str)> = entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let grid = "00000000000000000000000000000007";
    let pinned = [("name", "n2"), ("address", "127.0.0.1:2"), ("placement", "5"), ("zone", "z"), ("grid", grid)];
    assert_eq!(entries, pinned);
}

#[tokio::test]
async fn a_shut_gate_silences_gossip_until_it_opens() {
    let first = start(peer(1, 1), &[]).await;
    let seeds = [first.advertised().to_string()];
    let gate = Gate::new();
    let second = gate.clone().run(start(peer(2, 1), &seeds)).await;
    until(&first, |peers| peers.len() == 2).await;
    gate.shut(false);
    until(&first, |peers| peers.len() == 1).await;
    gate.open();
    until(&first, |peers| peers.len() == 2).await;
    drop(second);
}
