//! Three whole peers with one partition, and a director with real clients that decides when the
//! peers' network fails and their power goes.
//!
//! In: a script. Out: what the script found wrong, and peers that gave up without cause. Where
//! [`super::trio`] stops between two steps of a replica, this one has everything that a peer is made
//! of: gossip, founding, gRPC, router, sessions of the real client.

use super::steps::Said;
use crate::checks::{LeaderLog, Violation};
use crate::machine::{Life, Machine};
use crate::nemesis::Plan;
use crate::ports::SimThreads;
use crate::simulation::Simulation;
use keystead::Grid;
use keystead::client::{Client, ClientConfig};
use keystead::clock::{Instant, sleep};
use keystead::config::NodeConfig;
use keystead::membership::{ChitchatMembership, ChitchatOptions};
use keystead::node::{Ended, Ports};
use keystead::raft::LeaderObserver;
use keystead::storage::backend::MemoryBackend;
use keystead::storage::disk::Disk;
use keystead::types::{KeyCodec, ValueCodec};
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The map that the scripts use.
pub(super) const MAP: &str = "m";
const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const PORT: u16 = 7401;
/// From here on everybody runs again.
pub(super) const MENDED_AT: Duration = Duration::from_secs(12);
const AT_MOST: Duration = Duration::from_secs(60);

/// What the director commands.
pub(super) struct Peers {
    pub(super) life: Life,
    pub(super) endpoints: Vec<String>,
    pub(super) machines: Vec<Machine>,
    pub(super) leaders: LeaderLog,
}

impl Peers {
    /// A client that begins at these peers, by number.
    pub(super) async fn connect(&self, at: &[usize]) -> Client {
        let config = ClientConfig {
            deadline: Duration::from_secs(3),
            attempt_timeout: Duration::from_millis(700),
            connect_deadline: Duration::from_secs(2),
            keepalive: None,
            ..ClientConfig::default()
        };
        let endpoints: Vec<String> = at.iter().map(|at| self.endpoints[*at].clone()).collect();
        loop {
            let builder = Client::builder().config(config.clone()).network(Arc::new(self.life.network.clone()));
            match builder.random(self.life.random.clone()).connect(endpoints.clone()).await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The number of the peer that leads the partition; it knows the map by then.
    pub(super) async fn leader(&self, client: &Client) -> Result<usize, String> {
        while client.create_map(MAP, KeyCodec::Utf8, ValueCodec::I64, 0).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(8) {
            if let Ok(partitions) = client.partitions().await
                && let Some(partition) = partitions.first()
                && partition.replicas.len() == NAMES.len()
                && let Some(leader) = &partition.leader
            {
                let at = NAMES.iter().position(|name| name == leader);
                return at.ok_or_else(|| format!("{leader} leads, which is none of the peers"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err("the partition has no leader".to_owned())
    }

    /// Cuts a peer off from the other peers, or lets it back; clients reach it all the time.
    pub(super) fn cut(&self, at: usize, cut: bool) {
        for other in (0..NAMES.len()).filter(|other| *other != at) {
            match cut {
                true => turmoil::partition(NAMES[at], NAMES[other]),
                false => turmoil::repair(NAMES[at], NAMES[other]),
            }
        }
        crate::event!("director", "{} is cut off: {cut}", NAMES[at]);
    }
}

/// Runs a script on three peers.
pub(super) fn direct<F, Fut>(seed: u64, script: F) -> Vec<Violation>
where
    F: FnOnce(Peers) -> Fut + 'static,
    Fut: Future<Output = Said> + 'static,
{
    let said: Rc<RefCell<Vec<String>>> = Rc::default();
    let finished: Rc<RefCell<bool>> = Rc::default();
    let leaders = LeaderLog::default();
    let mut simulation = Simulation::new(seed, AT_MOST);
    let endpoints: Vec<String> = NAMES.iter().map(|name| format!("{}:{PORT}", simulation.address(name))).collect();
    let mut machines = Vec::new();
    for (at, name) in NAMES.iter().enumerate() {
        let (endpoints, leaders, said) = (endpoints.clone(), leaders.clone(), said.clone());
        let run = move |life| peer(life, at, endpoints.clone(), leaders.clone(), said.clone());
        machines.push(simulation.machine(name, run));
    }
    let (tell, done, log) = (said.clone(), finished.clone(), leaders.clone());
    simulation.client("director", move |life| async move {
        if let Err(what) = script(Peers { life, endpoints, machines, leaders: log }).await {
            tell.borrow_mut().push(what);
        }
        *done.borrow_mut() = true;
    });
    let ended = simulation.run(Plan::calm(MENDED_AT));
    let mut wrong = std::mem::take(&mut *said.borrow_mut());
    if !*finished.borrow() {
        wrong.push(ended.err().unwrap_or_else(|| "the director said nothing".to_owned()));
    }
    let wrong = wrong.into_iter().map(|what| Violation { check: "finding", what });
    wrong.chain(leaders.violations()).collect()
}

async fn peer(life: Life, at: usize, seeds: Vec<String>, leaders: LeaderLog, said: Rc<RefCell<Vec<String>>>) {
    let config = NodeConfig {
        name: life.name.clone(),
        listen: seeds[at].clone(),
        seeds,
        data: "/data".into(),
        partitions: 1,
        insecure: true,
        ..NodeConfig::default()
    };
    let node = life.name.clone();
    let observer = LeaderObserver(Arc::new(move |group, term, _| leaders.leader_observed(group.0, term, &node)));
    let disk: Arc<dyn Disk> = Arc::new(life.disk.clone());
    let on = disk.clone();
    let ports = Ports {
        clock: life.clock.clone(),
        random: life.random.clone(),
        threads: Arc::new(SimThreads),
        disk,
        network: Arc::new(life.network.clone()),
        membership: Arc::new(ChitchatMembership::new(Arc::new(life.transport()), ChitchatOptions::default())),
        backend: Arc::new(move |dir| Ok(Arc::new(MemoryBackend::open(on.clone(), dir)?))),
    };
    let adjust = move |settings: &mut keystead::node::NodeSettings| {
        settings.group.on_leader = Some(observer);
        settings.peer.grpc.keepalive = None;
        settings.log.segment_bytes = 128 << 10;
        settings.log.slack_bytes = 768 << 10;
    };
    let failed = match Grid::builder().config(config).ports(ports).adjust(adjust).start().await {
        Ok(grid) => match grid.ended().await {
            Ended::Stopped => "it stopped, and nobody asked".to_owned(),
            Ended::Failed(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    if !life.lost_power() {
        said.borrow_mut().push(format!("{} gave up: {failed}", life.name));
    }
}
