//! The server's life: requests under way at shutdown, addresses where nobody is, limits.

use super::*;
use crate::error::Code;
use crate::net::memory::MemoryNetwork;
use crate::net::{Network, TcpNetwork};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};
use tonic::service::Routes;

async fn get(channel: tonic::transport::Channel, path: &str) -> Option<u16> {
    let request = http::Request::get(format!("http://x{path}")).body(tonic::body::Body::empty()).expect("request");
    let answer = tower::ServiceExt::oneshot(channel, request).await.ok()?;
    Some(answer.status().as_u16())
}

struct Served {
    address: String,
    stop: oneshot::Sender<()>,
    server: clock::JoinHandle<()>,
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

/// Serves `/now`, which answers at once, and `/held`, which waits to be released.
async fn served(network: &dyn Network, host: &str, config: GrpcConfig) -> Served {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, free) = (entered.clone(), release.clone());
    let held = move || {
        let (inside, free) = (inside.clone(), free.clone());
        async move {
            inside.notify_one();
            free.notified().await;
        }
    };
    let router =
        axum::Router::new().route("/now", axum::routing::get(|| async {})).route("/held", axum::routing::get(held));
    let listener = network.listen(host).await.expect("listen");
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let server = clock::spawn(serve(listener, Routes::from(router), config, shutdown));
    Served { address, stop, server, entered, release }
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_server_does() {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    let served = served(&*network, "127.0.0.1:0", GrpcConfig::default()).await;
    let channel = channel(network.clone(), &served.address, &GrpcConfig::default()).await.expect("connects");
    assert_eq!(get(channel.clone(), "/now").await, Some(200));
    let held = clock::spawn(async move { get(channel, "/held").await });
    served.entered.notified().await;
    drop(served.stop);
    served.release.notify_one();
    assert_eq!(held.await.expect("task"), Some(200));
    served.server.await.expect("server");
    let refused = super::channel(network, &served.address, &GrpcConfig::default()).await;
    assert_eq!(refused.expect_err("nobody listens").code, Code::PeerUnreachable);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_is_cut_off_after_the_grace() {
    let network: Arc<dyn Network> = Arc::new(MemoryNetwork::default());
    let config = GrpcConfig { keepalive: None, ..Default::default() };
    let served = served(&*network, "m:0", config.clone()).await;
    let channel = channel(network, &served.address, &config).await.expect("connects");
    let held = clock::spawn(async move { get(channel, "/held").await });
    served.entered.notified().await;
    let start = clock::Instant::now();
    drop(served.stop);
    served.server.await.expect("server");
    assert!(start.elapsed() >= config.shutdown_grace);
    assert_eq!(held.await.expect("task"), None);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_and_one_that_is_silent_are_told_apart() {
    let memory = MemoryNetwork::default();
    let network: Arc<dyn Network> = Arc::new(memory.clone());
    let config = GrpcConfig::default();
    let none = channel(network.clone(), "no address", &config).await.expect_err("no address");
    assert_eq!(none.code, Code::InvalidConfig);
    memory.swallow(true);
    let silent = channel(network, "m:1", &config).await.expect_err("silent");
    assert_eq!((silent.code, silent.place.as_str()), (Code::PeerUnreachable, "m:1"));
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let network: Arc<dyn Network> = Arc::new(TcpNetwork);
    let config = GrpcConfig { max_connections: 1, ..Default::default() };
    let served = served(&*network, "127.0.0.1:0", config.clone()).await;
    let first = channel(network.clone(), &served.address, &config).await.expect("connects");
    assert_eq!(get(first.clone(), "/now").await, Some(200));
    let second = channel(network, &served.address, &config).await.expect("the machine accepts");
    let mut waiting = std::pin::pin!(get(second, "/now"));
    assert!(clock::timeout(Duration::from_millis(100), waiting.as_mut()).await.is_err(), "served over the limit");
    drop(first);
    assert_eq!(waiting.await, Some(200));
}
