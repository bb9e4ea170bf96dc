//! Clients that take more than their share: thousands of streams and of connections, replies that
//! nobody reads. The peer refuses beyond its limits, keeps its memory, and serves the others.

use crate::common::{addresses, free_ports};
use crate::process::{Peer, Start, at, wait_until};
use bytes::Bytes;
use grid_proto::keystead::v1;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// What the peer may grow by in these tests: far more than it should, far less than all would take.
const GROWTH_MAX: u64 = 300 << 20;

fn start(dir: &Path, limits: &str) -> Peer {
    let config = dir.join("k.toml");
    std::fs::write(&config, format!("[limits]\n{limits}")).expect("writes");
    let address = addresses(&free_ports(1)).remove(0);
    let config = config.to_string_lossy().into_owned();
    let peer = Start { more: &["--config", &config], ..Start::new(&address, &[], &dir.join("n1")) }.spawn();
    peer.wait_ready();
    at(&peer.address, &["put", "m", "k", "v", "--timeout", "30"]).says(0, &[]);
    peer
}

async fn kv(address: &str) -> v1::kv_client::KvClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    v1::kv_client::KvClient::new(endpoint.connect().await.expect("connects"))
}

fn code(status: &Status) -> Option<&str> {
    status.metadata().get("keystead-code").and_then(|code| code.to_str().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_are_refused_beyond_the_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = start(dir.path(), "max_streams = 300");
    let before = peer.resident_bytes();
    let (mut open, mut asking, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..20 {
        let client = kv(&peer.address).await;
        let asked = (0..500).map(|_| {
            let mut client = client.clone();
            // What is to be asked ends with its sender.
            let (sender, requests) = tokio::sync::mpsc::channel(1);
            asking.push(sender);
            async move { client.exchange(tokio_stream::wrappers::ReceiverStream::new(requests)).await }
        });
        for outcome in futures::future::join_all(asked).await {
            match outcome {
                Ok(stream) => open.push(stream),
                Err(status) => {
                    assert_eq!(code(&status), Some("KS3006"), "{status:?}");
                    assert!(status.message().contains("300 streams open, its limit"), "{status:?}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((open.len(), refused), (300, 9_700));
    let growth = peer.resident_bytes().saturating_sub(before);
    println!("10,000 streams asked for: the peer grew by {} KiB", growth >> 10);
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    let unary = kv(&peer.address).await.get(get("k")).await.expect("others are served");
    assert!(unary.into_inner().entry.is_some());
    drop((open, asking));
    // Their places are free again.
    wait_until("a place", || at(&peer.address, &["put", "m", "k", "w"]).status == Some(0));
    assert!(!peer.log().contains("panicked"), "{}", peer.log());
}

fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { map: "m".into(), key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_are_refused_beyond_the_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = start(dir.path(), "max_connections = 2");
    // Both places are taken by clients that have asked something.
    let mut old = [kv(&peer.address).await, kv(&peer.address).await];
    for client in &mut old {
        client.get(get("k")).await.expect("gets");
    }
    let before = peer.resident_bytes();
    let most = keystead::net::open_files_limit().unwrap_or(1024).saturating_sub(300).min(10_000);
    let mut crowd: Vec<TcpStream> = Vec::with_capacity(most);
    for _ in 0..most {
        // The system may refuse for itself when its own queue is full.
        crowd.extend(TcpStream::connect(&peer.address).ok());
    }
    let growth = peer.resident_bytes().saturating_sub(before);
    println!("{} connections: the peer grew by {} KiB", crowd.len(), growth >> 10);
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    for client in &mut old {
        client.get(get("k")).await.expect("who was there is served");
    }
    // None of them asks anything: all are closed.
    wait_until("the crowd's end", || crowd.iter().all(is_closed));
    // Full as it is, it tells a newcomer why.
    let words = wait_for_refusal(&peer).await;
    assert!(words.contains("2 connections, its limit") && words.contains("max_connections"), "{words}");
    drop(old);
    wait_until("a place", || at(&peer.address, &["get", "m", "k"]).out == "v\n");
    assert!(!peer.log().contains("panicked"), "{}", peer.log());
}

fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let mut byte = [0; 64];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Asks until the peer says on a connection of its reserve that it is full.
async fn wait_for_refusal(peer: &Peer) -> String {
    let until = keystead::clock::Instant::now() + crate::common::PATIENCE;
    loop {
        let endpoint = Endpoint::from_shared(format!("http://{}", peer.address)).expect("an address");
        if let Ok(channel) = endpoint.connect().await
            && let Err(status) = v1::kv_client::KvClient::new(channel).get(get("k")).await
            && code(&status) == Some("KS3006")
        {
            return status.message().to_owned();
        }
        assert!(keystead::clock::Instant::now() < until, "no refusal came");
        keystead::clock::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_loses_its_stream_and_nobody_else_suffers() {
    let dir = tempfile::tempdir().expect("a directory");
    let peer = start(dir.path(), "slow_client_ms = 1000");
    let value = "x".repeat(100_000);
    at(&peer.address, &["put", "m", "large", &value]).says(0, &[]);
    let before = peer.resident_bytes();
    // Each of these would have 200 MB to read.
    let requests: Vec<v1::KvRequest> =
        (0..2_000).map(|id| v1::KvRequest { id, op: Some(v1::kv_request::Op::Get(get("large"))) }).collect();
    let mut slow = Vec::new();
    for _ in 0..10 {
        let batch = futures::stream::iter([v1::KvBatch { requests: requests.clone() }]);
        let asked = futures::StreamExt::chain(batch, futures::stream::pending());
        slow.push(kv(&peer.address).await.exchange(asked).await.expect("opens").into_inner());
    }
    wait_until("the end of the slow streams", || peer.log().matches("has taken no reply for 1000 ms").count() == 10);
    let growth = peer.resident_bytes().saturating_sub(before);
    println!("10 clients that read nothing: the peer grew by {} KiB", growth >> 10);
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    assert_eq!(at(&peer.address, &["get", "m", "k"]).out, "v\n");
    // Whoever reads on after all learns why nothing more comes.
    let mut replies = slow.remove(0);
    let status = loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if all were answered"),
            Err(status) => break status,
        }
    };
    assert_eq!(code(&status), Some("KS3006"), "{status:?}");
}
