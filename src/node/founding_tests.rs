//! Who says that a node does not belong to its grid, and when that counts.

use super::*;
use crate::clock::{SystemClock, SystemRandom, SystemThreads};
use crate::meta::{MetaView, founding_rows};
use crate::net::memory::MemoryNetwork;
use crate::net::peer::{IncomingFrame, PeerConfig, PeerHandler, PeerIdentity};
use crate::net::{Network, grpc};
use crate::storage::disk::StdDisk;
use crate::types::Incarnation;
use tonic::service::Routes;

/// Tells everybody of the own grid that he was removed.
struct Removed;

#[async_trait::async_trait]
impl PeerHandler for Removed {
    async fn handle(&self, _: &PeerIdentity, _: IncomingFrame) -> Result<Bytes> {
        Err(Error::new(Code::MemberRemoved, "removed"))
    }
}

fn record() -> FoundingRecord {
    let founder = |id: u64| Founder {
        node: NodeId(id),
        name: format!("n{id}"),
        address: format!("h{id}:7000"),
        zone: None,
        weight: 1,
    };
    let founders: Vec<Founder> = (1..=3).map(founder).collect();
    let founder_list = founders.iter().map(|founder| founder.address.clone()).collect();
    FoundingRecord { grid: GridId(7), founders, founder_list, partitions: 1, replicas: 3, created_ms: 9 }
}

/// A peer that answers at an address.
async fn serve(network: &Arc<dyn Network>, book: &Arc<Directory>, address: &str, node: u64, grid: u128) {
    let me = PeerIdentity {
        grid: Some(GridId(grid)),
        node: NodeId(node),
        incarnation: Incarnation(1),
        name: "other".into(),
    };
    let me = Arc::new(move || me.clone());
    let transport = PeerTransport::new(me, network.clone(), book.clone(), PeerConfig::default());
    let listener = network.listen(address).await.expect("listens");
    let routes = Routes::new(transport.service(Arc::new(Removed)));
    clock::spawn(grpc::serve(listener, routes, grpc::GrpcConfig::default(), std::future::pending()));
}

/// Node 1 of grid 7, whose facts name three members.
fn founding(network: &Arc<dyn Network>, seeds: &[&str]) -> Founding {
    let identity = Identity {
        node: NodeId(1),
        incarnation: Incarnation(1),
        record: Some(record()),
        founded: true,
        meta_replica: None,
        log_created: true,
    };
    let directory = Directory::new("n1", identity);
    let rows = founding_rows(&record()).expect("rows");
    let rows = rows.iter().map(|(key, value)| (key.as_str(), 1, &value[..]));
    directory.set_view(MetaView::build(rows).expect("readable"));
    let greeting = directory.clone();
    let me = Arc::new(move || greeting.greeting());
    let transport = PeerTransport::new(me, network.clone(), directory.clone(), PeerConfig::default());
    Founding {
        settings: FoundingSettings {
            name: "n1".into(),
            address: "h1:7000".into(),
            zone: None,
            weight: 1,
            seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
            partitions: 1,
            replicas: 3,
        },
        directory,
        file: Arc::new(IdentityFile::new(Arc::new(StdDisk), std::path::Path::new("nowhere"))),
        transport,
        threads: Arc::new(SystemThreads),
        random: Arc::new(SystemRandom),
        clock: Arc::new(SystemClock),
        reported: Mutex::default(),
        changing: tokio::sync::Mutex::new(()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_at_a_members_address_stops_nobody() {
    let memory = MemoryNetwork::default();
    let network: Arc<dyn Network> = Arc::new(memory.clone());
    let founding = founding(&network, &[]);
    serve(&network, &founding.directory, "h2:7000", 2, 99).await;
    let stopped = clock::timeout(CHECK_EVERY * 20, founding.check_standing()).await;
    assert!(stopped.is_err(), "{stopped:?}");
    assert!(memory.attempts() >= 10, "it goes on asking: {}", memory.attempts());
    serve(&network, &founding.directory, "h3:7000", 3, 7).await;
    let stopped = clock::timeout(CHECK_EVERY * 20, founding.check_standing()).await.expect("the own grid says so");
    assert_eq!(stopped.code, Code::MemberRemoved);
}

#[tokio::test(start_paused = true)]
async fn a_seed_of_another_grid_stops_who_starts() {
    let network: Arc<dyn Network> = Arc::new(MemoryNetwork::default());
    let founding = founding(&network, &["h2:7000"]);
    serve(&network, &founding.directory, "h2:7000", 2, 99).await;
    assert_eq!(founding.check_standing().await.code, Code::ForeignGrid);
}
