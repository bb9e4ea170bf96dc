//! Grids on loopback for the integration tests.
#![allow(dead_code, missing_docs, clippy::disallowed_methods)]

use keystead::Grid;
use std::path::Path;
use std::time::Duration;

/// Long enough for a loaded machine; tests await readiness, they never sleep it out.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Free loopback ports: TCP and UDP.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut kept = Vec::new();
    while kept.len() < count {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = tcp.local_addr().expect("an address").port();
        if let Ok(udp) = std::net::UdpSocket::bind(("127.0.0.1", port)) {
            kept.push((tcp, udp, port));
        }
    }
    kept.iter().map(|(_, _, port)| *port).collect()
}

/// The addresses of some ports.
pub fn addresses(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
}

/// Starts peer `at` of a grid, with its data below `dir`.
pub async fn start_peer(seeds: &[String], at: usize, dir: &Path, partitions: u32) -> Grid {
    Grid::builder()
        .name(&format!("n{}", at + 1))
        .listen(&seeds[at])
        .seeds(seeds.iter().take(3).cloned())
        .data(dir.join(format!("n{}", at + 1)))
        .partitions(partitions)
        .start()
        .await
        .expect("starts")
}

/// Starts three founders and waits until they serve.
pub async fn start_three(dir: &Path, partitions: u32) -> (Vec<String>, Vec<Grid>) {
    let seeds = addresses(&free_ports(3));
    let mut peers = Vec::new();
    for at in 0..3 {
        peers.push(start_peer(&seeds, at, dir, partitions).await);
    }
    for peer in &peers {
        peer.wait_ready(PATIENCE).await.expect("serves");
    }
    (seeds, peers)
}
