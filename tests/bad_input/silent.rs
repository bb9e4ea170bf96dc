//! Peers that take a connection and never say a word, as hung ones do: a command's `--timeout` holds,
//! and the others are asked.
#![allow(clippy::disallowed_methods)]

use crate::common::PATIENCE;
use crate::process::{Said, keystead};
use keystead::Grid;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Listens and answers nothing.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

fn timed(arguments: &[&str]) -> (Said, Duration) {
    let begun = Instant::now();
    (keystead(arguments), begun.elapsed())
}

#[test]
fn hung_peers_cost_no_more_than_the_timeout() {
    let hung = [silent(), silent(), silent(), silent()];
    let endpoints: Vec<&str> = hung.iter().map(|(_, address)| address.as_str()).collect();
    let (said, took) = timed(&["members", "--timeout", "1", "--endpoint", &endpoints.join(",")]);
    said.says(1, &["KS3003", "no peer answers"]);
    assert!(took < Duration::from_secs(5), "{took:?}: {said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_peer_leaves_time_for_the_next() {
    let peer = Grid::builder().listen("127.0.0.1:0").partitions(2).memory().start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    let (_hung, address) = silent();
    let (said, took) = timed(&["members", "--timeout", "8", "--endpoint", &format!("{address},{}", peer.address())]);
    said.says(0, &[]);
    assert!(took < Duration::from_secs(8), "{took:?}: {said:?}");
    peer.shutdown().await;
}

/// Passes bytes on until it is told to swallow them, as a machine does that has lost its power: its
/// connections stay open, and nothing comes.
async fn through(to: String, silent: tokio::sync::watch::Receiver<bool>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    keystead::clock::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (to, mut silent) = (to.clone(), silent.clone());
            keystead::clock::spawn(async move {
                let mut peer = tokio::net::TcpStream::connect(to).await.expect("the peer");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut peer) => return,
                    _ = silent.wait_for(|silent| *silent) => {}
                }
                // Kept open for ever.
                std::future::pending::<()>().await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_costs_calls_about_jobs_a_part_of_their_time() {
    let peer = Grid::builder().listen("127.0.0.1:0").partitions(2).memory().start().await.expect("starts");
    peer.wait_ready(PATIENCE).await.expect("serves");
    let (shut, silent) = tokio::sync::watch::channel(false);
    let first = through(peer.address().to_owned(), silent).await;
    let deadline = Duration::from_secs(4);
    let config = keystead::client::ClientConfig { deadline, ..Default::default() };
    let endpoints = vec![first, peer.address().to_owned()];
    let client = keystead::client::Client::connect(endpoints, config).await.expect("connects");
    for _ in 0..4 {
        client.jobs().await.expect("answers");
    }
    shut.send_replace(true);
    for _ in 0..4 {
        client.jobs().await.expect("another peer answers");
    }
    peer.shutdown().await;
}
