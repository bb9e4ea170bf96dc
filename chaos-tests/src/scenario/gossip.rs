//! Gossip alone: three chitchats under faults. When all is mended, each must see all.

use crate::checks::Violation;
use crate::dice::Dice;
use crate::machine::Life;
use crate::nemesis::{Kinds, Plan, Profile};
use crate::simulation::Simulation;
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const PORT: u16 = 7401;
const QUIET_FROM: Duration = Duration::from_secs(12);
const AT_MOST: Duration = Duration::from_secs(25);

/// Who sees whom, by names; kept outside the nodes, which come and go.
type Views = Rc<RefCell<[BTreeSet<String>; 3]>>;

/// Runs the scenario.
pub fn gossip(seed: u64) -> Vec<Violation> {
    let mut simulation = Simulation::new(seed, AT_MOST);
    let views = Views::default();
    let addresses = NODES.map(|name| SocketAddr::new(simulation.address(name), PORT));
    for (node, name) in NODES.into_iter().enumerate() {
        let views = views.clone();
        simulation.machine(name, move |life| run_node(life, node, addresses, views.clone()));
    }
    simulation.client("watcher", move |_| watch(views));
    let profile = Profile {
        nodes: NODES.len(),
        calm_until: Duration::from_secs(1),
        quiet_from: QUIET_FROM,
        pause_max: Duration::from_millis(1200),
        fault_max: Duration::from_secs(3),
        kinds: Kinds::plain(),
    };
    let plan = Plan::draw(&mut Dice::new(seed, "nemesis"), &profile);
    match simulation.run(plan) {
        Ok(_) => Vec::new(),
        Err(what) => vec![Violation { check: "all see all in the end", what }],
    }
}

async fn watch(views: Views) {
    let all: BTreeSet<String> = NODES.map(str::to_owned).into();
    keystead::clock::sleep(QUIET_FROM).await;
    while !views.borrow().iter().all(|view| *view == all) {
        keystead::clock::sleep(Duration::from_millis(50)).await;
    }
}

fn config(life: &Life, node: usize, addresses: [SocketAddr; 3]) -> ChitchatConfig {
    let interval = Duration::from_millis(200);
    ChitchatConfig {
        chitchat_id: ChitchatId::new(life.name.clone(), life.number, addresses[node]),
        cluster_id: "grid".to_owned(),
        gossip_interval: interval,
        listen_addr: addresses[node],
        seed_nodes: addresses.iter().map(SocketAddr::to_string).collect(),
        failure_detector_config: FailureDetectorConfig { initial_interval: interval, ..Default::default() },
        marked_for_deletion_grace_period: Duration::from_secs(60),
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V0,
    }
}

async fn run_node(life: Life, node: usize, addresses: [SocketAddr; 3], views: Views) {
    views.borrow_mut()[node].clear();
    let config = config(&life, node, addresses);
    let handle: ChitchatHandle = match spawn_chitchat(config, Vec::new(), &life.transport()).await {
        Ok(handle) => handle,
        Err(error) => return crate::event!(&life.name, "cannot gossip: {error}"),
    };
    let mut live = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
    loop {
        let names: BTreeSet<String> = live.borrow_and_update().keys().map(|id| id.node_id.to_string()).collect();
        crate::event!(&life.name, "sees {names:?}");
        views.borrow_mut()[node] = names;
        if live.changed().await.is_err() {
            return;
        }
    }
}
